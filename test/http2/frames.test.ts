import test from 'ava';
import { Flag, FrameType, goawayFrame, readFrameHeader, resetFrame, Setting, settingsFrame, windowUpdateFrame } from '../../src/http2/frames.ts';

test('a frame header is read once nine bytes are there, without the reserved bit', (t) => {
  const bytes = Buffer.from('000102 09 04 80000003 ff'.replaceAll(' ', ''), 'hex');
  for (let length = 0; length < 9; length++) t.is(readFrameHeader(bytes.subarray(0, length), 0), undefined);
  t.deepEqual(readFrameHeader(bytes, 0), { length: 0x102, type: FrameType.continuation, flags: Flag.endHeaders, streamId: 3 });
  t.is(readFrameHeader(bytes, 2), undefined);
});

test('SETTINGS is written as RFC 9113 §6.5.1 draws it', (t) => {
  const bytes = settingsFrame([[Setting.maxConcurrentStreams, 100], [Setting.maxHeaderListSize, 65_536]]);
  t.is(bytes.toString('hex'), '00000c040000000000' + '000300000064' + '000600010000');
});

test('RST_STREAM, WINDOW_UPDATE and GOAWAY are written as RFC 9113 §6.4, §6.9 and §6.8 draw them', (t) => {
  t.is(resetFrame(5, 8).toString('hex'), '000004030000000005' + '00000008');
  t.is(windowUpdateFrame(0, 1_000).toString('hex'), '000004080000000000' + '000003e8');
  t.is(goawayFrame(7, 11, 'calm').toString('hex'), '00000c070000000000' + '00000007' + '0000000b' + '63616c6d');
});
