import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import http2 from 'node:http2';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

import test from 'ava';

import { SignetError } from '../../src/errors.ts';
import { HpackDecoder, type HeaderField } from '../../src/http2/hpack.ts';
import { encodeFields } from '../../src/http2/field-block.ts';
import { FrameType, PREFACE, settingsFrame } from '../../src/http2/frames.ts';
import { HeaderBlockAssembler } from '../../src/http2/header-block.ts';
import { Dice, huffman, integer, splitFrames, string, testSeed, WireEncoder, type Field, type Spelling } from '../support/http2-wire.ts';

const LARGE = 1 << 20;

function decoder(maxTableSize = 4096, maxHeaderListSize = LARGE): HpackDecoder {
  return new HpackDecoder({ maxTableSize, maxHeaderListSize });
}

function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(' ', ''), 'hex');
}

function pairs(fields: readonly HeaderField[]): Field[] {
  return fields.map(({ name, value }) => [name, value]);
}

const REQUESTS: Field[][] = [
  [[':method', 'GET'], [':scheme', 'http'], [':path', '/'], [':authority', 'www.example.com']],
  [[':method', 'GET'], [':scheme', 'http'], [':path', '/'], [':authority', 'www.example.com'], ['cache-control', 'no-cache']],
  [[':method', 'GET'], [':scheme', 'https'], [':path', '/index.html'], [':authority', 'www.example.com'], ['custom-key', 'custom-value']],
];

