import { existsSync, mkdtempSync, readdirSync, rmSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { EventBus, type RefusalReason } from '../../src/events.ts';
import { encodeFields } from '../../src/http2/field-block.ts';
import { FrameType, PREFACE } from '../../src/http2/frames.ts';
import { openKernel } from '../../src/kernel.ts';
import type { Connection } from '../../src/listener/connection.ts';
import { Listener, type ListenerLimits } from '../../src/listener/listener.ts';
import { systemRandom } from '../../src/random.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { CLIENT_SETTINGS, data, grpcRequest, headers, SETTINGS_ACK, WireClient, WireEncoder } from '../support/http2-wire.ts';
import { settle } from '../support/signers.ts';

const LIMITS: ListenerLimits = {
  connections: 10, connectionsPerOwner: 10, connectionRatePerOwner: 1_000, calls: 10, callsPerOwner: 10, callRatePerOwner: 1_000,
  preludeTimeoutMs: 5_000, callsPerConnection: 10, headerBytes: 4_096,
};

interface Made {
  readonly listener: Listener;
  readonly clock: FakeClock;
  readonly path: string;
  readonly connections: Connection[];
  readonly refused: { reason: RefusalReason; detail?: string }[];
  count(name: 'connected' | 'disconnected'): number;
  connect(): Promise<WireClient>;
}

/** The real kernel and real sockets; answers with one field, once the request has ended. */
async function listen(t: ExecutionContext, limits: Partial<ListenerLimits> = {}): Promise<Made> {
  const directory = mkdtempSync(join(tmpdir(), 'signet-listener-'));
  const path = join(directory, 'api.sock');
  const events = new EventBus();
  const refused: Made['refused'] = [];
  const counts = { connected: 0, disconnected: 0 };
  events.on('refused', (fact) => void refused.push(fact));
  for (const name of ['connected', 'disconnected'] as const) events.on(name, () => void (counts[name] += 1));
  const clock = new FakeClock();
  const connections: Connection[] = [];
  const listener = new Listener({ socketPath: path, limits: { ...LIMITS, ...limits } }, { kernel: openKernel(), clock, random: systemRandom, events }, (connection) => {
    connections.push(connection);
    return (stream) => (stream.keep(1_000), { data: () => undefined, end: () => stream.sendFields(encodeFields([[':status', '204']]), true), closed: () => undefined });
  });
  await listener.open(() => undefined);
  t.teardown(() => {
    listener.close();
    rmSync(directory, { recursive: true, force: true });
  });
  return { listener, clock, path, connections, refused, count: (name) => counts[name], connect: () => WireClient.connect(path) };
}

const request = (id: number): Buffer => headers(id, new WireEncoder().block(grpcRequest('/a/b')), { endStream: true });

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setImmediate(resolve));
}

test('a caller is known by its kernel, served, and everything is given back when it goes', async (t) => {
  const { listener, connect, connections, count, clock } = await listen(t);
  const pending = clock.pending;
  const client = await connect();
  client.send(PREFACE, CLIENT_SETTINGS, request(1));
  await client.heard(({ type }) => type === FrameType.headers);
  let isClosed = false;
  connections[0]!.onClosed(() => (isClosed = true));
  t.like(connections[0]!.caller, { pid: process.pid, uid: process.getuid?.() });
  t.deepEqual(listener.limits.taken, { connections: 1, calls: 0, owners: 1 });
  t.is(listener.opening, 0);
  client.destroy();
  await until(() => count('disconnected') === 1);
  t.true(isClosed);
  t.is(listener.limits.taken.connections, 0);
  clock.advance(10_000);
  await settle();
  t.true(clock.pending <= pending + 1, 'no alarm of the connection is left');
});

test('unfinished requests of connections that go are given back exactly: the owner has all of its room again, and no more', async (t) => {
  const { listener, connect, connections, count } = await listen(t);
  for (let round = 1; round <= 30; round++) {
    const client = await connect();
    client.send(PREFACE, CLIENT_SETTINGS, headers(1, new WireEncoder().block(grpcRequest('/a/b'))), data(1, Buffer.alloc(10)).subarray(0, 12));
    await until(() => connections.length === round);
    client.destroy();
    await until(() => count('disconnected') === round);
  }
  const owner = await connect();
  await until(() => connections.length === 31);
  const { caller } = connections[30]!;
  t.true(listener.limits.hold(caller.owner, 8 << 20));
  t.false(listener.limits.hold(caller.owner, 1));
  t.true(listener.limits.hold(caller.owner, -(8 << 20)));
  owner.destroy();
});

test('whoever makes no request in time is not waited for; one that has only said hello is no fault', async (t) => {
  const { listener, connect, clock, refused, count } = await listen(t);
  const [silent, polite] = [await connect(), await connect()];
  await polite.greet();
  polite.send(SETTINGS_ACK);
  await until(() => listener.opening === 2);
  await settle();
  clock.advance(5_000);
  await Promise.all([silent.closed(), polite.closed()]);
  await until(() => count('disconnected') === 2);
  t.deepEqual(refused.map(({ reason }) => reason), ['prelude_timeout']);
  t.is(listener.opening, 0);
});

test('what is not HTTP/2 is refused by name, before and after the first request', async (t) => {
  const { connect, refused } = await listen(t);
  const [http1, tls, late] = [await connect(), await connect(), await connect()];
  http1.send(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
  await http1.closed();
  tls.send(Buffer.from('16030100', 'hex'));
  await tls.closed();
  late.send(PREFACE, CLIENT_SETTINGS, request(1), request(2));
  await late.closed();
  t.deepEqual(refused.map(({ reason }) => reason), ['malformed_http2', 'malformed_http2', 'malformed_http2']);
  t.regex(refused[0]!.detail ?? '', /begins with an HTTP\/1\.1 request.*RFC 9113 §3\.4/);
  t.regex(refused[1]!.detail ?? '', /a TLS handshake/);
});

test('more connections than an owner, or all of them, may have are turned away', async (t) => {
  const { connect, refused, listener } = await listen(t, { connections: 3, connectionsPerOwner: 2 });
  const clients = [await connect(), await connect(), await connect()];
  await clients[2]!.closed();
  t.deepEqual(refused.map(({ reason }) => reason), ['too_many_connections']);
  t.is(listener.limits.taken.connections, 2);
  for (const client of clients) client.destroy();
});

test('a socket that somebody removes is made again; open connections go on', async (t) => {
  const { connect, clock, path, connections } = await listen(t);
  const client = await connect();
  unlinkSync(path);
  clock.advance(250);
  await until(() => existsSync(path));
  (await connect()).destroy();
  client.send(PREFACE, CLIENT_SETTINGS, request(1));
  await client.heard(({ type }) => type === FrameType.headers);
  t.is(connections.length, 2);
  client.destroy();
});

test('whoever was told that it is connected when accepting stops is served still', async (t) => {
  const { listener, connect, path, count } = await listen(t);
  const clients = [await connect(), await connect()];
  await listener.stopAccepting();
  for (const client of clients) {
    client.send(PREFACE, CLIENT_SETTINGS, request(1));
    await client.heard(({ type }) => type === FrameType.headers);
  }
  t.false(existsSync(path));
  t.deepEqual(readdirSync(join(path, '..')), []);
  listener.close();
  await Promise.all(clients.map((client) => client.closed()));
  await until(() => count('disconnected') === 2);
  t.is(listener.limits.taken.connections, 0);
});
