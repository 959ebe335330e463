import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { SystemClock } from '../../src/clock.ts';
import { openKernel } from '../../src/kernel.ts';
import { SocketFile } from '../../src/listener/socket-file.ts';
import { systemRandom } from '../../src/random.ts';

const kernel = openKernel();

function directory(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'signet-socket-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function bind(t: ExecutionContext, path: string): Promise<{ file: SocketFile; server: net.Server }> {
  const server = net.createServer((socket) => socket.destroy());
  t.teardown(() => server.close());
  const file = new SocketFile(path, kernel, new SystemClock());
  await file.bind(server, systemRandom);
  return { file, server };
}

test('WE-05: every user may connect, and the directory is made for all to enter', async (t) => {
  const path = join(directory(t), 'public', 'api.sock');
  await bind(t, path);
  t.is(statSync(path).mode & 0o777, 0o777);
  t.is(statSync(join(path, '..')).mode & 0o777, 0o755);
  t.deepEqual(readdirSync(join(path, '..')), ['api.sock']);
});

test('a second one takes the path over, and the first one leaves it alone when it goes', async (t) => {
  const path = join(directory(t), 'api.sock');
  const first = await bind(t, path);
  t.is(first.file.holder(), 'own');
  const second = await bind(t, path);
  t.is(first.file.holder(), 'other');
  await first.file.remove();
  first.server.close();
  await once(first.server, 'close');
  t.is(second.file.holder(), 'own');
  const client = net.connect(path);
  await once(client, 'connect');
  client.destroy();
  await second.file.remove();
  t.is(second.file.holder(), 'none');
});

test('a socket that a dead agent left behind is replaced', async (t) => {
  const path = join(directory(t), 'api.sock');
  const left = net.createServer();
  left.listen(path);
  await once(left, 'listening');
  const { file } = await bind(t, path);
  t.is(file.holder(), 'own');
  left.close();
});

for (const [what, make] of [
  ['a file', (path: string) => writeFileSync(path, 'precious')],
  ['a directory', (path: string) => mkdirSync(path)],
  ['a symbolic link', (path: string) => symlinkSync('/nowhere', path)],
] as const) {
  test(`${what} at the path is left alone and refused`, async (t) => {
    const path = join(directory(t), 'api.sock');
    make(path);
    await t.throwsAsync(bind(t, path), { code: 'in_use', message: /is not a socket/ });
    t.deepEqual(readdirSync(join(path, '..')), ['api.sock']);
  });
}

test('WE-05: a directory that others may write to is refused', async (t) => {
  const parent = join(directory(t), 'open');
  mkdirSync(parent);
  chmodSync(parent, 0o777);
  await t.throwsAsync(bind(t, join(parent, 'api.sock')), { code: 'unavailable', message: /chmod 755/ });
  chmodSync(parent, 0o1777);
  await t.notThrowsAsync(bind(t, join(parent, 'api.sock')));
});
