import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';

import grpc from '@grpc/grpc-js';
import test, { type ExecutionContext } from 'ava';

import { SignetError, type ErrorCode } from '../../src/errors.ts';
import { Flag, FrameType, PREFACE, Setting, settingsFrame } from '../../src/listener/http2-frames.ts';
import { PreludeReader, type PreludeOptions } from '../../src/listener/prelude.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { until } from '../support/kernel-processes.ts';
import {
  CLIENT_SETTINGS, data, frame, grpcMessage, grpcRequest, headers, PRELUDE_DEFAULTS, PreludeServer, SETTINGS_ACK, splitFrames, WireClient,
  WireEncoder, type Field,
} from '../support/http2-wire.ts';

const ECHO = '/test.Echo/Echo';
const identity = (bytes: Buffer): Buffer => bytes;
const EchoService: grpc.ServiceDefinition = {
  Echo: {
    path: ECHO, requestStream: false, responseStream: false,
    requestSerialize: identity, requestDeserialize: identity, responseSerialize: identity, responseDeserialize: identity,
  },
};

/** A grpc-js server behind the prelude. Its one method answers with what it was sent. */
async function grpcServer(t: ExecutionContext, options: Partial<PreludeOptions> = {}): Promise<PreludeServer> {
  const server = new grpc.Server();
  server.addService(EchoService, {
    Echo: (call: grpc.ServerUnaryCall<Buffer, Buffer>, done: grpc.sendUnaryData<Buffer>) => done(null, call.request),
  });
  const injector = server.createConnectionInjector(grpc.ServerCredentials.createInsecure());
  const listening = await PreludeServer.start((stream) => injector.injectConnection(stream), options);
  t.teardown(async () => {
    injector.destroy();
    server.forceShutdown();
    await listening.close();
  });
  return listening;
}

interface Seen {
  readonly fields: Field[];
  readonly body: string;
}

/** A node:http2 server behind the prelude that keeps what it sees and answers 200 when a request has ended. */
async function http2Server(t: ExecutionContext, options: Partial<PreludeOptions> = {}): Promise<{ listening: PreludeServer; seen: Seen[] }> {
  const seen: Seen[] = [];
  const server = http2.createServer();
  server.on('sessionError', () => {});
  server.on('stream', (stream: http2.ServerHttp2Stream, _headers: http2.IncomingHttpHeaders, _flags: number, raw: string[]) => {
    stream.on('error', () => {});
    const fields = Array.from({ length: raw.length / 2 }, (_, at): Field => [raw[2 * at]!, raw[2 * at + 1]!]);
    const parts: Buffer[] = [];
    stream.on('data', (part: Buffer) => parts.push(part));
    stream.on('end', () => {
      seen.push({ fields, body: Buffer.concat(parts).toString('latin1') });
      stream.respond({ ':status': 200 }, { endStream: true });
    });
  });
  const listening = await PreludeServer.start((stream) => server.emit('connection', stream), options);
  t.teardown(() => listening.close());
  return { listening, seen };
}

async function connect(t: ExecutionContext, server: PreludeServer): Promise<WireClient> {
  const client = await WireClient.connect(server.socketPath);
  t.teardown(() => client.destroy());
  return client;
}

function request(streamId: number, fields: readonly Field[], body?: Buffer): Buffer {
  const head = headers(streamId, new WireEncoder().block(fields), { endStream: body === undefined });
  return body === undefined ? head : Buffer.concat([head, data(streamId, body, true)]);
}

async function answered(client: WireClient, streamId: number): Promise<void> {
  await client.heard((heard) => heard.streamId === streamId && (heard.flags & Flag.endStream) !== 0 && heard.type !== FrameType.rstStream);
}

/** The ten forms of `:authority` that clients of the Workload API send; `host` is the second. */
const FORMS: Record<string, { authority?: string; host?: string; rewritten: boolean }> = {
  'localhost': { authority: 'localhost', rewritten: false },
  'a percent-encoded path': { authority: '%2Frun%2Fsignet%2Fagent.sock', rewritten: false },
  'a path': { authority: '/run/signet/agent.sock', rewritten: true },
  'a unix URI': { authority: 'unix:///run/signet/agent.sock', rewritten: true },
  'a relative path': { authority: 'run/signet/agent.sock', rewritten: true },
  'a cluster name': { authority: 'spire_agent', rewritten: false },
  'an IP literal with a port': { authority: '[::]:50051', rewritten: false },
  'an empty authority': { authority: '', rewritten: true },
  'no authority': { rewritten: true },
  'only a host': { host: 'localhost', rewritten: true },
};

