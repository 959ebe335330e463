import http2 from 'node:http2';

import test, { type ExecutionContext } from 'ava';

import { SignetError } from '../../src/errors.ts';
import { AuthorityRewriter } from '../../src/listener/authority.ts';
import { FrameType, PREFACE, Setting, settingsFrame } from '../../src/listener/http2-frames.ts';
import { PreludeReader } from '../../src/listener/prelude.ts';
import {
  data, Dice, frame, headers, PRELUDE_DEFAULTS, PreludeServer, SETTINGS_ACK, testSeed, WireClient, WireEncoder, type Field, type Spelling,
} from '../support/http2-wire.ts';

/** One call: what is sent, and what a server has to see. */
interface Call {
  readonly streamId: number;
  readonly fields: Field[];
  readonly body: string;
  readonly trailers: Field[];
}

interface Scene {
  readonly calls: Call[];
  /** From the preface on, the ACK included. */
  readonly bytes: Buffer;
}

const AUTHORITIES = ['/run/agent.sock', 'unix:///run/agent.sock', 'run/agent.sock', '', undefined, 'localhost', 'spire_agent'];
const VALUE_CHARACTERS = 'abcdefghijklmnopqrstuvwxyz0123456789 ~!"#$%{}/\\\xe4\xff';

function randomSpelling(dice: Dice): Spelling {
  return { whole: dice.chance(2), indexedName: dice.chance(2), indexing: dice.pick(['incremental', 'none', 'never'] as const), huffman: dice.chance(2) };
}

function randomValue(dice: Dice): string {
  const length = dice.chance(8) ? dice.below(6_000) : dice.below(40);
  return `v${Array.from({ length }, () => VALUE_CHARACTERS[dice.below(VALUE_CHARACTERS.length)]).join('')}v`;
}

function randomFields(dice: Dice, prefix: string): Field[] {
  return Array.from({ length: dice.below(6) }, (_, at): Field => [`${prefix}-${at}`, randomValue(dice)]);
}

/** `authority` is that of the whole connection, as with real clients. */
function randomCall(dice: Dice, streamId: number, authority: string | undefined): Call {
  const pseudo: Field[] = [[':method', 'POST'], [':scheme', 'http'], [':path', `/s/${streamId}`]];
  if (authority !== undefined) pseudo.splice(dice.below(4), 0, [':authority', authority]);
  return {
    streamId,
    fields: [...pseudo, ...randomFields(dice, 'x-head')],
    body: dice.chance(3) ? '' : `${streamId} `.repeat(dice.below(1_200)),
    trailers: dice.chance(2) ? [['x-trailer', 'always'], ...randomFields(dice, 'x-trail')] : [],
  };
}

class SceneWriter {
  readonly #dice: Dice;
  readonly #encoder = new WireEncoder();

  constructor(dice: Dice) {
    this.#dice = dice;
  }

