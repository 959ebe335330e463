import { closeSync, openSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { isSignetError, SignetError } from '../src/errors.ts';
import { NO_ID, descriptorOf, loadLibc, openKernel, type Kernel } from '../src/kernel.ts';
import { needsRoot, testIf } from './support/kernel-conditions.ts';
import {
  TestListener,
  libcWithoutPeerPidfd,
  libcWithoutPidfdInfo,
  startPeer,
  startScript,
  temporaryDirectory,
  untilWithoutReaping,
} from './support/kernel-processes.ts';

const kernel = openKernel();

/** A pidfd that the test closes. */
function pidfdOf(t: ExecutionContext, from: Kernel, fd: number, pid: number): number {
  const pidfd = from.peerPidfd(fd, pid);
  t.teardown(() => from.closeDescriptor(pidfd));
  return pidfd;
}

function throwsCode(t: ExecutionContext, run: () => unknown, code: string, message: RegExp): void {
  const error = t.throws(run, { instanceOf: SignetError, message });
  t.true(isSignetError(error) && error.code === code, String(error?.code));
}

test.serial('credentials of a peer are its pid, user, group and groups', async (t) => {
  const listener = await TestListener.open(t);
  const peer = await startPeer(t, { socket: listener.path });
  const credentials = kernel.peerCredentials(descriptorOf(await listener.next()));
  t.is(credentials.pid, peer.pid);
  t.is<number | undefined, number | undefined>(credentials.uid, process.geteuid?.());
  t.is<number | undefined, number | undefined>(credentials.gid, process.getegid?.());
  const [, own = ''] = /^Groups:\t(.*)$/m.exec(readFileSync('/proc/self/status', 'latin1')) ?? [];
  t.deepEqual(credentials.groups, own.split(' ').filter(Boolean).map(Number));
});

testIf(needsRoot, 'credentials of another user come with its supplementary groups', async (t) => {
  const listener = await TestListener.open(t);
  const peer = await startPeer(t, { socket: listener.path, uid: 65_533, gid: 65_532, groups: [7, 4_000_000_000] });
  const credentials = kernel.peerCredentials(descriptorOf(await listener.next()));
  t.deepEqual(credentials, { pid: peer.pid, uid: 65_533, gid: 65_532, groups: [7, 4_000_000_000] });
});

for (const count of [0, 32, 33, 1000]) {
  testIf(needsRoot, `${count} supplementary groups are all read`, async (t) => {
    const groups = Array.from({ length: count }, (_, i) => 100_000 + i);
    const listener = await TestListener.open(t);
    await startPeer(t, { socket: listener.path, gid: 99_999, uid: 65_533, groups });
    t.deepEqual(kernel.peerCredentials(descriptorOf(await listener.next())).groups, groups);
  });
}

test.serial('a socket that is not a Unix socket has no credentials', async (t) => {
  const server = net.createServer().listen(0, '127.0.0.1');
  t.teardown(() => server.close());
  await once(server, 'listening');
  const client = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1');
  t.teardown(() => client.destroy());
  const [accepted] = (await once(server, 'connection')) as [net.Socket];
  t.teardown(() => accepted.destroy());
  t.deepEqual(kernel.peerCredentials(descriptorOf(accepted)), { pid: 0, uid: NO_ID, gid: NO_ID, groups: [] });
});

test.serial('failures name the call and the errno', (t) => {
  throwsCode(t, () => kernel.peerCredentials(-1), 'kernel', /^getsockopt SO_PEERCRED: EBADF$/);
  const file = openSync('/dev/null', 'r');
  t.teardown(() => closeSync(file));
  throwsCode(t, () => kernel.peerCredentials(file), 'kernel', /^getsockopt SO_PEERCRED: ENOTSOCK$/);
  throwsCode(t, () => kernel.unreadBytes(file), 'kernel', /^ioctl SIOCOUTQ: ENOTTY$/);
  throwsCode(t, () => kernel.closeDescriptor(-1), 'kernel', /^close: EBADF$/);
  throwsCode(t, () => kernel.tryLock(-1), 'kernel', /^flock: EBADF$/);
});

test.serial('a socket without a descriptor is refused', async (t) => {
  throwsCode(t, () => descriptorOf(new net.Socket()), 'kernel', /no descriptor/);
  const listener = await TestListener.open(t);
  await startPeer(t, { socket: listener.path });
  const socket = await listener.next();
  t.true(descriptorOf(socket) > 2);
  socket.destroy();
  throwsCode(t, () => descriptorOf(socket), 'kernel', /no descriptor/);
});

test.serial('whether the kernel hands out pidfds of peers is found at construction', (t) => {
  const [major = 0, minor = 0] = readFileSync('/proc/sys/kernel/osrelease', 'utf8').split('.').map(Number.parseFloat);
  t.is(kernel.hasPeerPidfd, major > 6 || (major === 6 && minor >= 5));
  t.false(openKernel(libcWithoutPeerPidfd()).hasPeerPidfd);
});

test.serial('any other answer to that question than ENOPROTOOPT is an error, not a fallback', (t) => {
  const libc = { ...libcWithoutPeerPidfd(), errno: () => 'EPERM' };
  throwsCode(t, () => openKernel(libc), 'kernel', /^getsockopt SO_PEERPIDFD: EPERM$/);
});

test.serial('a kernel with neither kind of pidfd is refused with the version needed', (t) => {
  const old = libcWithoutPeerPidfd();
  const libc = { ...old, syscall: () => -1, errno: () => (old.errno() === 'ENOPROTOOPT' ? 'ENOPROTOOPT' : 'ENOSYS') };
  throwsCode(t, () => openKernel(libc), 'kernel', /Linux 5\.3 or newer.*ENOSYS$/);
});

test.serial('construction leaves no descriptor open', (t) => {
  const open = (): number => readdirSync('/proc/self/fd').length;
  const before = open();
  openKernel();
  openKernel(libcWithoutPeerPidfd());
  t.is(open(), before);
});

test.serial('an answer from poll interrupted by a signal is asked for again', async (t) => {
  const libc = loadLibc();
  let interrupted = 2;
  const interruptible = openKernel({
    ...libc,
    poll: (...args) => (interrupted-- > 0 ? -1 : libc.poll(...args)),
    errno: () => (interrupted >= 0 ? 'EINTR' : libc.errno()),
  });
  const listener = await TestListener.open(t);
  const peer = await startPeer(t, { socket: listener.path });
  t.false(interruptible.hasExited(pidfdOf(t, kernel, descriptorOf(await listener.next()), peer.pid)));
  t.is(interrupted, -1);
});

for (const [name, from] of [['SO_PEERPIDFD', kernel], ['pidfd_open', openKernel(libcWithoutPeerPidfd())]] as const) {
  test.serial(`a pidfd from ${name} is close-on-exec and tells when its process has ended, reaped or not`, async (t) => {
    const listener = await TestListener.open(t);
    const peer = await startPeer(t, { socket: listener.path });
    const pidfd = pidfdOf(t, from, descriptorOf(await listener.next()), peer.pid);
    const info = readFileSync(`/proc/self/fdinfo/${pidfd}`, 'latin1');
    t.is(/^Pid:\t(\d+)$/m.exec(info)?.[1], String(peer.pid));
    t.is(Number.parseInt(/^flags:\t(\d+)$/m.exec(info)?.[1] ?? '', 8) & 0o2000000, 0o2000000);
    t.false(from.hasExited(pidfd));
    peer.child.kill('SIGKILL');
    untilWithoutReaping(() => from.hasExited(pidfd), 'exit');
    t.regex(readFileSync(`/proc/${peer.pid}/stat`, 'latin1'), /\) Z /);
    await peer.exited;
    t.true(from.hasExited(pidfd));
  });

  test.serial(`${name} of a peer that was reaped gives no living process`, async (t) => {
    const listener = await TestListener.open(t);
    const peer = await startPeer(t, { socket: listener.path });
    const fd = descriptorOf(await listener.next());
    await peer.ask('pass');
    await peer.exited;
    try {
      t.true(from.hasExited(pidfdOf(t, from, fd, peer.pid)));
    } catch (error) {
      t.true(isSignetError(error, 'caller_gone'), String(error));
    }
  });
}

