import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { descriptorOf, openKernel } from '../../src/kernel.ts';
import { takeConnections, type Incoming } from '../../src/listener/acceptor.ts';

const kernel = openKernel();

async function listen(t: ExecutionContext, accept: (incoming: Incoming) => void): Promise<{ path: string; server: net.Server; errors: Error[] }> {
  const directory = mkdtempSync(join(tmpdir(), 'signet-acceptor-'));
  const path = join(directory, 's');
  const server = net.createServer().listen(path);
  await once(server, 'listening');
  const errors: Error[] = [];
  takeConnections(server, (fd) => kernel.accept(fd), accept, (error) => errors.push(error));
  t.teardown(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });
  return { path, server, errors };
}

test('what comes over many connections is read into one buffer, each told what came over its own', async (t) => {
  const heard = new Map<Incoming, Buffer[]>();
  const buffers = new Set<ArrayBufferLike>();
  const { path } = await listen(t, (incoming) => {
    heard.set(incoming, []);
    incoming.socket.on('end', () => incoming.socket.end());
    incoming.onBytes = (bytes) => {
      buffers.add(bytes.buffer);
      heard.get(incoming)!.push(Buffer.from(bytes));
    };
  });
  const clients = Array.from({ length: 20 }, () => net.connect(path));
  const sent = clients.map((_, at) => Buffer.alloc(200_000 + at, at));
  for (const [at, client] of clients.entries()) client.end(sent[at]!);
  for (const client of clients) client.resume();
  await Promise.all(clients.map((client) => once(client, 'close')));
  const got = [...heard.values()].map((parts) => Buffer.concat(parts)).sort((a, b) => a.length - b.length);
  t.deepEqual(got.map(({ length }) => length), sent.map(({ length }) => length));
  t.true(got.every((bytes, at) => bytes.equals(sent[at]!)));
  t.is(buffers.size, 1);
  t.is([...buffers][0]!.byteLength, 65_536);
});

test('a socket that is paused is not read, and loses nothing', async (t) => {
  const accepted = Promise.withResolvers<Incoming>();
  const { path } = await listen(t, (incoming) => accepted.resolve(incoming));
  const client = net.connect(path);
  const incoming = await accepted.promise;
  let bytes = 0;
  const some = Promise.withResolvers<void>();
  const all = Promise.withResolvers<void>();
  incoming.onBytes = ({ length }) => {
    bytes += length;
    some.resolve();
    if (bytes === 1_000_000) all.resolve();
    else if (bytes < 200_000) incoming.socket.pause();
  };
  client.write(Buffer.alloc(1_000_000));
  await some.promise;
  const before = bytes;
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
  t.is(bytes, before);
  while (bytes < 200_000) {
    incoming.socket.resume();
    await new Promise((resolve) => setImmediate(resolve));
  }
  incoming.socket.resume();
  await all.promise;
  client.destroy();
});

test('a peer that says no more is told so, and can be answered still', async (t) => {
  const accepted = Promise.withResolvers<Incoming>();
  const { path } = await listen(t, (incoming) => accepted.resolve(incoming));
  const client = net.connect(path);
  const { socket } = await accepted.promise;
  const closed = once(socket, 'close');
  client.end('question');
  await once(socket, 'end');
  t.true(socket.writable);
  socket.end('answer');
  const [heard] = (await once(client, 'data')) as [Buffer];
  t.is(heard.toString(), 'answer');
  await closed;
  t.true(socket.destroyed);
});

test('an accept that fails is told and nothing else', async (t) => {
  const { server, errors } = await listen(t, () => t.fail());
  const handle = Reflect.get(server, '_handle') as { onconnection: (status: number, handle: unknown) => void };
  handle.onconnection(-24, undefined);
  t.regex(String(errors[0]), /status -24/);
});

test('a server that does not listen has no connections to take', (t) => {
  t.throws(() => takeConnections(net.createServer(), () => undefined, () => undefined, () => undefined), { instanceOf: TypeError });
});

test('all that wait are accepted in one turn, and none of their descriptors is left to a child', async (t) => {
  const turns: number[] = [];
  let turn = 0;
  const sockets: net.Socket[] = [];
  const { path } = await listen(t, ({ socket }) => {
    turns.push(turn);
    sockets.push(socket);
    socket.on('error', () => undefined);
  });
  // Nothing is accepted while this turn lasts: all of them wait.
  const connecting = Array.from({ length: 40 }, () => net.connect(path));
  t.teardown(() => [...connecting, ...sockets].forEach((socket) => socket.destroy()));
  while (sockets.length < 40) {
    await new Promise((resolve) => setImmediate(resolve));
    turn += 1;
  }
  t.true(new Set(turns).size <= 2, `40 connections in ${new Set(turns).size} turns`);
  for (const socket of sockets) {
    const flags = /^flags:\t(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${descriptorOf(socket)}`, 'latin1'))?.[1];
    t.is(Number.parseInt(flags ?? '', 8) & 0o2000000, 0o2000000, 'close-on-exec');
  }
});
