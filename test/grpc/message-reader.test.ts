import test from 'ava';
import { MessageReader } from '../../src/grpc/message-reader.ts';
import { CallFault, Status } from '../../src/grpc/status.ts';
import { Dice, grpcMessage, testSeed } from '../support/http2-wire.ts';

const seed = testSeed();
const refused = (code: Status, bytes: Buffer, max = 100) => (t: { throws: (step: () => void, how: object) => unknown; is: (a: unknown, b: unknown) => void }): void => {
  const reader = new MessageReader(max);
  const fault = t.throws(() => [...reader.read(bytes)], { instanceOf: CallFault }) as CallFault;
  t.is(fault.status.code, code);
};

test(`messages come out as they went in, however they are cut (SIGNET_SEED=${seed})`, (t) => {
  const dice = new Dice(seed);
  for (let round = 0; round < 500; round++) {
    const messages = Array.from({ length: dice.below(6) }, () => Buffer.from(Array.from({ length: dice.pick([0, 1, 4, 5, 6, 200]) }, () => dice.below(256))));
    const bytes = Buffer.concat(messages.map(grpcMessage));
    const cuts = round % 5 === 0 ? [...bytes.keys()] : dice.cuts(dice.below(8), bytes.length);
    const reader = new MessageReader(200);
    const got: Buffer[] = [];
    for (const [at, cut] of [0, ...cuts].entries()) {
      const shared = Buffer.from(bytes.subarray(cut, cuts[at]));
      for (const message of reader.read(shared)) got.push(Buffer.from(message));
      shared.fill(0xee);
    }
    t.deepEqual(got, messages);
    t.is(reader.bytes, 0);
  }
});

test('a prefix that comes in two pieces, and its message in a third', (t) => {
  const reader = new MessageReader(100);
  const bytes = grpcMessage(Buffer.from('abcdef'));
  t.deepEqual([...reader.read(bytes.subarray(0, 3))], []);
  t.deepEqual([...reader.read(bytes.subarray(3, 7))], []);
  t.deepEqual([...reader.read(bytes.subarray(7))].map(String), ['abcdef']);
});

test('what waits is counted by what it costs, and no more than what has come is kept', (t) => {
  const reader = new MessageReader(1 << 20);
  const bytes = grpcMessage(Buffer.alloc(1 << 20));
  t.deepEqual([...reader.read(bytes.subarray(0, 6))], []);
  t.true(reader.bytes > 0 && reader.bytes < 512, `${reader.bytes} bytes for 6`);
  t.deepEqual([...reader.read(bytes.subarray(6, 10_000))], []);
  t.true(reader.bytes >= 10_000 && reader.bytes < 21_000, `${reader.bytes} bytes for 10,000`);
  reader.clear();
  t.is(reader.bytes, 0);
});

test('a message that is too long is refused with its prefix, before anything of it has come', refused(Status.resourceExhausted, Buffer.from('0000000065', 'hex')));
test('the longest length of all is refused', refused(Status.resourceExhausted, Buffer.from('00ffffffff', 'hex')));
test('a compressed message is refused', refused(Status.unimplemented, Buffer.from('01', 'hex')));
test('a flag that is neither 0 nor 1 is refused', refused(Status.internal, Buffer.from('02', 'hex')));