test.serial('the effective user ID is that of the process now, and an older kernel does not tell it', async (t) => {
  const listener = await TestListener.open(t);
  const peer = await startPeer(t, { socket: listener.path });
  const pidfd = pidfdOf(t, kernel, descriptorOf(await listener.next()), peer.pid);
  const told = kernel.effectiveUid(pidfd);
  // The kernel of this machine may be older than 6.13.
  if (told !== undefined) t.is<number | undefined, number | undefined>(told, process.geteuid?.());
  const older = openKernel(libcWithoutPidfdInfo());
  t.is(older.effectiveUid(pidfd), undefined);
  t.is(older.effectiveUid(pidfd), undefined);
  peer.child.kill('SIGKILL');
  await peer.exited;
  if (told !== undefined) throwsCode(t, () => kernel.effectiveUid(pidfd), 'caller_gone', /PIDFD_GET_INFO: ESRCH/);
});

test.serial('a descriptor that is not open is neither alive nor ended', (t) => {
  throwsCode(t, () => kernel.hasExited(1_000_000), 'kernel', /EBADF/);
});

test.serial('one exit watch reports each of 1,000 pidfds once', async (t) => {
  const listener = await TestListener.open(t);
  const watch = kernel.openExitWatch();
  t.teardown(() => watch.close());
  const tokens = new Map<number, number[]>();
  const peers = await Promise.all(Array.from({ length: 4 }, () => startPeer(t, { socket: listener.path, connections: 250 })));
  for (let token = 2 ** 40; token < 2 ** 40 + 1000; token++) {
    const fd = descriptorOf(await listener.next());
    const { pid } = kernel.peerCredentials(fd);
    watch.add(pidfdOf(t, kernel, fd, pid), token);
    tokens.set(pid, [...(tokens.get(pid) ?? []), token]);
  }
  t.deepEqual(watch.poll(), []);
  for (const peer of peers) {
    await peer.stop();
    const expected = tokens.get(peer.pid) ?? [];
    t.is(expected.length, 250);
    t.deepEqual(watch.poll().sort(), expected);
    t.deepEqual(watch.poll(), []);
  }
});

