import test from 'ava';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Outbox } from '../../src/http2/outbox.ts';

interface Pair {
  readonly near: net.Socket;
  readonly far: net.Socket;
}

async function pair(t: { teardown: (undo: () => void) => void }): Promise<Pair> {
  const directory = mkdtempSync(join(tmpdir(), 'signet-outbox-'));
  const server = net.createServer({ pauseOnConnect: true }).listen(join(directory, 's'));
  await once(server, 'listening');
  const near = net.connect(join(directory, 's'));
  const [far] = (await once(server, 'connection')) as [net.Socket];
  for (const socket of [near, far]) socket.on('error', () => undefined);
  t.teardown(() => {
    near.destroy();
    far.destroy();
    server.close();
    rmSync(directory, { recursive: true });
  });
  return { near, far };
}

test('what comes in one turn is one write, and the buffers that were given are not changed', async (t) => {
  const { near, far } = await pair(t);
  let writes = 0;
  const write = near.write.bind(near) as (...given: unknown[]) => boolean;
  near.write = ((...given: unknown[]) => {
    writes += 1;
    return write(...given);
  }) as typeof near.write;
  const outbox = new Outbox(near, () => undefined);
  const given = Buffer.from('b');
  for (const part of [Buffer.from('a'), given, Buffer.from('c')]) {
    outbox.add(part);
    outbox.flushSoon();
  }
  t.is(outbox.bytes, 3);
  far.resume();
  const [heard] = (await once(far, 'data')) as [Buffer];
  t.is(heard.toString(), 'abc');
  t.is(writes, 1);
  t.is(given.toString(), 'b');
  t.is(outbox.unsent, 0);
});

test('while one write waits for the kernel no other is made, and all comes in its order', async (t) => {
  const { near, far } = await pair(t);
  const outbox = new Outbox(near, () => undefined);
  const big = Buffer.alloc(2 << 20, 'x');
  outbox.add(big);
  outbox.flush();
  t.true(near.writableLength > 0);
  const before = near.writableLength;
  for (let at = 0; at < 1_000; at++) {
    outbox.add(Buffer.from(String(at % 10)));
    outbox.flush();
  }
  t.is(near.writableLength, before);
  t.is(outbox.bytes, 1_000);
  t.true(outbox.unsent >= before + 1_000 && outbox.unsent <= before + 2_300, `${outbox.unsent - before} bytes for 1,000`);
  const heard: Buffer[] = [];
  far.on('data', (chunk: Buffer) => heard.push(chunk));
  far.resume();
  const all = Buffer.concat([big, Buffer.from('0123456789'.repeat(100))]);
  while (heard.reduce((sum, { length }) => sum + length, 0) < all.length) await once(far, 'data');
  t.true(Buffer.concat(heard).equals(all));
});

test('whoever waits is told when the kernel has taken everything', async (t) => {
  const { near, far } = await pair(t);
  const drained = Promise.withResolvers<void>();
  const outbox: Outbox = new Outbox(near, () => {
    if (outbox.unsent === 0) drained.resolve();
  });
  outbox.add(Buffer.alloc(2 << 20));
  outbox.flush();
  outbox.add(Buffer.alloc(1 << 20));
  outbox.flush();
  t.true(outbox.unsent > 0);
  far.resume();
  await drained.promise;
  t.is(near.writableLength, 0);
});

test('what is for a socket that is gone is forgotten', async (t) => {
  const { near } = await pair(t);
  const outbox = new Outbox(near, () => undefined);
  near.destroy();
  outbox.add(Buffer.alloc(100));
  outbox.flush();
  t.is(outbox.unsent, 0);
  await once(near, 'close');
});
