import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import http2 from 'node:http2';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Duplex } from 'node:stream';

import anyTest, { type TestFn } from 'ava';

import { SignetError, type ErrorCode } from '../../src/errors.ts';
import { AuthorityRewriter, AuthorityRewritingStream, hasPlainAuthority, isPlainAuthority, withLocalAuthority } from '../../src/listener/authority.ts';
import { HpackDecoder, type HeaderField } from '../../src/listener/hpack.ts';
import { Flag, FrameType, PREFACE } from '../../src/listener/http2-frames.ts';
import {
  CLIENT_SETTINGS, data, frame, grpcRequest, headers, PLAIN, splitFrames, WireClient, WireEncoder, type Field,
} from '../support/http2-wire.ts';

/** A bare node:http2 server: what it accepts is what "good" means. */
interface Bare {
  readonly socketPath: string;
  readonly server: http2.Http2Server;
  readonly directory: string;
}

const test = anyTest as TestFn<Bare>;
const HEADER_BYTES = 65_536;

test.before(async (t) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'authority-'));
  const socketPath = path.join(directory, 's');
  const server = http2.createServer();
  server.on('sessionError', () => {});
  server.on('stream', (stream: http2.ServerHttp2Stream) => {
    stream.on('error', () => {});
    stream.respond({ ':status': 200 }, { endStream: true });
  });
  server.listen(socketPath);
  await once(server, 'listening');
  t.context = { socketPath, server, directory };
});

test.after.always(async (t) => {
  await new Promise((resolve) => t.context.server.close(resolve));
  await rm(t.context.directory, { recursive: true });
});

/** Sends each request on a connection of its own past no prelude; tells which of them reach JavaScript. */
async function accepted(socketPath: string, requests: readonly (readonly Field[])[]): Promise<boolean[]> {
  const ask = async (fields: readonly Field[]): Promise<boolean> => {
    const client = await WireClient.connect(socketPath);
    client.send(PREFACE, CLIENT_SETTINGS, headers(1, new WireEncoder().block(fields), { endStream: true }));
    const answer = await client.heard(({ type, streamId }) => streamId === 1 && (type === FrameType.headers || type === FrameType.rstStream));
    client.destroy();
    return answer.type === FrameType.headers;
  };
  const results: boolean[] = [];
  for (let at = 0; at < requests.length; at += 32) results.push(...await Promise.all(requests.slice(at, at + 32).map(ask)));
  return results;
}

function fieldsOf(list: readonly Field[]): HeaderField[] {
  return list.map(([name, value]) => ({ name, value, sensitive: false }));
}

function pairs(list: readonly HeaderField[]): Field[] {
  return list.map(({ name, value }) => [name, value]);
}

const OCTETS = Array.from({ length: 256 }, (_, octet) => String.fromCharCode(octet));

test('every octet that counts as good in an authority is one that node:http2 accepts', async (t) => {
  const authorities = OCTETS.flatMap((octet) => [octet, `${octet}a`, `a${octet}a`, `a${octet}`, `[${octet}]`, `a:${octet}`, `%${octet}0`]);
  const good = authorities.filter(isPlainAuthority);
  t.true(good.length > 200);
  const results = await accepted(t.context.socketPath, good.map((authority) => grpcRequest('/s/m', authority)));
  t.deepEqual(good.filter((_, at) => results[at] !== true), []);
});

test('the octets of an authority that node:http2 refuses are the ones known', async (t) => {
  const results = await accepted(t.context.socketPath, OCTETS.map((octet) => grpcRequest('/s/m', `a${octet}a`)));
  const taken = OCTETS.filter((_, at) => results[at]).join('');
  t.is(taken, "!$%&'()*+,-.0123456789:;=ABCDEFGHIJKLMNOPQRSTUVWXYZ[]_abcdefghijklmnopqrstuvwxyz~");
  t.true(OCTETS.filter((octet) => isPlainAuthority(`a${octet}a`)).every((octet) => taken.includes(octet)));
});

test('with a good authority any octet in host is accepted, but neither an empty host nor two', async (t) => {
  const hosts = OCTETS.map((octet) => grpcRequest('/s/m', 'localhost', `a${octet}a`));
  t.true(hosts.every((request) => hasPlainAuthority(fieldsOf(request))));
  t.true((await accepted(t.context.socketPath, hosts)).every(Boolean));
  const refused: Field[][] = [
    grpcRequest('/s/m', 'localhost', ''),
    [...grpcRequest('/s/m', 'localhost', 'localhost'), ['host', 'localhost']],
    [[':authority', 'localhost'], ...grpcRequest('/s/m', 'localhost')],
    grpcRequest('/s/m', undefined, '/run/agent.sock'),
    grpcRequest('/s/m', ''),
    grpcRequest('/s/m'),
  ];
  t.deepEqual(await accepted(t.context.socketPath, refused), refused.map(() => false));
  t.false(refused.some((request) => hasPlainAuthority(fieldsOf(request))));
});

