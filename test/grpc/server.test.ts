import test from 'ava';
import { Client, credentials, Metadata, status, type ServiceError } from '@grpc/grpc-js';
import type { Method } from '../../src/grpc/call.ts';
import { Message } from '../../src/grpc/message.ts';
import { GrpcServer } from '../../src/grpc/server.ts';
import { CallFault, Status } from '../../src/grpc/status.ts';
import { SystemClock } from '../../src/clock.ts';
import { SessionServer } from '../support/session-server.ts';

// A published client, whose HTTP/2 is Node's: what it makes of the answers.

const METHODS: Record<string, Method<object>> = {
  '/t/echo': { kind: 'unary', handle: (call, message) => call.answer(new Message(Buffer.from(message))) },
  '/t/large': { kind: 'unary', handle: (call, message) => call.answer(new Message(Buffer.alloc(Number(message.toString()), 'x'))) },
  '/t/fault': { kind: 'unary', handle: () => { throw new CallFault(Status.notFound, 'nothing: "ä" 100%'); } },
  '/t/never': { kind: 'unary', handle: () => undefined },
  '/t/count': {
    kind: 'server-stream',
    handle: (call, message) => {
      for (let at = 0; at < Number(message.toString()); at++) call.send(new Message(Buffer.alloc(10_000, at)));
      call.finish();
    },
  },
};

async function connect(t: { teardown: (undo: () => void) => void }): Promise<{ client: Client; server: SessionServer }> {
  const grpc = new GrpcServer<object>({
    methods: new Map(Object.entries(METHODS)), messageBytes: 131_072, clock: new SystemClock(), admit: () => undefined, admitNext: () => undefined,
    noRoom: { code: Status.unavailable, details: 'no room' }, onNoRoom: () => undefined, onRefused: () => undefined, onMistake: (error) => { throw error; },
  });
  const connection = {};
  const server = await SessionServer.open({ reader: (stream, head) => grpc.request(connection, stream, head) });
  const client = new Client(`unix:${server.path}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  t.teardown(() => {
    client.close();
    server.close();
  });
  return { client, server };
}

const identity = (bytes: Buffer): Buffer => bytes;

function call(client: Client, path: string, text: string | Buffer, deadlineMs?: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const options = deadlineMs === undefined ? {} : { deadline: Date.now() + deadlineMs };
    client.makeUnaryRequest(path, identity, identity, Buffer.from(text), new Metadata(), options, (error: ServiceError | null, answer?: Buffer) => (error === null ? resolve(answer ?? Buffer.alloc(0)) : reject(error)));
  });
}

test('unary calls of all sizes', async (t) => {
  const { client, server } = await connect(t);
  for (const size of [0, 1, 16_379, 16_380, 65_536, 131_072]) t.is((await call(client, '/t/echo', Buffer.alloc(size, 7))).length, size);
  for (const size of [16_379, 16_380, 1 << 20, 3 << 20]) t.is((await call(client, '/t/large', String(size))).length, size);
  t.true(server.most <= 8 << 20);
});

test('1,000 calls at once over one connection', async (t) => {
  const { client } = await connect(t);
  const answers = await Promise.all(Array.from({ length: 1_000 }, (_, at) => call(client, '/t/echo', String(at))));
  t.deepEqual(answers.map(String), Array.from({ length: 1_000 }, (_, at) => String(at)));
});

test('statuses and their texts', async (t) => {
  const { client } = await connect(t);
  const fault = await t.throwsAsync<Error & ServiceError>(call(client, '/t/fault', 'x'));
  t.deepEqual([fault.code, fault.details], [status.NOT_FOUND, 'nothing: "ä" 100%']);
  t.is((await t.throwsAsync<Error & ServiceError>(call(client, '/t/none', 'x'))).code, status.UNIMPLEMENTED);
  t.is((await t.throwsAsync<Error & ServiceError>(call(client, '/t/echo', Buffer.alloc(131_073)))).code, status.RESOURCE_EXHAUSTED);
  t.is((await t.throwsAsync<Error & ServiceError>(call(client, '/t/never', 'x', 50))).code, status.DEADLINE_EXCEEDED);
});

test('a stream, and what is cancelled leaves nothing', async (t) => {
  const { client, server } = await connect(t);
  const stream = client.makeServerStreamRequest('/t/count', identity, identity, Buffer.from('20'), new Metadata());
  const got: number[] = [];
  for await (const message of stream as AsyncIterable<Buffer>) got.push(message[0]!, message.length);
  t.deepEqual(got, Array.from({ length: 20 }, (_, at) => [at, 10_000]).flat());
  const cancelled = client.makeServerStreamRequest('/t/count', identity, identity, Buffer.from('300'), new Metadata());
  cancelled.on('error', () => undefined);
  await new Promise((resolve) => cancelled.once('data', resolve));
  cancelled.cancel();
  t.is((await call(client, '/t/echo', 'x')).toString(), 'x');
  client.close();
  await Promise.all(server.opened.map(({ closed }) => closed));
  t.is(server.held, 0);
});