for (const [name, { authority, host, rewritten }] of Object.entries(FORMS)) {
  test(`${name} reaches a grpc-js handler, whether the client waits for SETTINGS or not`, async (t) => {
    const server = await grpcServer(t);
    const call = request(1, grpcRequest(ECHO, authority, host), grpcMessage(Buffer.from('hello')));
    const waiting = await connect(t, server);
    await waiting.greet();
    waiting.send(call);
    const eager = await connect(t, server);
    eager.send(PREFACE, CLIENT_SETTINGS, call);
    await eager.heard(({ type }) => type === FrameType.settings);
    eager.send(SETTINGS_ACK);
    for (const [place, client] of [waiting, eager].entries()) {
      await answered(client, 1);
      const [head, trailers] = client.fields(1);
      t.deepEqual(head?.[0], [':status', '200']);
      t.true(trailers?.some(([field, value]) => field === 'grpc-status' && value === '0'));
      const answer = await client.heard(({ type, streamId }) => type === FrameType.data && streamId === 1);
      t.deepEqual(answer.payload, grpcMessage(Buffer.from('hello')));
      const outcome = await server.outcome(place);
      t.is(outcome.status === 'fulfilled' && outcome.value.rewritten, rewritten);
    }
  });
}

test('node:http2 sees the authority as it was where it was good, and localhost where it was not', async (t) => {
  const { listening, seen } = await http2Server(t);
  for (const { authority, host, rewritten } of Object.values(FORMS)) {
    const client = await connect(t, listening);
    await client.greet();
    client.send(request(1, grpcRequest('/s/m', authority, host)));
    await answered(client, 1);
    const fields = seen.at(-1)?.fields ?? [];
    t.deepEqual(fields.filter(([name]) => name === ':authority' || name === 'host'), [[':authority', rewritten ? 'localhost' : authority ?? '']]);
    client.destroy();
  }
});

test('later requests of a connection are rewritten too, with the table that the earlier ones filled', async (t) => {
  const { listening, seen } = await http2Server(t);
  const client = await connect(t, listening);
  await client.greet();
  const encoder = new WireEncoder();
  const fields: Field[] = [...grpcRequest('/s/m', '/run/agent.sock'), ['x-token', 'a value that is worth a place in the table']];
  for (const streamId of [1, 3, 5]) {
    client.send(headers(streamId, encoder.block(fields, () => ({ whole: true, indexedName: true, indexing: 'incremental', huffman: true })), { endStream: true }));
    await answered(client, streamId);
  }
  const expected = fields.map(([name, value]): Field => [name, name === ':authority' ? 'localhost' : value]);
  t.deepEqual(seen.map((each) => each.fields), [expected, expected, expected]);
});

test('a node:http2 client takes the raw way and, with a path as authority, the other', async (t) => {
  const { listening, seen } = await http2Server(t);
  for (const [place, authority] of ['localhost', '/run/agent.sock'].entries()) {
    const client = http2.connect('http://localhost', { createConnection: () => net.connect(listening.socketPath) });
    t.teardown(() => client.destroy());
    const bodies = Array.from({ length: 20 }, (_, at) => `${at} `.repeat(2000));
    await Promise.all(bodies.map(async (body) => {
      const stream = client.request({ ':method': 'POST', ':path': '/s/m', ':authority': authority, 'x-body': body.slice(0, 20) });
      stream.end(body);
      const [answer] = await once(stream, 'response') as [http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader];
      t.is(answer[':status'], 200);
    }));
    t.deepEqual(new Set(seen.splice(0).map((each) => each.body)), new Set(bodies));
    const outcome = await listening.outcome(place);
    t.is(outcome.status === 'fulfilled' && outcome.value.rewritten, place === 1);
  }
});

test('a grpc-js client is answered, with its own authority and with a path', async (t) => {
  const server = await grpcServer(t);
  for (const options of [{}, { 'grpc.default_authority': '/run/agent.sock' }]) {
    const client = new grpc.Client(`unix:${server.socketPath}`, grpc.credentials.createInsecure(), options);
    t.teardown(() => client.close());
    const calls = Array.from({ length: 20 }, (_, at) => new Promise<Buffer | undefined>((resolve, reject) => {
      const sent = Buffer.alloc(at * 1000, at);
      client.makeUnaryRequest(ECHO, identity, identity, sent, (error, answer) => (error === null ? resolve(answer) : reject(error)));
    }));
    t.deepEqual((await Promise.all(calls)).map((answer) => answer?.length), calls.map((_, at) => at * 1000));
  }
  const outcomes = await Promise.all([server.outcome(0), server.outcome(1)]);
  t.deepEqual(outcomes.map((outcome) => outcome.status === 'fulfilled' && outcome.value.rewritten), [false, true]);
});