const GOOD = ['localhost', '%2Frun%2Fagent.sock', 'spire_agent', '[::]:50051', '[::1]', '127.0.0.1:80', 'a.b-c~d_e', 'LOCALHOST:1', '%25'];
const BAD = [
  '', '/run/agent.sock', 'unix:///run/agent.sock', 'run/agent.sock', '@abstract', 'user@host', 'a b', '%', '%2', '%zz', 'a:b', 'a:', ':80', '[::1', '[]',
  '[::1]x', 'a,b', '\0', 'a\n', 'localhost\r\nx: y', 'a'.repeat(513), '%00'.repeat(171),
];

test('the usual forms are good, paths and half-written ones are not', (t) => {
  t.deepEqual(GOOD.filter((authority) => !isPlainAuthority(authority)), []);
  t.deepEqual(BAD.filter(isPlainAuthority), []);
});

test('only the authority changes: order, duplicates, names and sensitivity stay', (t) => {
  const token = { name: 'authorization', value: 'x', sensitive: true };
  const list = [...fieldsOf([[':path', '/x'], ['Upper', 'a'], [':method', 'POST'], [':authority', '/run/s'], ['a', '1']]), token, ...fieldsOf([['a', '1']])];
  const expected = list.map((field) => (field.name === ':authority' ? { ...field, value: 'localhost' } : field));
  t.deepEqual(withLocalAuthority(list), expected);
});

test('a request without :authority gets one, first of all, and its host goes', (t) => {
  const list = fieldsOf(grpcRequest('/s/m', undefined, 'somewhere'));
  t.deepEqual(pairs(withLocalAuthority(list)), [[':authority', 'localhost'], ...grpcRequest('/s/m')]);
});

test('trailers get no :authority and keep what they have', (t) => {
  const list = fieldsOf([['grpc-status', '0'], ['host', 'x']]);
  t.deepEqual(withLocalAuthority(list), list);
  t.deepEqual(withLocalAuthority([]), []);
});

test('a request that is wrong in another way stays wrong after its authority was rewritten', async (t) => {
  const good = grpcRequest('/s/m', '/run/agent.sock');
  const wrong: Record<string, Field[]> = {
    'two authorities': [[':authority', '/run/agent.sock'], ...good],
    'two hosts': [...good, ['host', 'a'], ['host', 'a']],
    'host before a pseudo-header': [['host', 'a'], ...good],
    'a pseudo-header after a field': [['te', 'trailers'], ...good],
    'no path': good.filter(([name]) => name !== ':path'),
    'no scheme': good.filter(([name]) => name !== ':scheme'),
    'no method': good.filter(([name]) => name !== ':method'),
    'an unknown pseudo-header': [[':unknown', 'x'], ...good],
    'an upper-case name': [...good, ['Name', 'x']],
    'connection': [...good, ['connection', 'close']],
    'te other than trailers': [...good, ['te', 'gzip']],
    'two content-lengths': [...good, ['content-length', '1'], ['content-length', '1']],
  };
  const rewritten = Object.values(wrong).map((list) => pairs(withLocalAuthority(fieldsOf(list))));
  const results = await accepted(t.context.socketPath, [...rewritten, pairs(withLocalAuthority(fieldsOf(good)))]);
  t.deepEqual(Object.keys(wrong).filter((_, at) => results[at] !== false), []);
  t.true(results.at(-1));
});

function rewriteAll(rewriter: AuthorityRewriter, ...chunks: Buffer[]): Buffer {
  return Buffer.concat(chunks.flatMap((chunk) => [...rewriter.rewrite(chunk)]));
}

const EVERYTHING = Buffer.concat([
  PREFACE,
  CLIENT_SETTINGS,
  frame(FrameType.windowUpdate, 0, 0, Buffer.from([0, 1, 0, 0])),
  headers(1, new WireEncoder().block(grpcRequest('/s/m', '/run/agent.sock')), { padding: 7, priority: Buffer.from([0, 0, 0, 0, 15]), cuts: [3, 3, 40] }),
  data(1, Buffer.from('hello')),
  frame(FrameType.ping, 0, 0, Buffer.from('12345678')),
  headers(1, new WireEncoder().block([['trailer', 'x']]), { endStream: true }),
  frame(0x42, 0xff, 9, Buffer.from('of an unknown type')),
  headers(3, new WireEncoder().block(grpcRequest('/s/m')), { endStream: true }),
]);

