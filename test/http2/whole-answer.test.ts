import test from 'ava';
import { encodeFields } from '../../src/http2/field-block.ts';
import { HpackDecoder } from '../../src/http2/hpack.ts';
import { Flag, FrameType, MAX_FRAME_BYTES } from '../../src/http2/frames.ts';
import { WholeAnswer } from '../../src/http2/whole-answer.ts';
import { splitFrames } from '../support/http2-wire.ts';

test('an answer is written for any stream, and no write changes another', (t) => {
  const answer = new WholeAnswer(Buffer.from('head'), Buffer.from('body'), Buffer.from('end'));
  const [first, second] = [Buffer.alloc(answer.length), Buffer.alloc(answer.length)];
  const both = Buffer.alloc(2 * answer.length + 1);
  for (const [at, id] of [[1, 1], [1 + answer.length, 0x7ffffffd]] as const) answer.writeFrames(both, at, id);
  both.copy(first, 0, 1);
  both.copy(second, 0, 1 + answer.length);
  for (const [bytes, id] of [[first, 1], [second, 0x7ffffffd]] as const) {
    t.deepEqual(splitFrames(bytes).frames.map(({ type, flags, streamId, payload }) => [type, flags, streamId, payload.toString()]), [
      [FrameType.headers, Flag.endHeaders, id, 'head'],
      [FrameType.data, 0, id, 'body'],
      [FrameType.headers, Flag.endHeaders | Flag.endStream, id, 'end'],
    ]);
  }
});

test('a body of one frame at most goes out whole', (t) => {
  for (const [size, isOne] of [[MAX_FRAME_BYTES, true], [MAX_FRAME_BYTES + 1, false]] as const) t.is(new WholeAnswer(Buffer.alloc(0), Buffer.alloc(size), Buffer.alloc(0)).isOneFrame, isOne);
});

test('fields of any length are read back as they were (RFC 7541 §6.2.2)', (t) => {
  const fields = [[':status', '200'], [':status', '404'], ...[0, 1, 126, 127, 128, 254, 255, 5_000].map((length): [string, string] => [`x${length}`, '\u00ff'.repeat(length)])] as const;
  const decoder = new HpackDecoder({ maxTableSize: 0, maxHeaderListSize: 1 << 20 });
  const block = encodeFields(fields);
  for (const _ of [1, 2]) t.deepEqual(decoder.decode(block).map(({ name, value }) => [name, value]), fields.map((field) => [...field]));
});
