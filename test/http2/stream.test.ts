import test from 'ava';
import { Flag, FrameType, MAX_FRAME_BYTES } from '../../src/http2/frames.ts';
import { RequestStream, type StreamHost } from '../../src/http2/stream.ts';
import { WholeAnswer } from '../../src/http2/whole-answer.ts';
import { Dice, splitFrames, testSeed, type Frame } from '../support/http2-wire.ts';

const seed = testSeed();

/** A connection that has a window and room, and keeps what is written. */
class Host implements StreamHost {
  sendWindow = 65_535;
  room = Infinity;
  queued = 0;
  kept = 0;
  owesResize = false;
  readonly written: Buffer[] = [];
  readonly answers: RequestStream[] = [];
  readonly blocked = new Set<RequestStream>();

  queue(bytes: number): boolean {
    if (this.queued + bytes > this.room) return false;
    this.queued += bytes;
    return true;
  }

  unqueue(bytes: number): void {
    this.queued -= bytes;
  }

  write(bytes: Buffer): void {
    this.written.push(Buffer.from(bytes));
  }

  writeAnswer(answer: WholeAnswer, streamId: number): void {
    const frames = Buffer.alloc(answer.length);
    answer.writeFrames(frames, 0, streamId);
    this.written.push(frames);
  }

  earn(): void {}

  sent(): void {}

  takeResize(): boolean {
    const owed = this.owesResize;
    this.owesResize = false;
    return owed;
  }

  block(stream: RequestStream): void {
    this.blocked.add(stream);
  }

  answered(stream: RequestStream): void {
    this.answers.push(stream);
    stream.finish();
  }

  reset(stream: RequestStream): void {
    stream.finish();
    stream.close();
  }

  keep(bytes: number): boolean {
    if (this.kept + bytes > this.room) return false;
    this.kept += bytes;
    return true;
  }

  get frames(): Frame[] {
    return splitFrames(Buffer.concat(this.written)).frames;
  }

  get body(): Buffer {
    return Buffer.concat(this.frames.filter(({ type }) => type === FrameType.data).map(({ payload }) => payload));
  }
}

const newStream = (host: Host, window = 65_535): RequestStream => new RequestStream(1, host, window, 65_535);
const [HEAD, END] = [Buffer.from('head'), Buffer.from('end')];

test(`whatever the windows are, what is sent comes whole, in order, in frames of 16,384 bytes at most (SIGNET_SEED=${seed})`, (t) => {
  const dice = new Dice(seed);
  for (let round = 0; round < 300; round++) {
    const host = new Host();
    host.sendWindow = dice.pick([0, 1, 100, 65_535]);
    host.owesResize = dice.chance(3);
    const stream = newStream(host, dice.pick([-50, 0, 1, 65_535]));
    const bodies = Array.from({ length: 1 + dice.below(4) }, (_, at) => Buffer.alloc(dice.pick([1, 5, 1_000, 16_384, 16_385, 60_000]), at + 1));
    const done: number[] = [];
    if (dice.chance(3)) {
      t.true(stream.sendWhole(new WholeAnswer(HEAD, Buffer.concat(bodies), END)));
    } else {
      stream.sendFields(HEAD, false);
      for (const [at, body] of bodies.entries()) t.true(stream.sendData(body, () => done.push(at)));
      stream.sendFields(END, true);
    }
    for (let turns = 0; !stream.isOver && turns < 10_000; turns++) {
      stream.sendWindow += dice.pick([0, 100, 10_000]);
      host.sendWindow += dice.pick([0, 100, 10_000]);
      host.blocked.clear();
      stream.pump();
      t.true(stream.isOver || host.blocked.has(stream), 'whoever waits is known to wait');
    }
    t.true(host.body.equals(Buffer.concat(bodies)));
    t.true(host.frames.every(({ length }) => length <= MAX_FRAME_BYTES));
    t.is(host.frames.at(-1)!.flags, Flag.endHeaders | Flag.endStream);
    t.deepEqual([host.queued, host.answers.length], [0, 1]);
    t.deepEqual(done, [...done.keys()]);
    t.true(host.sendWindow >= 0 || host.body.length === 0);
  }
});

test('what has no room is not sent at all, and the end can still be', (t) => {
  const host = new Host();
  host.room = 100;
  const stream = newStream(host, 0);
  t.false(stream.sendWhole(new WholeAnswer(HEAD, Buffer.alloc(101), END)));
  t.false(stream.sendData(Buffer.alloc(101)));
  t.deepEqual(host.written, []);
  stream.sendFields(END, true);
  t.is(host.answers.length, 1);
});

test('after its end nothing is sent, and what waited is given back', (t) => {
  const host = new Host();
  const stream = newStream(host, 10);
  t.true(stream.keep(50));
  stream.sendFields(HEAD, false);
  t.true(stream.sendData(Buffer.alloc(1_000), () => t.fail('it was never sent')));
  t.deepEqual([host.queued, host.kept], [990, 50]);
  stream.finish();
  stream.finish();
  t.deepEqual([host.queued, host.kept], [0, 0]);
  const before = host.written.length;
  stream.sendFields(END, true);
  t.true(stream.sendData(Buffer.alloc(5)));
  t.true(stream.keep(1_000));
  stream.pump();
  t.deepEqual([host.written.length, host.kept], [before, 0]);
});

test('a callback may send more, end the stream or reset it', (t) => {
  const more = new Host();
  const first = newStream(more);
  first.sendData(Buffer.from('a'), () => {
    first.sendData(Buffer.from('b'), () => first.sendFields(END, true));
  });
  t.is(more.body.toString(), 'ab');
  t.is(more.answers.length, 1);
  const reset = new Host();
  const second = newStream(reset, 1);
  second.sendData(Buffer.from('a'), () => second.reset(8));
  second.sendData(Buffer.from('b'));
  t.deepEqual([second.isOver, reset.body.toString(), reset.queued], [true, 'a', 0]);
});

test('a reader is told of the end once, even one that comes after it', (t) => {
  const stream = newStream(new Host());
  let told = 0;
  const reader = { data: () => undefined, end: () => undefined, closed: () => void (told += 1) };
  stream.close();
  stream.reader = reader;
  stream.close();
  t.is(told, 1);
});