test('the server speaks first: SETTINGS with the number of streams and the size of headers', async (t) => {
  const { listening } = await http2Server(t, { maxConcurrentStreams: 77, maxHeaderBytes: 9_000 });
  const client = await connect(t, listening);
  const first = await client.heard(() => true);
  const expected = splitFrames(settingsFrame([[Setting.maxConcurrentStreams, 77], [Setting.maxHeaderListSize, 9_000]])).frames[0];
  t.deepEqual(first, expected);
});

for (const authority of ['localhost', '/run/agent.sock']) {
  test(`nothing is lost or reordered of what a client with ${authority} sends before its ACK`, async (t) => {
    const { listening, seen } = await http2Server(t);
    const client = await connect(t, listening);
    const encoder = new WireEncoder();
    const body = Buffer.alloc(16_000, 'abc');
    const open = (streamId: number): Buffer => headers(streamId, encoder.block([...grpcRequest('/s/m', authority), ['n', String(streamId)]]));
    client.send(
      PREFACE, CLIENT_SETTINGS, frame(FrameType.windowUpdate, 0, 0, Buffer.from([0, 0, 255, 255])), frame(FrameType.ping, 0, 0, Buffer.from('12345678')),
      open(1), open(3), data(1, body), data(3, body), open(5), data(1, body), data(3, Buffer.alloc(0), true), data(5, Buffer.from('five'), true),
    );
    await client.heard(({ type }) => type === FrameType.settings);
    client.send(data(1, Buffer.from('before')), SETTINGS_ACK, data(1, Buffer.from('after'), true));
    await Promise.all([1, 3, 5].map((streamId) => answered(client, streamId)));
    const pong = await client.heard(({ type, flags }) => type === FrameType.ping && flags === Flag.ack);
    t.is(pong.payload.toString(), '12345678');
    const bodies = new Map(seen.map(({ fields, body: got }) => [fields.at(-1)?.[1], got]));
    t.is(bodies.get('1'), `${body.toString()}${body.toString()}beforeafter`);
    t.is(bodies.get('3'), body.toString());
    t.is(bodies.get('5'), 'five');
  });
}

const OPENING = Buffer.concat([
  PREFACE, settingsFrame([[Setting.initialWindowSize, 1 << 20]]), frame(FrameType.ping, 0, 0, Buffer.alloc(8)), SETTINGS_ACK,
  headers(1, new WireEncoder().block(grpcRequest('/s/m', 'localhost')), { cuts: [5, 20] }), SETTINGS_ACK, data(1, Buffer.from('rest')),
]);
const ACK_AT = PREFACE.length + 15 + 17;

test('exactly the first ACK is taken out, wherever the stream is cut', (t) => {
  const expected = Buffer.concat([OPENING.subarray(0, ACK_AT), OPENING.subarray(ACK_AT + SETTINGS_ACK.length)]);
  for (let cut = 0; cut < OPENING.length; cut++) {
    const reader = new PreludeReader(PRELUDE_DEFAULTS);
    const early = reader.feed(OPENING.subarray(0, cut));
    t.true(reader.feed(OPENING.subarray(cut)));
    t.deepEqual(reader.take(), expected);
    t.is(early, reader.request !== undefined && cut >= OPENING.length - SETTINGS_ACK.length - 13);
  }
});

test('the ACK may come before the request or after it, but both must come', (t) => {
  const settings = Buffer.concat([PREFACE, CLIENT_SETTINGS]);
  const call = request(1, grpcRequest('/s/m', 'localhost'));
  for (const last of [call, SETTINGS_ACK]) {
    const reader = new PreludeReader(PRELUDE_DEFAULTS);
    t.false(reader.feed(settings));
    t.false(reader.feed(last === call ? SETTINGS_ACK : call));
    t.false(reader.feed(last.subarray(0, -1)));
    t.true(reader.feed(last.subarray(-1)));
    t.deepEqual(reader.take(), Buffer.concat([settings, call]));
  }
});