test('what is no header block passes as it is, and its place among the others is kept', (t) => {
  const out = rewriteAll(new AuthorityRewriter(HEADER_BYTES), EVERYTHING);
  t.deepEqual(out.subarray(0, PREFACE.length), PREFACE);
  const decoder = new HpackDecoder({ maxTableSize: 0, maxHeaderListSize: HEADER_BYTES });
  const told = splitFrames(out.subarray(PREFACE.length)).frames.map(({ type, flags, streamId, payload }) => {
    const skip = (flags & Flag.priority) !== 0 ? 5 : 0;
    return type === FrameType.headers ? [type, flags, streamId, pairs(decoder.decode(payload.subarray(skip)))] : [type, flags, streamId, payload.toString('latin1')];
  });
  t.deepEqual(told, [
    [FrameType.settings, 0, 0, ''],
    [FrameType.windowUpdate, 0, 0, '\0\x01\0\0'],
    [FrameType.headers, Flag.priority | Flag.endHeaders, 1, grpcRequest('/s/m', 'localhost')],
    [FrameType.data, 0, 1, 'hello'],
    [FrameType.ping, 0, 0, '12345678'],
    [FrameType.headers, Flag.endStream | Flag.endHeaders, 1, [['trailer', 'x']]],
    [0x42, 0xff, 9, 'of an unknown type'],
    [FrameType.headers, Flag.endStream | Flag.endHeaders, 3, [[':authority', 'localhost'], ...grpcRequest('/s/m')]],
  ]);
});

test('the bytes come out the same wherever the stream is cut', (t) => {
  const expected = rewriteAll(new AuthorityRewriter(HEADER_BYTES), EVERYTHING);
  for (let cut = 0; cut <= EVERYTHING.length; cut++) {
    const out = rewriteAll(new AuthorityRewriter(HEADER_BYTES), EVERYTHING.subarray(0, cut), EVERYTHING.subarray(cut));
    t.deepEqual(out, expected);
  }
  const octets = Array.from(EVERYTHING, (_, at) => EVERYTHING.subarray(at, at + 1));
  t.deepEqual(rewriteAll(new AuthorityRewriter(HEADER_BYTES), ...octets), expected);
});

test('DATA is handed on before its frame is whole', (t) => {
  const rewriter = new AuthorityRewriter(HEADER_BYTES);
  rewriteAll(rewriter, PREFACE, CLIENT_SETTINGS);
  const whole = data(1, Buffer.alloc(16_384, 1));
  t.is(rewriteAll(rewriter, whole.subarray(0, 1000)).length, 1000);
  t.is(rewriteAll(rewriter, whole.subarray(1000)).length, whole.length - 1000);
});

test('a list that needs more than one frame goes on in CONTINUATIONs', (t) => {
  const long: Field[] = [...grpcRequest('/s/m', '/run/agent.sock'), ['x-long', 'v'.repeat(40_000)]];
  const block = new WireEncoder().block(long);
  const sent = Buffer.concat([PREFACE, headers(1, block, { endStream: true, cuts: [16_000, 32_000] })]);
  const { frames, rest } = splitFrames(rewriteAll(new AuthorityRewriter(HEADER_BYTES), sent).subarray(PREFACE.length));
  t.is(rest.length, 0);
  t.deepEqual(frames.map(({ type, flags }) => [type, flags]), [
    [FrameType.headers, Flag.endStream], [FrameType.continuation, 0], [FrameType.continuation, Flag.endHeaders],
  ]);
  const decoder = new HpackDecoder({ maxTableSize: 0, maxHeaderListSize: HEADER_BYTES });
  const fields = decoder.decode(Buffer.concat(frames.map(({ payload }) => payload)));
  t.deepEqual(pairs(fields), [...grpcRequest('/s/m', 'localhost'), ['x-long', 'v'.repeat(40_000)]]);
});

test('many large lists in a small chunk are made one at a time, as the reader asks for them', (t) => {
  const encoder = new WireEncoder();
  const large = encoder.field(['x-large', 'v'.repeat(3000)], { ...PLAIN, indexing: 'incremental' });
  const rewriter = new AuthorityRewriter(HEADER_BYTES);
  rewriteAll(rewriter, PREFACE, headers(1, large));
  const bomb = Buffer.concat(Array.from({ length: 1000 }, (_, at) => headers(2 * at + 3, Buffer.alloc(20, 0xbe), { endStream: true })));
  t.true(bomb.length < 30_000);
  let pieces = 0;
  for (const piece of rewriter.rewrite(bomb)) {
    t.true(piece.length > 60_000 && piece.length <= HEADER_BYTES);
    if (++pieces === 5) break;
  }
  t.is(pieces, 5);
});