test.serial('an exit watch reports a process that had ended before, and none that was removed', async (t) => {
  const listener = await TestListener.open(t);
  const watch = kernel.openExitWatch();
  const peer = await startPeer(t, { socket: listener.path, connections: 2 });
  const kept = pidfdOf(t, kernel, descriptorOf(await listener.next()), peer.pid);
  const removed = pidfdOf(t, kernel, descriptorOf(await listener.next()), peer.pid);
  await peer.stop();
  watch.add(kept, 1);
  watch.add(removed, 2);
  throwsCode(t, () => watch.add(kept, 3), 'kernel', /EEXIST/);
  watch.remove(removed);
  watch.remove(removed);
  watch.remove(-1);
  t.deepEqual(watch.poll(), [1]);
  watch.close();
  watch.close();
  throwsCode(t, () => watch.poll(), 'stopped', /closed/);
});

test.serial('unread bytes are more than none until the peer has read everything', async (t) => {
  const listener = await TestListener.open(t);
  const peer = await startPeer(t, { socket: listener.path });
  const socket = await listener.next();
  const fd = descriptorOf(socket);
  t.is(kernel.unreadBytes(fd), 0);
  socket.write(Buffer.alloc(10_000));
  t.true(kernel.unreadBytes(fd) >= 10_000);
  t.is(await peer.ask('read 4000'), 'read');
  t.true(kernel.unreadBytes(fd) > 0);
  t.is(await peer.ask('read 6000'), 'read');
  t.is(kernel.unreadBytes(fd), 0);
});

test.serial('only one process holds a lock, and its end lets go of it', async (t) => {
  const path = join(temporaryDirectory(t), 'lock');
  writeFileSync(path, '');
  const fd = openSync(path, 'r');
  t.teardown(() => closeSync(fd));
  const other = startScript(t, 'kernel-lock.ts', path);
  t.is(await other.line(), 'true');
  t.false(kernel.tryLock(fd));
  await other.stop();
  t.true(kernel.tryLock(fd));
  t.is(await startScript(t, 'kernel-lock.ts', path).line(), 'false');
  kernel.unlock(fd);
  t.is(await startScript(t, 'kernel-lock.ts', path).line(), 'true');
});

test.serial('a hardened process is not dumpable, has no core limit to raise and gains no privileges', async (t) => {
  const script = startScript(t, 'kernel-harden.ts');
  const before = JSON.parse(await script.line()) as object;
  const after = JSON.parse(await script.line()) as object;
  t.like(before, { dumpable: 1, noNewPrivileges: 0 });
  t.deepEqual(after, { dumpable: 0, noNewPrivileges: 1, core: ['0', '0'] });
});

test.serial('the descriptor limit is the soft one', (t) => {
  const [, soft] = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1')) ?? [];
  t.is(kernel.descriptorLimit(), Number(soft));
  const unlimited = (_: number, limit: BigUint64Array): number => {
    limit.fill(2n ** 64n - 1n);
    return 0;
  };
  t.is(openKernel({ ...loadLibc(), getrlimit: unlimited }).descriptorLimit(), Infinity);
});
