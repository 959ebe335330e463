import test from 'ava';
import { bytesField, doubleField, messageField, readFields, textOf, varintField, Wire } from '../../src/grpc/protobuf.ts';
import { CallFault, Status } from '../../src/grpc/status.ts';
import { Dice, testSeed } from '../support/http2-wire.ts';

const seed = testSeed();
const fields = (bytes: Buffer): unknown[] => [...readFields(bytes)].map(({ number, wire, bytes: content }) => [number, wire, content.toString('latin1')]);

test('what is written is read back', (t) => {
  const long = 'x'.repeat(20_000);
  t.deepEqual(fields(Buffer.concat([bytesField(1, 'a'), varintField(2, 300), doubleField(3, 1.5), messageField(4, Buffer.alloc(0)), bytesField(5, ''), bytesField(2_000, long)])), [
    [1, Wire.bytes, 'a'], [2, Wire.varint, ''], [3, Wire.fixed64, ''], [4, Wire.bytes, ''], [2_000, Wire.bytes, long],
  ]);
});

test('fields that nobody asked for are passed over, of every kind', (t) => {
  t.deepEqual(fields(Buffer.from('0dffffffff' + '11ffffffffffffffff' + '18ffffffffffffffffff01' + '220161', 'hex')), [
    [1, Wire.fixed32, ''], [2, Wire.fixed64, ''], [3, Wire.varint, ''], [4, Wire.bytes, 'a'],
  ]);
});

const wrong: Readonly<Record<string, string>> = {
  'field number 0': '020161',
  'a group': '0b0c',
  'the end of a group that did not begin': '0c',
  'wire type 6': '0e00',
  'wire type 7': '0f00',
  'a tag that ends in the middle': '80',
  'a varint of 11 octets': '08' + 'ff'.repeat(10) + '01',
  'a varint without its end': '08ff',
  'a length beyond the end': '0a0261',
  'a length of 2^32 - 1': '0affffffff0f61',
  'a length of 2^32 + 1, which is 1 in 32 bits': '0a818080801061',
  'a negative length': '0affffffffffffffffff0161',
  'a fixed64 of 7 octets': '0900000000000000',
  'a fixed32 of 3 octets': '0d000000',
};

for (const [what, hex] of Object.entries(wrong)) {
  test(`no message: ${what}`, (t) => {
    const fault = t.throws(() => fields(Buffer.from(hex, 'hex')), { instanceOf: CallFault }) as CallFault;
    t.deepEqual(fault.status, { code: Status.internal, details: 'Error deserializing request' });
  });
}

test('a text that is not UTF-8, or no text at all, is refused', (t) => {
  for (const hex of ['0a01ff', '0a03eda080', '0a02c080', '0801']) t.throws(() => [...readFields(Buffer.from(hex, 'hex'))].map(textOf), { instanceOf: CallFault });
  t.deepEqual([...readFields(bytesField(1, 'ä€😀\0'))].map(textOf), ['ä€😀\0']);
});

test(`octets without sense are a message or are refused, and nothing else (SIGNET_SEED=${seed})`, (t) => {
  const dice = new Dice(seed);
  for (let round = 0; round < 5_000; round++) {
    const bytes = Buffer.from(Array.from({ length: dice.below(24) }, () => (dice.chance(2) ? dice.below(32) : dice.below(256))));
    try {
      fields(bytes);
    } catch (error) {
      if (!(error instanceof CallFault)) t.fail(`${bytes.toString('hex')}: ${String(error)}`);
    }
  }
  t.pass();
});
