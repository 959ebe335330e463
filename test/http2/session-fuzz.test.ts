import test from 'ava';
import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import { Code, FrameType, PREFACE, resetFrame, Setting, settingsFrame, windowUpdateFrame } from '../../src/http2/frames.ts';
import { WholeAnswer } from '../../src/http2/whole-answer.ts';
import { CLIENT_SETTINGS, data, Dice, frame, grpcRequest, headers, testSeed, WireEncoder, type Spelling } from '../support/http2-wire.ts';
import { HEAD, SessionServer, TRAILERS, type Open, type Served } from '../support/session-server.ts';

const seed = testSeed();

const SPELLINGS: readonly Spelling[] = [
  { whole: false, indexedName: false, indexing: 'none', huffman: false },
  { whole: true, indexedName: true, indexing: 'incremental', huffman: true },
  { whole: true, indexedName: false, indexing: 'never', huffman: true },
];

/** Frames as a client may send them, and sometimes as none may. */
class FrameWriter {
  readonly #dice: Dice;
  readonly #encoder = new WireEncoder();
  #next = 1;

  constructor(dice: Dice) {
    this.#dice = dice;
  }

  write(isWrong: boolean): Buffer {
    return isWrong ? this.#wrong() : this.#right();
  }

  #right(): Buffer {
    const dice = this.#dice;
    switch (dice.below(9)) {
      case 0: case 1: case 2:
        return this.#request();
      case 3: case 4:
        return data(this.#some(), Buffer.alloc(dice.pick([0, 1, 5, 100, 3_000])), dice.chance(2));
      case 5:
        return windowUpdateFrame(dice.chance(2) ? 0 : this.#some(), 1 + dice.below(1_000));
      case 6:
        return settingsFrame([[Setting.initialWindowSize, dice.pick([0, 1, 10, 65_535])], [Setting.headerTableSize, dice.pick([0, 4_096])]]);
      case 7:
        return resetFrame(this.#some(), Code.cancel);
      default:
        return frame(FrameType.ping, 0, 0, Buffer.alloc(8, dice.below(256)));
    }
  }

  #request(): Buffer {
    const dice = this.#dice;
    const block = this.#encoder.block(grpcRequest(dice.pick(['/a/b', '/c/d']), dice.pick([undefined, 'localhost'])), () => dice.pick(SPELLINGS));
    const id = this.#next;
    this.#next += 2 * (1 + dice.below(2));
    return headers(id, block, { endStream: dice.chance(2), ...(dice.chance(3) ? { padding: dice.below(20) } : {}), cuts: dice.cuts(dice.below(3), block.length) });
  }

  #wrong(): Buffer {
    const dice = this.#dice;
    const payload = Buffer.from(Array.from({ length: dice.below(12) }, () => dice.below(256)));
    return dice.chance(3) ? payload : frame(dice.below(12), dice.below(256), dice.pick([0, 1, 2, 3, this.#next]), payload);
  }

  #some(): number {
    return Math.max(1, this.#next - 2 * (1 + this.#dice.below(3)));
  }
}

/** All that can be seen of a connection: what its reader was told, and what its peer was. */
async function outcomeOf(server: SessionServer, pieces: readonly Buffer[]): Promise<object> {
  const accepted = server.next();
  const socket = net.connect(server.path);
  socket.on('error', () => undefined);
  const heard: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => heard.push(chunk));
  const ended = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  const open = await accepted;
  for (const piece of pieces) {
    // The memory is used again, as that of the acceptor is: whoever has kept a slice of it has something else now.
    const shared = Buffer.from(piece);
    open.session.read(shared);
    shared.fill(0xee);
  }
  // What is written in this turn goes out in the next.
  await new Promise((resolve) => setImmediate(resolve));
  open.socket.end();
  await ended;
  await open.closed;
  return { served: open.served.map(shown), faults: open.faults.map(({ code, message }) => [code, message]), heard: Buffer.concat(heard).toString('hex'), held: open.held() };
}

function shown({ stream, head, body, hasEnded, closings }: Served): object {
  return { id: stream.id, path: head.path, fields: head.fields.map(({ name, value }) => [name, value]), body: Buffer.concat(body).toString('hex'), hasEnded, closings };
}

function cutAt(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  return [0, ...cuts].map((cut, at) => bytes.subarray(cut, cuts[at])).filter(({ length }) => length > 0);
}

/** Answers what has ended, one in three with too much for some windows; keeps what a call would keep. */
function onEnd({ stream, body }: Served): void {
  const content = Buffer.concat(body);
  stream.keep(content.length);
  stream.sendWhole(new WholeAnswer(HEAD, Buffer.alloc(stream.id % 3 === 0 ? 20_000 : 20, content.length), TRAILERS));
}

test(`frames, right and wrong, come to the same however they are cut, and leave nothing behind (SIGNET_SEED=${seed})`, async (t) => {
  const dice = new Dice(seed);
  const server = await SessionServer.open({ reads: false, onEnd });
  t.teardown(() => server.close());
  let faults = 0;
  for (let round = 0; round < 150; round++) {
    const writer = new FrameWriter(dice);
    const wrongOneIn = dice.pick([5, 30, 1_000_000]);
    const bytes = Buffer.concat([PREFACE, CLIENT_SETTINGS, ...Array.from({ length: 1 + dice.below(40) }, () => writer.write(dice.chance(wrongOneIn)))]);
    const whole = await outcomeOf(server, [bytes]);
    t.like(whole, { held: 0 });
    if ((whole as { faults: unknown[] }).faults.length > 0) faults += 1;
    const ways = [cutAt(bytes, dice.cuts(1 + dice.below(20), bytes.length)), ...(bytes.length < 3_000 ? [cutAt(bytes, Array.from(bytes.keys()))] : [])];
    for (const pieces of ways) t.deepEqual(await outcomeOf(server, pieces), whole, `round ${round}`);
  }
  t.is(server.held, 0);
  t.true(faults > 10 && faults < 140, `${faults} ended by a fault`);
});

test(`octets without sense never throw, and leave nothing behind (SIGNET_SEED=${seed})`, async (t) => {
  const dice = new Dice(seed);
  const server = await SessionServer.open({ reads: false, onEnd });
  t.teardown(() => server.close());
  for (let round = 0; round < 100; round++) {
    const noise = Buffer.from(Array.from({ length: dice.below(300) }, () => (dice.chance(2) ? 0 : dice.below(256))));
    const start = dice.pick([Buffer.alloc(0), PREFACE, Buffer.concat([PREFACE, CLIENT_SETTINGS])]);
    t.like(await outcomeOf(server, [start, noise]), { held: 0 });
  }
});

test(`Node's HTTP/2 client, with windows of every size, gets back what it says (SIGNET_SEED=${seed})`, async (t) => {
  const dice = new Dice(seed);
  const server = await SessionServer.open();
  t.teardown(() => server.close());
  for (let round = 0; round < 20; round++) {
    const settings = { initialWindowSize: dice.pick([100, 1_000, 65_535, 1 << 20]), headerTableSize: dice.pick([0, 100, 4_096, 65_536]), maxFrameSize: dice.pick([16_384, 1 << 20]), enablePush: false };
    const client = http2.connect('http://localhost', { createConnection: () => net.connect(server.path), settings });
    const sizes = Array.from({ length: 1 + dice.below(10) }, () => dice.pick([0, 1, 5, 90, 5_000, ...(settings.initialWindowSize > 100 ? [60_000, 200_000] : [])]));
    const got = await Promise.all(sizes.map((size, at) => exchange(client, Buffer.alloc(size, at))));
    t.deepEqual(got, sizes.map((size) => ({ status: 200, trailer: '0', isSame: true, size })), JSON.stringify(settings));
    await new Promise<void>((resolve) => client.close(() => resolve()));
  }
  await Promise.all(server.opened.map(({ closed }) => closed));
  t.is(server.held, 0);
  t.true(server.opened.every(({ faults, served }: Open) => faults.length === 0 && served.every(({ closings }) => closings === 1)));
});

async function exchange(client: http2.ClientHttp2Session, body: Buffer): Promise<object> {
  const stream = client.request({ ':method': 'POST', ':path': '/a', 'x-long': 'v'.repeat(200) }, { endStream: false });
  const head = once(stream, 'response') as Promise<[Record<string, unknown>]>;
  const last = once(stream, 'trailers') as Promise<[Record<string, unknown>]>;
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  stream.end(body);
  const [[{ ':status': status }], [{ 'grpc-status': trailer }]] = await Promise.all([head, last, once(stream, 'end')]);
  const got = Buffer.concat(chunks);
  return { status, trailer, isSame: got.equals(body), size: got.length };
}

test('flags and reserved bits that mean nothing are ignored (RFC 9113 §4.1)', async (t) => {
  const server = await SessionServer.open({ reads: false, onEnd });
  t.teardown(() => server.close());
  const request = headers(1, new WireEncoder().block(grpcRequest('/a/b')), { endStream: true });
  const odd = Buffer.from(request);
  odd[4] = odd[4]! | 0x50;
  odd[5] = odd[5]! | 0x80;
  const of = (bytes: Buffer): Promise<object> => outcomeOf(server, [PREFACE, CLIENT_SETTINGS, bytes]);
  t.deepEqual(await of(odd), await of(request));
});