const COOKIE = 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1';
const RESPONSES: Field[][] = [
  [[':status', '302'], ['cache-control', 'private'], ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'], ['location', 'https://www.example.com']],
  [[':status', '307'], ['cache-control', 'private'], ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'], ['location', 'https://www.example.com']],
  [
    [':status', '200'], ['cache-control', 'private'], ['date', 'Mon, 21 Oct 2013 20:13:22 GMT'], ['location', 'https://www.example.com'],
    ['content-encoding', 'gzip'], ['set-cookie', COOKIE],
  ],
];

interface Vector {
  readonly tableSize: number;
  readonly blocks: readonly string[];
  readonly expected: readonly Field[][];
}

/** RFC 7541 Appendix C.3 to C.6: several blocks of one connection each. */
const VECTORS: Record<string, Vector> = {
  'C.3': {
    tableSize: 4096,
    expected: REQUESTS,
    blocks: [
      '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
      '8286 84be 5808 6e6f 2d63 6163 6865',
      '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65',
    ],
  },
  'C.4': {
    tableSize: 4096,
    expected: REQUESTS,
    blocks: [
      '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff',
      '8286 84be 5886 a8eb 1064 9cbf',
      '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf',
    ],
  },
  'C.5': {
    tableSize: 256,
    expected: RESPONSES,
    blocks: [
      '4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474'
        + '7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
      '4803 3330 37c1 c0bf',
      '88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a'
        + '4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31',
    ],
  },
  'C.6': {
    tableSize: 256,
    expected: RESPONSES,
    blocks: [
      '4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3',
      '4883 640e ffc1 c0bf',
      '88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960'
        + 'd5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07',
    ],
  },
};

for (const [name, { tableSize, blocks, expected }] of Object.entries(VECTORS)) {
  test(`RFC 7541 ${name} decodes as printed there`, (t) => {
    const decode = decoder(tableSize);
    t.deepEqual(blocks.map((block) => pairs(decode.decode(hex(block)))), expected);
  });
}

test('RFC 7541 C.2: each of the four representations is read', (t) => {
  t.deepEqual(decoder().decode(hex('400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572')), [
    { name: 'custom-key', value: 'custom-header', sensitive: false },
  ]);
  t.deepEqual(decoder().decode(hex('040c 2f73 616d 706c 652f 7061 7468')), [{ name: ':path', value: '/sample/path', sensitive: false }]);
  t.deepEqual(decoder().decode(hex('1008 7061 7373 776f 7264 0673 6563 7265 74')), [{ name: 'password', value: 'secret', sensitive: true }]);
  t.deepEqual(decoder().decode(hex('82')), [{ name: ':method', value: 'GET', sensitive: false }]);
});

test('every octet survives, with Huffman and without', (t) => {
  const all = Array.from({ length: 256 }, (_, octet) => String.fromCharCode(octet)).join('');
  for (const compress of [true, false]) {
    const block = Buffer.concat([Buffer.from([0]), string('name', compress), string(all, compress)]);
    t.deepEqual(pairs(decoder().decode(block)), [['name', all]]);
  }
  for (const octet of all) {
    const block = Buffer.concat([Buffer.from([0]), string('n'), string(octet, true)]);
    t.deepEqual(pairs(decoder().decode(block)), [['n', octet]]);
  }
});

const REFUSED: Record<string, { block: Buffer; says: RegExp }> = {
  'index 0': { block: hex('80'), says: /index 0 is in neither table/ },
  'an index beyond both tables': { block: hex('be'), says: /index 62 is in neither table/ },
  'a name index beyond both tables': { block: hex('7f00 0161'), says: /index 63 is in neither table/ },
  'a block that ends in a name': { block: hex('0004 6162'), says: /past the end/ },
  'a block that ends before the value': { block: hex('0001 61'), says: /ends inside a field/ },
  'a block that ends in an integer': { block: hex('ff80'), says: /ends inside a field/ },
  'an integer of six octets': { block: hex('ff80 8080 8080 00'), says: /integer overflows/ },
  'an integer beyond 32 bits': { block: hex('ffff ffff ffff 0f'), says: /integer overflows/ },
  'a string longer than all memory': { block: hex('007f ffff ff7f'), says: /past the end/ },
  'EOS in a Huffman string': { block: hex('0001 6184 ffff ffff'), says: /EOS inside/ },
  'Huffman padding of eight ones': { block: hex('0001 6182 1fff'), says: /padding/ },
  'Huffman padding of zeros': { block: hex('0001 6181 18'), says: /padding/ },
  'a Huffman string of padding alone': { block: hex('0001 6181 ff'), says: /padding/ },
  'a table size update beyond the announced size': { block: hex('3fe2 1f'), says: /table size update to 4097, more than 4096/ },
  'a table size update after a field': { block: hex('8220'), says: /update after a field/ },
};

for (const [name, { block, says }] of Object.entries(REFUSED)) {
  test(`${name} is malformed`, (t) => {
    const error = t.throws(() => decoder().decode(block), { instanceOf: SignetError, message: says });
    t.is(error.code, 'malformed_http2');
  });
}

test('Huffman padding of up to seven ones is right', (t) => {
  // 'a' is five bits, '0' too: from three bits of padding down to none and up to seven.
  for (let length = 1; length <= 16; length++) {
    const block = Buffer.concat([Buffer.from([0]), string('n'), string('a'.repeat(length), true)]);
    t.deepEqual(pairs(decoder().decode(block)), [['n', 'a'.repeat(length)]]);
  }
  t.deepEqual(huffman('a'.repeat(8)).length, 5);
});

test('a table size update empties the table, and a later one lets it grow again', (t) => {
  const decode = decoder();
  const kept = hex('4001 6101 62');
  t.deepEqual(pairs(decode.decode(Buffer.concat([kept, hex('be')]))), [['a', 'b'], ['a', 'b']]);
  t.deepEqual(decode.decode(hex('20')), []);
  t.throws(() => decode.decode(hex('be')), { instanceOf: SignetError });
  const grown = decoder();
  t.deepEqual(pairs(grown.decode(Buffer.concat([hex('20'), integer(0x20, 5, 4096), kept, hex('be')]))), [['a', 'b'], ['a', 'b']]);
});

test('a field larger than the table empties it and is no error (RFC 7541 §4.4)', (t) => {
  const decode = decoder(64);
  decode.decode(hex('4001 6101 62'));
  decode.decode(Buffer.concat([Buffer.from([0x40]), string('large'), string('x'.repeat(64))]));
  t.throws(() => decode.decode(hex('be')), { instanceOf: SignetError });
});

test('a list above the limit is refused while it is read, so that a small block cannot stand for a large list', (t) => {
  const decode = decoder(4096, 65_536);
  decode.decode(Buffer.concat([Buffer.from([0x40]), string('n'), string('x'.repeat(4000))]));
  t.is(decode.decode(Buffer.alloc(16, 0xbe)).length, 16);
  const error = t.throws(() => decode.decode(Buffer.alloc(16_000, 0xbe)), { instanceOf: SignetError });
  t.is(error.code, 'limit_exceeded');
});

test('the limit counts name, value and 32 bytes a field (RFC 9113 §6.5.2)', (t) => {
  const block = Buffer.concat([Buffer.from([0]), string('name'), string('value')]);
  t.is(decoder(4096, 41).decode(block).length, 1);
  t.throws(() => decoder(4096, 40).decode(block), { instanceOf: SignetError, message: /more than 40 bytes/ });
});

test('encodeFields is read back as it was, at every length where the form of an integer changes', (t) => {
  const lengths = [0, 1, 126, 127, 128, 254, 255, 256, 16_510, 16_511, 16_512, 70_000];
  const fields = lengths.flatMap((length): Field[] => [['n'.repeat(length), 'v'], ['n', '\xff'.repeat(length)], [':status', '200'], [':status', '404']]);
  const block = encodeFields(fields);
  t.deepEqual(pairs(decoder().decode(block)), fields);
  t.deepEqual(pairs(decoder(0).decode(block)), fields);
});

test('random spellings of random fields mean what they meant to the encoder', (t) => {
  const seed = testSeed();
  t.log(`SIGNET_SEED=${seed}`);
  const dice = new Dice(seed);
  const text = (length: number): string => Array.from({ length }, () => String.fromCharCode(dice.below(256))).join('');
  const spelling = (): Spelling => ({
    whole: dice.chance(2), indexedName: dice.chance(2), indexing: dice.pick(['incremental', 'none', 'never'] as const), huffman: dice.chance(2),
  });
  for (let connection = 0; connection < 20; connection++) {
    const encoder = new WireEncoder();
    const decode = decoder();
    const known: Field[] = [[':method', 'GET'], ['te', 'trailers']];
    for (let request = 0; request < 20; request++) {
      if (dice.chance(2)) known.push([text(1 + dice.below(40)), text(dice.below(900))]);
      const fields = Array.from({ length: dice.below(12) }, () => dice.pick(known));
      const update = dice.chance(5) ? [encoder.resize(dice.below(2048)), encoder.resize(dice.below(4097))] : [];
      const block = Buffer.concat([...update, encoder.block(fields, spelling)]);
      t.deepEqual(pairs(decode.decode(block)), fields);
    }
  }
});

/** A server that only listens and keeps each header block. */
async function recordingServer(socketPath: string, blocks: HeaderField[][], wanted: number): Promise<{ server: net.Server; done: Promise<void> }> {
  const done = Promise.withResolvers<void>();
  const server = net.createServer((socket) => {
    const decode = decoder();
    const assembler = new HeaderBlockAssembler(LARGE);
    let bytes: Buffer = Buffer.alloc(0);
    let prefaced = false;
    socket.on('error', () => {});
    socket.write(settingsFrame([]));
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      if (!prefaced && bytes.length < PREFACE.length) return;
      const { frames, rest } = splitFrames(prefaced ? bytes : bytes.subarray(PREFACE.length));
      prefaced = true;
      bytes = rest;
      for (const frame of frames.filter(({ type }) => type === FrameType.headers || type === FrameType.continuation)) {
        const block = assembler.take(frame, frame.payload);
        if (block !== undefined) blocks.push(decode.decode(block.fragment));
      }
      if (blocks.length >= wanted) done.resolve();
    });
  });
  server.listen(socketPath);
  await once(server, 'listening');
  return { server, done: done.promise };
}