test('a client that has only greeted is waited for until the deadline, and no longer', async (t) => {
  const clock = new FakeClock();
  const { listening } = await http2Server(t, { clock, timeoutMs: 5_000 });
  const client = await connect(t, listening);
  await client.greet();
  let settled = false;
  const outcome = listening.outcome().finally(() => {
    settled = true;
  });
  clock.advance(4_999);
  client.send(headers(1, new WireEncoder().block(grpcRequest('/s/m', 'localhost'))).subarray(0, 20));
  await once(listening.sockets[0]!, 'readable');
  t.false(settled);
  t.is(clock.pending, 1);
  clock.advance(1);
  const { reason } = await outcome as PromiseRejectedResult;
  t.is(reason.code, 'timed_out');
  await client.closed();
  t.is(clock.pending, 0);
});

test('a client that has greeted and makes no call is let go at the deadline as one that has left', async (t) => {
  const clock = new FakeClock();
  const { listening } = await http2Server(t, { clock, timeoutMs: 5_000 });
  const client = await connect(t, listening);
  await client.greet();
  // Preface, SETTINGS and ACK, all taken in.
  const [socket] = listening.sockets;
  await until(() => socket!.bytesRead >= client.socket.bytesWritten && socket!.readableLength === 0, 'its ACK');
  const outcome = listening.outcome();
  clock.advance(5_000);
  const { reason } = await outcome as PromiseRejectedResult;
  t.is(reason.code, 'caller_gone');
  t.regex(reason.message, /made no call/);
  await client.closed();
  t.is(clock.pending, 0);
});

test('the deadline ends with the request: a connection that was handed over lives on', async (t) => {
  const clock = new FakeClock();
  const { listening } = await http2Server(t, { clock, timeoutMs: 5_000 });
  const client = await connect(t, listening);
  await client.greet();
  client.send(request(1, grpcRequest('/s/m', 'localhost')));
  await answered(client, 1);
  t.is(clock.pending, 0);
  clock.advance(1_000_000);
  client.send(request(3, grpcRequest('/s/m', 'localhost')));
  await answered(client, 3);
  t.pass();
});

interface Refusal {
  readonly bytes: Buffer;
  readonly code?: ErrorCode;
  readonly says: RegExp;
}

