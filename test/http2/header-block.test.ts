import test from 'ava';
import { ConnectionFault } from '../../src/http2/fault.ts';
import { Code, Flag, FrameType } from '../../src/http2/frames.ts';
import { HeaderBlockAssembler, type HeaderBlock } from '../../src/http2/header-block.ts';
import { frame, headers, splitFrames } from '../support/http2-wire.ts';

const NONE = Buffer.alloc(0);
const PRIORITY = Buffer.from([0x80, 0, 0, 3, 15]);

/** All frames of `bytes` through one assembler. */
function assemble(bytes: Buffer, maxBytes = 1 << 20): HeaderBlock[] {
  const assembler = new HeaderBlockAssembler(maxBytes);
  return splitFrames(bytes).frames.map((each) => assembler.take(each, each.payload)).filter((block) => block !== undefined);
}

test('padding and priority are taken off', (t) => {
  const fragment = Buffer.from('abc');
  for (const padding of [undefined, 0, 1, 255]) {
    for (const priority of [NONE, PRIORITY]) {
      const shape = { priority, endStream: true, ...(padding === undefined ? {} : { padding }) };
      const dependency = priority === NONE ? undefined : 3;
      t.deepEqual(assemble(headers(5, fragment, shape)), [{ streamId: 5, endStream: true, dependency, fragment }]);
    }
  }
});

test('a block is put together from its CONTINUATIONs, empty ones too', (t) => {
  const fragment = Buffer.from('abcdef');
  const [block] = assemble(headers(1, fragment, { padding: 3, priority: PRIORITY, cuts: [0, 0, 2, 2, 5, 6] }));
  t.deepEqual(block, { streamId: 1, endStream: false, dependency: 3, fragment });
});

test('what waits for its CONTINUATIONs is counted, and no more', (t) => {
  const assembler = new HeaderBlockAssembler(100);
  const [first, second] = splitFrames(headers(7, Buffer.alloc(60), { cuts: [40] })).frames;
  assembler.take(first!, first!.payload);
  t.is(assembler.openStream, 7);
  t.true(assembler.bytes >= 40 && assembler.bytes <= 256, `${assembler.bytes} bytes`);
  t.truthy(assembler.take(second!, second!.payload));
  t.deepEqual([assembler.openStream, assembler.bytes], [0, 0]);
});

interface Refusal {
  readonly bytes: Buffer;
  readonly code: Code;
  readonly says: RegExp;
}

const open = frame(FrameType.headers, 0, 1, Buffer.from('a'));
const REFUSED: Record<string, Refusal> = {
  'more padding than payload': {
    bytes: frame(FrameType.headers, Flag.padded | Flag.endHeaders, 1, Buffer.from([2, 0])), code: Code.protocolError, says: /more padding/,
  },
  'padding that reaches into the priority': {
    bytes: frame(FrameType.headers, Flag.padded | Flag.priority | Flag.endHeaders, 1, Buffer.from([1, 0, 0, 0, 0, 0])), code: Code.protocolError, says: /more padding/,
  },
  'PADDED without a length': { bytes: frame(FrameType.headers, Flag.padded | Flag.endHeaders, 1), code: Code.frameSizeError, says: /too short/ },
  'PRIORITY with four bytes': { bytes: frame(FrameType.headers, Flag.priority | Flag.endHeaders, 1, Buffer.alloc(4)), code: Code.frameSizeError, says: /too short/ },
  'a block above the limit': { bytes: headers(1, Buffer.alloc(101), { cuts: [50] }), code: Code.enhanceYourCalm, says: /more than 100 bytes/ },
  'a block above the limit in one frame': { bytes: headers(1, Buffer.alloc(101)), code: Code.enhanceYourCalm, says: /more than 100 bytes/ },
  'a flood of empty CONTINUATIONs': {
    bytes: Buffer.concat([open, ...Array.from({ length: 9 }, () => frame(FrameType.continuation, 0, 1))]),
    code: Code.enhanceYourCalm, says: /more than 8 CONTINUATION/,
  },
};

for (const [name, { bytes, code, says }] of Object.entries(REFUSED)) {
  test(`${name} is refused`, (t) => {
    const fault = t.throws(() => assemble(bytes, 100), { instanceOf: ConnectionFault, message: says });
    t.is(fault.code, code);
  });
}

test('a block of exactly the limit in eight CONTINUATIONs is taken', (t) => {
  t.is(assemble(headers(1, Buffer.alloc(100), { cuts: [10, 20, 30, 40, 50, 60, 70, 80] }), 100).length, 1);
});