  headers(streamId: number, fields: readonly Field[], endStream: boolean): Buffer {
    const dice = this.#dice;
    const update = dice.chance(4) ? [this.#encoder.resize(dice.below(600)), this.#encoder.resize(dice.below(4097))] : [];
    const block = Buffer.concat([...update, this.#encoder.block(fields, () => randomSpelling(dice))]);
    const cuts = dice.chance(2) || block.length > 16_000 ? dice.cuts(dice.below(6), block.length) : [];
    const far = [0, ...cuts, block.length].some((cut, at, all) => cut - (all[at - 1] ?? 0) > 16_000);
    return headers(streamId, block, {
      endStream,
      cuts: far ? [16_000, 32_000, 48_000].filter((cut) => cut < block.length) : cuts,
      ...(dice.chance(3) ? { padding: dice.below(256) } : {}),
      ...(dice.chance(3) ? { priority: Buffer.from([0, 0, 0, 0, dice.below(256)]) } : {}),
    });
  }

  /** What a call sends after its first HEADERS, in pieces between which other streams may speak. */
  *rest(call: Call): Generator<Buffer> {
    const body = Buffer.from(call.body, 'latin1');
    const cuts = [0, ...this.#dice.cuts(this.#dice.below(4), body.length), body.length];
    for (const [at, cut] of cuts.entries()) if (at > 0) yield data(call.streamId, body.subarray(cuts[at - 1], cut));
    yield call.trailers.length > 0 ? this.headers(call.streamId, call.trailers, true) : data(call.streamId, Buffer.alloc(0), true);
  }

  noise(): Buffer {
    return this.#dice.pick([
      Buffer.alloc(0),
      frame(FrameType.ping, 0, 0, Buffer.from('a ping.!')),
      frame(FrameType.windowUpdate, 0, 0, Buffer.from([0, 0, 1, 0])),
      settingsFrame([[Setting.initialWindowSize, 100_000]]),
      frame(0x77, 0xff, 1, Buffer.from('unknown')),
    ]);
  }
}

function randomScene(dice: Dice): Scene {
  const writer = new SceneWriter(dice);
  const authority = dice.pick(AUTHORITIES);
  const calls = Array.from({ length: 1 + dice.below(5) }, (_, at) => randomCall(dice, 2 * at + 1, authority));
  const waiting = [...calls];
  const speaking: Generator<Buffer>[] = [];
  const parts: Buffer[] = [PREFACE, settingsFrame([])];
  const ackAfter = dice.below(4);
  for (let turn = 0; waiting.length + speaking.length > 0 || turn <= ackAfter; turn++) {
    if (turn === ackAfter) parts.push(SETTINGS_ACK);
    parts.push(writer.noise());
    const next = speaking.length === 0 || dice.chance(3) ? waiting.shift() : undefined;
    if (next !== undefined) {
      parts.push(writer.headers(next.streamId, next.fields, false));
      speaking.push(writer.rest(next));
    } else if (speaking.length > 0) {
      const place = dice.below(speaking.length);
      const piece = speaking[place]!.next();
      if (piece.done === true) speaking.splice(place, 1);
      else parts.push(piece.value);
    }
  }
  return { calls, bytes: Buffer.concat(parts) };
}

function pieces(dice: Dice, bytes: Buffer): Buffer[] {
  const cuts = [0, ...dice.cuts(dice.below(40), bytes.length), bytes.length];
  return cuts.slice(1).map((cut, at) => bytes.subarray(cuts[at], cut));
}

interface Seen {
  readonly path: string;
  readonly fields: Field[];
  readonly trailers: Field[];
  readonly body: string;
}

function pairsOf(raw: readonly string[]): Field[] {
  return Array.from({ length: raw.length / 2 }, (_, at): Field => [raw[2 * at]!, raw[2 * at + 1]!]);
}

/** A node:http2 server that keeps all that it is told, behind the prelude. */
async function observer(t: ExecutionContext, seen: Map<string, Seen>[]): Promise<PreludeServer> {
  const server = http2.createServer({ maxHeaderListPairs: 256 });
  server.on('sessionError', () => {});
  const bySession = new Map<http2.Http2Session | undefined, Map<string, Seen>>();
  server.on('session', (session) => {
    const calls = new Map<string, Seen>();
    bySession.set(session, calls);
    seen.push(calls);
  });
  server.on('stream', (stream: http2.ServerHttp2Stream, head: http2.IncomingHttpHeaders, _flags: number, raw: string[]) => {
    const parts: Buffer[] = [];
    let trailers: Field[] = [];
    const calls = bySession.get(stream.session);
    stream.on('error', () => {});
    stream.on('trailers', (_trailers: http2.IncomingHttpHeaders, _flags: number, rawTrailers: string[]) => {
      trailers = pairsOf(rawTrailers);
    });
    stream.on('data', (part: Buffer) => parts.push(part));
    stream.on('end', () => {
      const path = String(head[':path']);
      calls?.set(path, { path, fields: pairsOf(raw), trailers, body: Buffer.concat(parts).toString('latin1') });
      if (!stream.destroyed) stream.respond({ ':status': 200 }, { endStream: true });
    });
  });
  const listening = await PreludeServer.start((stream) => server.emit('connection', stream));
  t.teardown(() => listening.close());
  return listening;
}

function expected({ streamId, fields, trailers, body }: Call, rewritten: boolean): Seen {
  const own: Field = [':authority', 'localhost'];
  const known = fields.map((field) => (rewritten && field[0] === ':authority' ? own : field));
  const list = known.some(([name]) => name === ':authority') ? known : [own, ...known];
  return { path: `/s/${streamId}`, fields: list, trailers, body };
}

const seed = testSeed();

test('whatever way a valid conversation is spelled, split and mixed, node:http2 sees the same calls', async (t) => {
  t.log(`SIGNET_SEED=${seed}`);
  const dice = new Dice(seed);
  const seen: Map<string, Seen>[] = [];
  const server = await observer(t, seen);
  for (let round = 0; round < 120; round++) {
    const scene = randomScene(dice);
    const client = await WireClient.connect(server.socketPath);
    t.teardown(() => client.destroy());
    for (const piece of pieces(dice, scene.bytes)) {
      client.send(piece);
      // A turn of the event loop makes it likely that the server reads this piece by itself.
      if (dice.chance(2)) await new Promise((resolve) => setImmediate(resolve));
    }
    const outcome = await server.outcome(round);
    if (outcome.status === 'rejected') return t.fail(`round ${round}: ${String(outcome.reason)}`);
    await Promise.all(scene.calls.map(({ streamId }) => client.heard((heard) => heard.streamId === streamId && heard.type === FrameType.headers)));
    const told = scene.calls.map(({ streamId }) => seen[round]?.get(`/s/${streamId}`));
    t.deepEqual(told, scene.calls.map((call) => expected(call, outcome.value.rewritten)), `round ${round}`);
    client.destroy();
  }
});

/** Changes, removes, repeats or cuts off some of the bytes after the preface. */
function mutate(dice: Dice, bytes: Buffer): Buffer {
  let out = Buffer.from(bytes);
  for (let change = 0; change <= dice.below(4); change++) {
    const at = PREFACE.length + dice.below(Math.max(1, out.length - PREFACE.length));
    const length = dice.below(20);
    const random = Buffer.from(Array.from({ length }, () => dice.below(256)));
    const kind = dice.below(5);
    if (kind === 0) out[at] = dice.below(256);
    if (kind === 1) out = Buffer.concat([out.subarray(0, at), out.subarray(at + length)]);
    if (kind === 2) out = Buffer.concat([out.subarray(0, at), random, out.subarray(at)]);
    if (kind === 3) out = Buffer.concat([out.subarray(0, at), out.subarray(Math.max(0, at - length))]);
    if (kind === 4 && dice.chance(4)) out = out.subarray(0, at);
  }
  return out;
}

/** Runs `work`; true when it came to its end, false when it said no in the way it may. Anything else is thrown on. */
function survives(work: () => void): boolean {
  try {
    work();
    return true;
  } catch (error) {
    if (error instanceof SignetError && (error.code === 'malformed_http2' || error.code === 'limit_exceeded')) return false;
    throw error;
  }
}

test('mutated conversations are read or refused, never anything else, and never grow beyond their bounds', (t) => {
  t.log(`SIGNET_SEED=${seed}`);
  const dice = new Dice(seed);
  const scenes = Array.from({ length: 40 }, () => randomScene(dice));
  let read = 0;
  let refused = 0;
  let largest = 0;
  for (let round = 0; round < 4_000; round++) {
    const chunks = pieces(dice, mutate(dice, dice.pick(scenes).bytes));
    const reader = new PreludeReader(PRELUDE_DEFAULTS);
    survives(() => chunks.some((chunk) => reader.feed(chunk)));
    const rewriter = new AuthorityRewriter(PRELUDE_DEFAULTS.maxHeaderBytes);
    const done = survives(() => {
      for (const chunk of chunks) for (const piece of rewriter.rewrite(chunk)) largest = Math.max(largest, piece.length);
    });
    if (done) read++;
    else refused++;
  }
  t.log(`${read} read, ${refused} refused`);
  t.true(read > 100 && refused > 100);
  // A piece is one header list in frames, or as much as came in one chunk with what was left of the last.
  t.true(largest <= 2 * PRELUDE_DEFAULTS.maxHeaderBytes);
});

test('mutated conversations on real connections end or stay, and a good client is served all the while', async (t) => {
  t.log(`SIGNET_SEED=${seed}`);
  const dice = new Dice(seed);
  const seen: Map<string, Seen>[] = [];
  const server = await observer(t, seen);
  const good = randomScene(new Dice(1));
  for (let round = 0; round < 150; round++) {
    const bad = await WireClient.connect(server.socketPath);
    bad.send(mutate(dice, dice.chance(8) ? good.bytes : randomScene(dice).bytes));
    bad.socket.end();
    await server.outcome(2 * round);
    const client = await WireClient.connect(server.socketPath);
    client.send(good.bytes);
    await Promise.all(good.calls.map(({ streamId }) => client.heard((heard) => heard.streamId === streamId && heard.type === FrameType.headers)));
    client.destroy();
    await bad.closed();
  }
  while (server.sockets.some((socket) => !socket.destroyed)) await new Promise((resolve) => setImmediate(resolve));
  t.is(server.sockets.length, 300);
});