const GREETING = Buffer.concat([PREFACE, CLIENT_SETTINGS, SETTINGS_ACK]);
const ping = frame(FrameType.ping, 0, 0, Buffer.alloc(8));
const REFUSED: Record<string, Refusal> = {
  'an HTTP/1.1 request': { bytes: Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'), says: /begins with an HTTP\/1\.1 request/ },
  'a PRI request that is none': { bytes: Buffer.from('PRI * HTTP/1.1\r\n\r\n'), says: /begins with an HTTP\/1\.1 request/ },
  'a TLS handshake': { bytes: Buffer.from('16030100c8010000c40303', 'hex'), says: /begins with a TLS handshake/ },
  'noise': { bytes: Buffer.from('9f1c00ff', 'hex'), says: /begins with other bytes/ },
  'a preface without SETTINGS': { bytes: Buffer.concat([PREFACE, ping]), says: /first frame is not SETTINGS/ },
  'an ACK as the first frame': { bytes: Buffer.concat([PREFACE, SETTINGS_ACK]), says: /first frame is not SETTINGS/ },
  'SETTINGS on a stream': { bytes: Buffer.concat([PREFACE, frame(FrameType.settings, 0, 1)]), says: /first frame is not SETTINGS/ },
  'an ACK with a payload': { bytes: Buffer.concat([PREFACE, CLIENT_SETTINGS, frame(FrameType.settings, Flag.ack, 0, Buffer.alloc(6))]), says: /§6\.5/ },
  'a frame that is too large, before it has come': { bytes: Buffer.concat([PREFACE, Buffer.from('ffffff040000000000', 'hex')]), says: /16777215 bytes/ },
  'a header block that does not decode': { bytes: Buffer.concat([GREETING, headers(1, Buffer.from([0xff, 0xff, 0xff]))]), says: /header block/ },
  'CONTINUATION without HEADERS': { bytes: Buffer.concat([GREETING, frame(FrameType.continuation, Flag.endHeaders, 1)]), says: /without HEADERS/ },
  'a flood of PING': { bytes: Buffer.concat([GREETING, ...Array.from({ length: 9_000 }, () => ping)]), code: 'limit_exceeded', says: /131072 bytes/ },
  'a flood of SETTINGS': {
    bytes: Buffer.concat([PREFACE, ...Array.from({ length: 15_000 }, () => CLIENT_SETTINGS)]), code: 'limit_exceeded', says: /131072 bytes/,
  },
  'a flood of ACKs': {
    bytes: Buffer.concat([PREFACE, CLIENT_SETTINGS, ...Array.from({ length: 15_000 }, () => SETTINGS_ACK)]), code: 'limit_exceeded', says: /131072 bytes/,
  },
  'a flood of empty CONTINUATIONs': {
    bytes: Buffer.concat([GREETING, frame(FrameType.headers, 0, 1), ...Array.from({ length: 100 }, () => frame(FrameType.continuation, 0, 1))]),
    code: 'limit_exceeded', says: /8 CONTINUATION/,
  },
  'a flood of full CONTINUATIONs': {
    bytes: Buffer.concat([GREETING, frame(FrameType.headers, 0, 1), ...Array.from({ length: 8 }, () => frame(FrameType.continuation, 0, 1, Buffer.alloc(16_384)))]),
    code: 'limit_exceeded', says: /65536 bytes/,
  },
  'a header list above the limit': {
    bytes: Buffer.concat([GREETING, headers(1, Buffer.alloc(2_000, 0x82))]), code: 'limit_exceeded', says: /header list of more than 65536 bytes/,
  },
};

for (const [name, { bytes, code = 'malformed_http2', says }] of Object.entries(REFUSED)) {
  test(`${name} is refused and the connection closed`, async (t) => {
    const { listening, seen } = await http2Server(t);
    const client = await connect(t, listening);
    client.send(bytes);
    const { reason } = await listening.outcome() as PromiseRejectedResult;
    t.true(reason instanceof SignetError);
    t.is(reason.code, code);
    t.regex(reason.message, says);
    await client.closed();
    t.true(listening.sockets[0]?.destroyed);
    t.is(seen.length, 0);
  });
}

test('a client that closes, ends or resets before its first request is gone, at whatever point', async (t) => {
  const clock = new FakeClock();
  const { listening } = await http2Server(t, { clock });
  const begun = Buffer.concat([GREETING, headers(1, new WireEncoder().block(grpcRequest('/s/m', 'localhost')))]).subarray(0, -1);
  let place = 0;
  for (const length of [0, 5, PREFACE.length, GREETING.length, begun.length]) {
    for (const leave of ['end', 'destroy', 'resetAndDestroy'] as const) {
      const client = await connect(t, listening);
      if (length > 0) client.send(begun.subarray(0, length));
      if (leave === 'resetAndDestroy') client.socket.destroySoon();
      else client.socket[leave]();
      const { reason } = await listening.outcome(place) as PromiseRejectedResult;
      t.is(reason.code, 'caller_gone');
      t.true(listening.sockets[place]?.destroyed);
      place++;
    }
  }
  t.is(clock.pending, 0);
});

for (const authority of ['localhost', '/run/agent.sock']) {
  test(`a flood of empty header blocks after ${authority} harms no other connection`, async (t) => {
    const { listening } = await http2Server(t);
    const flooder = await connect(t, listening);
    await flooder.greet();
    flooder.send(request(1, grpcRequest('/s/m', authority)));
    for (let at = 0; at < 20; at++) {
      if (flooder.socket.destroyed) break;
      flooder.send(Buffer.concat(Array.from({ length: 1_000 }, (_, each) => headers(3 + 2 * (at * 1_000 + each), Buffer.alloc(0), { endStream: true }))));
    }
    const other = await connect(t, listening);
    await other.greet();
    other.send(request(1, grpcRequest('/s/m', authority)));
    await answered(other, 1);
    t.pass();
  });

  test(`a connection with ${authority} that breaks the protocol later is closed by its session alone`, async (t) => {
    const { listening } = await http2Server(t);
    const client = await connect(t, listening);
    await client.greet();
    client.send(request(1, grpcRequest('/s/m', authority)));
    await answered(client, 1);
    client.send(headers(3, Buffer.from([0x80])));
    await client.closed();
    t.true(listening.sockets[0]?.destroyed);
  });

  test(`a client with ${authority} that has left before the hand-over leaves no connection behind`, async (t) => {
    const server = http2.createServer();
    server.on('stream', (stream) => stream.on('error', () => {}));
    const sessionClosed = Promise.withResolvers<void>();
    server.on('session', (session) => session.on('close', () => sessionClosed.resolve()));
    const left = Promise.withResolvers<void>();
    const listening = await PreludeServer.start((stream) => void left.promise.then(() => server.emit('connection', stream)));
    t.teardown(() => listening.close());
    const client = await connect(t, listening);
    client.send(GREETING, request(1, grpcRequest('/s/m', authority)));
    await listening.outcome();
    client.destroy();
    await client.closed();
    left.resolve();
    await sessionClosed.promise;
    t.true(listening.sockets[0]?.destroyed);
  });
}