test('a header list above the limit, a broken block or a frame above 16,384 bytes ends the connection', (t) => {
  const broken: Record<string, [Buffer, ErrorCode]> = {
    list: [headers(1, Buffer.concat([new WireEncoder().block([['a', 'b'.repeat(400)]])])), 'limit_exceeded'],
    block: [headers(1, Buffer.from([0x80])), 'malformed_http2'],
    frame: [frame(FrameType.data, 0, 1, Buffer.alloc(16_385)).subarray(0, 9), 'malformed_http2'],
  };
  for (const [bytes, code] of Object.values(broken)) {
    const error = t.throws(() => rewriteAll(new AuthorityRewriter(400), PREFACE, bytes), { instanceOf: SignetError });
    t.is(error.code, code);
  }
});

/** Both ends of one Unix connection, the server's inside a rewriting stream. */
async function wrapped(t: { context: Bare; teardown: (clean: () => void) => void }, name: string, halfOpen = false) {
  const server = net.createServer({ allowHalfOpen: halfOpen });
  server.listen(path.join(t.context.directory, name));
  await once(server, 'listening');
  const client = net.connect({ path: path.join(t.context.directory, name), allowHalfOpen: true });
  client.on('error', () => {});
  const [socket]: net.Socket[] = await once(server, 'connection') as net.Socket[];
  const stream = new AuthorityRewritingStream(socket!, PREFACE, HEADER_BYTES);
  stream.on('error', () => {});
  t.teardown(() => {
    client.destroy();
    stream.destroy();
    server.close();
  });
  return { client, socket: socket!, stream };
}

test('a reader that stops makes the client wait, with little in memory, and gets everything later', async (t) => {
  const { client, socket, stream } = await wrapped(t, 'pressure');
  const chunk = data(1, Buffer.alloc(16_375, 7));
  const total = 400;
  let accepted = 0;
  const fill = (): void => {
    while (accepted < total) if (accepted++, !client.write(chunk)) return void client.once('drain', fill);
    client.end();
  };
  fill();
  stream.read(0);
  const full = (buffer: Duplex): boolean => buffer.readableLength >= buffer.readableHighWaterMark;
  while (!full(stream) || !full(socket)) await new Promise((resolve) => setImmediate(resolve));
  t.true(accepted < total);
  t.true(socket.readableLength <= 2 * 65_536);
  t.true(stream.readableLength <= 4 * 65_536);
  let bytes = 0;
  for await (const piece of stream) bytes += (piece as Buffer).length;
  t.is(bytes, PREFACE.length + total * chunk.length);
});

test('a client that does not read makes the writer wait', async (t) => {
  const { client, socket, stream } = await wrapped(t, 'slow-client');
  client.pause();
  let written = 0;
  while (stream.write(Buffer.alloc(65_536)) && written < 1000) written++;
  t.true(written < 1000);
  t.true(socket.writableLength <= 4 * 65_536);
  client.resume();
  await once(stream, 'drain');
  t.pass();
});

test('each side may close its half first, and an end is an end on the other side', async (t) => {
  const { client, stream } = await wrapped(t, 'half', true);
  client.end(data(1, Buffer.from('last words')));
  const heard: Buffer[] = [];
  for await (const piece of stream.iterator({ destroyOnReturn: false })) heard.push(piece as Buffer);
  t.deepEqual(Buffer.concat(heard), Buffer.concat([PREFACE, data(1, Buffer.from('last words'))]));
  t.false(stream.destroyed);
  stream.end('answer');
  let answer = '';
  for await (const piece of client) answer += String(piece);
  t.is(answer, 'answer');
});

test('destroying either side destroys the other', async (t) => {
  const first = await wrapped(t, 'destroy-stream');
  first.client.resume();
  first.stream.destroy();
  await once(first.client, 'end');
  t.true(first.socket.destroyed);
  const second = await wrapped(t, 'destroy-client');
  second.client.destroy();
  second.stream.resume();
  await once(second.stream, 'close');
  t.true(second.socket.destroyed);
  const third = await wrapped(t, 'destroy-socket');
  third.socket.destroy(new Error('reset'));
  const [error]: unknown[] = await once(third.stream, 'error');
  t.is((error as Error).message, 'reset');
});

test('a broken header block destroys the stream and the socket', async (t) => {
  const { client, socket, stream } = await wrapped(t, 'broken');
  stream.resume();
  client.write(headers(1, Buffer.from([0x80])));
  const [error]: unknown[] = await once(stream, 'error');
  t.true(error instanceof SignetError && error.code === 'malformed_http2');
  t.true(socket.destroyed);
});
