import test from 'ava';
import { Gather, ownCopy } from '../../src/http2/gather.ts';

test('what was added is there in its order, in however many pieces, and what it costs is bounded by it', (t) => {
  const gather = new Gather();
  const whole = Buffer.from(Array.from({ length: 10_000 }, (_, at) => at & 255));
  for (const octet of whole.keys()) gather.add(whole.subarray(octet, octet + 1));
  t.true(gather.view.equals(whole));
  t.true(gather.cost <= 2 * whole.length + 256, `${gather.cost} bytes`);
});

test('what is taken away is from the front, and gives memory back', (t) => {
  const gather = new Gather();
  gather.add(Buffer.from('abcdefgh'.repeat(1_000)));
  gather.drop(3);
  t.is(gather.view.toString('latin1', 0, 5), 'defgh');
  gather.drop(7_990);
  t.is(gather.view.toString(), 'bcdefgh');
  t.true(gather.cost < 256);
  gather.add(Buffer.from('!'));
  t.is(gather.view.toString(), 'bcdefgh!');
  gather.drop(8);
  t.deepEqual([gather.length, gather.cost], [0, 0]);
});

test('nothing of whom it was taken from stays alive, nor of Node\'s pool', (t) => {
  const from = Buffer.from('abc');
  const gather = new Gather();
  gather.add(from);
  const copy = ownCopy(from);
  from.fill(0);
  t.is(gather.view.toString(), 'abc');
  t.is(copy.toString(), 'abc');
  t.is(copy.buffer.byteLength, 3);
  t.is(gather.view.buffer.byteLength, 64);
});
