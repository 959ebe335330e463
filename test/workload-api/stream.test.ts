import test from 'ava';
import { SignetError } from '../../src/errors.ts';
import { Message } from '../../src/grpc/message.ts';
import { Status, type CallStatus } from '../../src/grpc/status.ts';
import type { Connection } from '../../src/listener/connection.ts';
import { refusals, type Refusal } from '../../src/workload-api/status.ts';
import { StateStream, type Writable } from '../../src/workload-api/stream.ts';

/** The writing side of a call and of its connection, whose reader takes messages when the test says so. */
class Reader {
  readonly written: string[] = [];
  readonly ended: { code: number; details: string }[] = [];
  readonly refused: Refusal[] = [];
  readonly stream: StateStream;
  isDrained = true;
  failure: Error | undefined;
  #taken: (() => void) | undefined;
  #resume: (() => void) | undefined;

  constructor() {
    const check = (): void => {
      if (this.failure !== undefined) throw this.failure;
    };
    this.stream = new StateStream(this as unknown as Writable, this as unknown as Connection, check, (refusal) => this.refused.push(refusal));
  }

  send(message: Message, taken: () => void): boolean {
    this.written.push(message.content.toString());
    this.#taken = taken;
    return true;
  }

  refuse({ code, details }: CallStatus): void {
    this.ended.push({ code, details });
  }

  whenDrained(resume: () => void): void {
    this.#resume = resume;
  }

  offer(state: string): void {
    this.stream.offer(new Message(Buffer.from(state)));
  }

  /** What was written is on its way. */
  pass(): void {
    this.#taken?.();
  }

  /** The reader has read everything. */
  drain(): void {
    this.isDrained = true;
    this.#resume?.();
  }
}

test('WA-12: the first message is written at once, even when the connection has something unread', (t) => {
  const reader = new Reader();
  reader.isDrained = false;
  t.false(reader.stream.hasState);
  reader.offer('1');
  t.deepEqual(reader.written, ['1']);
  t.true(reader.stream.hasState);
});

test('WA-10: the same bytes are not written again, be they the same message or another one', (t) => {
  const reader = new Reader();
  for (let times = 0; times < 3; times += 1) {
    reader.offer('1');
    reader.pass();
  }
  t.deepEqual(reader.written, ['1']);
});

test('WA-09: a reader that has stopped gets the newest state when it goes on, never a queue', (t) => {
  const reader = new Reader();
  reader.offer('1');
  reader.pass();
  reader.isDrained = false;
  for (const state of ['2', '3', '4']) reader.offer(state);
  t.deepEqual(reader.written, ['1']);
  reader.drain();
  t.deepEqual(reader.written, ['1', '4']);
});

test('while a message is being written, the newest of what comes follows it', (t) => {
  const reader = new Reader();
  reader.offer('1');
  for (const state of ['2', '3']) reader.offer(state);
  t.deepEqual(reader.written, ['1']);
  reader.pass();
  t.deepEqual(reader.written, ['1', '3']);
});

test('a state that is again what the reader has is not written when the reader goes on', (t) => {
  const reader = new Reader();
  reader.offer('1');
  reader.pass();
  reader.isDrained = false;
  reader.offer('2');
  reader.offer('1');
  reader.drain();
  t.deepEqual(reader.written, ['1']);
});

test('WE-19: nothing is written to a caller that is not the one that connected; the stream ends', (t) => {
  const reader = new Reader();
  reader.offer('1');
  reader.pass();
  reader.failure = new SignetError('caller_changed', 'it has another uid');
  reader.offer('2');
  t.deepEqual(reader.written, ['1']);
  t.deepEqual(reader.ended, [{ code: Status.unavailable, details: 'workload attestation failed' }]);
  t.deepEqual(reader.refused, [refusals.callerChanged]);
});

test('after a refusal nothing is written, and it is told once', (t) => {
  const reader = new Reader();
  reader.offer('1');
  reader.stream.refuse(refusals.noIdentity);
  reader.stream.refuse(refusals.stopping);
  reader.offer('2');
  reader.pass();
  t.deepEqual(reader.written, ['1']);
  t.deepEqual(reader.ended, [{ code: Status.permissionDenied, details: 'no identity issued' }]);
});

test('after its end nothing is written and nothing refused', (t) => {
  const reader = new Reader();
  reader.stream.end();
  reader.offer('1');
  reader.stream.refuse(refusals.noIdentity);
  t.deepEqual([reader.written.length, reader.ended.length, reader.refused.length], [0, 0, 0]);
});
