import test from 'ava';

import { SignetError, type ErrorCode } from '../../src/errors.ts';
import {
  Flag, FrameType, HeaderBlockAssembler, MAX_FRAME_BYTES, readFrameHeader, Setting, settingsFrame, writeHeaderBlock, type HeaderBlock,
} from '../../src/listener/http2-frames.ts';
import { Dice, frame, headers, splitFrames, testSeed } from '../support/http2-wire.ts';

const NONE = Buffer.alloc(0);
const PRIORITY = Buffer.from([0x80, 0, 0, 3, 15]);

/** All frames of `bytes` through one assembler, as the prelude and the rewriter do it. */
function assemble(bytes: Buffer, maxBytes = 1 << 20): HeaderBlock[] {
  const assembler = new HeaderBlockAssembler(maxBytes);
  const blocks: HeaderBlock[] = [];
  for (const { payload, ...header } of splitFrames(bytes).frames) {
    assembler.check(header);
    if (header.type !== FrameType.headers && header.type !== FrameType.continuation) continue;
    const block = assembler.take(header, payload);
    if (block !== undefined) blocks.push(block);
  }
  return blocks;
}

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

test('padding and PADDED are taken off, priority and all other flags are kept', (t) => {
  const fragment = Buffer.from('abc');
  for (const padding of [undefined, 0, 1, 255]) {
    for (const priority of [NONE, PRIORITY]) {
      const shape = { priority, endStream: true, ...(padding === undefined ? {} : { padding }) };
      const flags = Flag.endStream | (priority.length > 0 ? Flag.priority : 0);
      t.deepEqual(assemble(headers(5, fragment, shape)), [{ streamId: 5, flags, priority, fragment }]);
    }
  }
});

test('a block is put together from its CONTINUATIONs, empty ones too', (t) => {
  const fragment = Buffer.from('abcdef');
  const [block] = assemble(headers(1, fragment, { padding: 3, priority: PRIORITY, cuts: [0, 0, 2, 2, 5, 6] }));
  t.deepEqual(block, { streamId: 1, flags: Flag.priority, priority: PRIORITY, fragment });
});

test('a written block is one HEADERS and full CONTINUATIONs, and reads back', (t) => {
  const dice = new Dice(testSeed());
  const lengths = [0, 1, MAX_FRAME_BYTES - 5, MAX_FRAME_BYTES - 4, MAX_FRAME_BYTES, MAX_FRAME_BYTES + 1, 3 * MAX_FRAME_BYTES, 100_000];
  for (const length of lengths) {
    for (const priority of [NONE, PRIORITY]) {
      const fragment = Buffer.alloc(length, dice.below(256));
      const block = { streamId: 7, flags: Flag.endStream | (priority.length > 0 ? Flag.priority : 0), priority, fragment };
      const bytes = writeHeaderBlock(block);
      const { frames, rest } = splitFrames(bytes);
      t.is(rest.length, 0);
      t.is(frames.length, Math.max(1, Math.ceil((length + priority.length) / MAX_FRAME_BYTES)));
      t.true(frames.every((each) => each.length <= MAX_FRAME_BYTES));
      t.deepEqual(assemble(bytes), [block]);
    }
  }
});

interface Refusal {
  readonly bytes: Buffer;
  readonly code?: ErrorCode;
  readonly says: RegExp;
}

const open = frame(FrameType.headers, 0, 1, Buffer.from('a'));
const REFUSED: Record<string, Refusal> = {
  'a frame above 16,384 bytes': { bytes: frame(FrameType.data, 0, 1, Buffer.alloc(MAX_FRAME_BYTES + 1)), says: /16385 bytes.*§4\.2/ },
  'CONTINUATION without HEADERS': { bytes: frame(FrameType.continuation, Flag.endHeaders, 1), says: /without HEADERS/ },
  'CONTINUATION after a finished block': {
    bytes: Buffer.concat([headers(1, NONE), frame(FrameType.continuation, Flag.endHeaders, 1)]), says: /without HEADERS/,
  },
  'DATA inside a block': { bytes: Buffer.concat([open, frame(FrameType.data, 0, 1)]), says: /between HEADERS/ },
  'PING inside a block': { bytes: Buffer.concat([open, frame(FrameType.ping, 0, 0, Buffer.alloc(8))]), says: /between HEADERS/ },
  'HEADERS inside a block': { bytes: Buffer.concat([open, open]), says: /between HEADERS/ },
  'CONTINUATION of another stream': { bytes: Buffer.concat([open, frame(FrameType.continuation, Flag.endHeaders, 3)]), says: /between HEADERS/ },
  'more padding than payload': {
    bytes: frame(FrameType.headers, Flag.padded | Flag.endHeaders, 1, Buffer.from([2, 0])), says: /more padding/,
  },
  'padding that reaches into the priority': {
    bytes: frame(FrameType.headers, Flag.padded | Flag.priority | Flag.endHeaders, 1, Buffer.from([1, 0, 0, 0, 0, 0])), says: /more padding/,
  },
  'PADDED without a length': { bytes: frame(FrameType.headers, Flag.padded | Flag.endHeaders, 1), says: /too short/ },
  'PRIORITY with four bytes': { bytes: frame(FrameType.headers, Flag.priority | Flag.endHeaders, 1, Buffer.alloc(4)), says: /too short/ },
  'a block above the limit': { bytes: headers(1, Buffer.alloc(101), { cuts: [50] }), code: 'limit_exceeded', says: /more than 100 bytes/ },
  'a flood of empty CONTINUATIONs': {
    bytes: Buffer.concat([open, ...Array.from({ length: 9 }, () => frame(FrameType.continuation, 0, 1))]),
    code: 'limit_exceeded', says: /more than 8 CONTINUATION/,
  },
};

for (const [name, { bytes, code = 'malformed_http2', says }] of Object.entries(REFUSED)) {
  test(`${name} is refused`, (t) => {
    const error = t.throws(() => assemble(bytes, 100), { instanceOf: SignetError, message: says });
    t.is(error.code, code);
  });
}

test('a block of exactly the limit in eight CONTINUATIONs is taken', (t) => {
  t.is(assemble(headers(1, Buffer.alloc(100), { cuts: [10, 20, 30, 40, 50, 60, 70, 80] }), 100).length, 1);
});