test('what node:http2 encodes is decoded, through many evictions of the table', async (t) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'hpack-'));
  const socketPath = path.join(directory, 's');
  const blocks: HeaderField[][] = [];
  const wanted = 80;
  const { server, done } = await recordingServer(socketPath, blocks, wanted);
  const client = http2.connect('http://localhost', { createConnection: () => net.connect(socketPath) });
  client.on('error', () => {});
  const sent: Field[][] = [];
  for (let request = 0; request < wanted; request++) {
    const own = Array.from({ length: 25 }, (_, at): Field => [`x-field-${(request * 7 + at) % 60}`, `value ${(request % 9) * at} \xe4\xff~{}`]);
    const fields: Field[] = [[':method', 'POST'], [':path', `/p/${request % 5}`], [':scheme', 'http'], [':authority', 'localhost'], ...own];
    sent.push(fields);
    const stream = client.request({ ...Object.fromEntries(fields), [http2.sensitiveHeaders]: ['x-field-3'] }, { endStream: true });
    stream.on('error', () => {});
  }
  await done;
  t.deepEqual(blocks.map(pairs), sent);
  const sensitive = blocks.flat().filter((field) => field.sensitive);
  t.true(sensitive.length > 0);
  t.deepEqual(new Set(sensitive.map(({ name }) => name)), new Set(['x-field-3']));
  client.destroy();
  await new Promise((resolve) => server.close(resolve));
  await rm(directory, { recursive: true });
});
