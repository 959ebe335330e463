import { spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { assertSameProcess, identifyCaller, refusalReasonOf, releaseCaller, type Caller } from '../../src/attestation/caller.ts';
import { SignetError, type ErrorCode } from '../../src/errors.ts';
import type { RefusalReason } from '../../src/events.ts';
import { descriptorOf, openKernel, type Kernel } from '../../src/kernel.ts';
import { needsPidNamespace, needsRoot, needsSetuid, testIf } from '../support/kernel-conditions.ts';
import {
  TestListener,
  TestProcess,
  libcWithoutPeerPidfd,
  libcWithoutPidfdInfo,
  startPeer,
  supportFile,
  temporaryDirectory,
  until,
  untilWithoutReaping,
  type PeerOptions,
} from '../support/kernel-processes.ts';

const kernel = openKernel();
const older = openKernel(libcWithoutPeerPidfd());
const kernels = [['with SO_PEERPIDFD', kernel], ['without SO_PEERPIDFD', older], ['without PIDFD_GET_INFO', openKernel(libcWithoutPidfdInfo())]] as const;

interface Connected {
  readonly peer: TestProcess;
  readonly fd: number;
  readonly caller: Caller;
}

async function connect(t: ExecutionContext, from: Kernel, options: Omit<PeerOptions, 'socket'> = {}): Promise<Connected> {
  const listener = await TestListener.open(t);
  const peer = await startPeer(t, { socket: listener.path, ...options });
  const fd = descriptorOf(await listener.next());
  const caller = identifyCaller(from, fd, 42);
  t.teardown(() => releaseCaller(from, caller));
  return { peer, fd, caller };
}

function refuses(t: ExecutionContext, run: () => unknown, code: ErrorCode, reason: RefusalReason): void {
  const error = t.throws(run, { instanceOf: SignetError });
  t.is(error?.code, code, error?.message);
  t.is(refusalReasonOf(error), reason);
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

for (const [title, from] of kernels) {
  test.serial(`a living caller is identified and stays the same process, ${title}`, async (t) => {
    const { peer, caller } = await connect(t, from);
    t.like(caller, { connection: 42, pid: peer.pid, owner: `uid:${process.geteuid?.()}` });
    t.is(caller.startTime === undefined, from.hasPeerPidfd);
    t.notThrows(() => assertSameProcess(from, caller));
  });

  test.serial(`a caller that has ended is gone, reaped or not, ${title}`, async (t) => {
    const { peer, fd, caller } = await connect(t, from);
    peer.child.kill('SIGKILL');
    untilWithoutReaping(() => from.hasExited(caller.pidfd), 'exit');
    t.regex(readFileSync(`/proc/${peer.pid}/stat`, 'latin1'), /\) Z /);
    refuses(t, () => assertSameProcess(from, caller), 'caller_gone', 'caller_gone');
    refuses(t, () => identifyCaller(from, fd, 1), 'caller_gone', 'caller_gone');
    await peer.exited;
    refuses(t, () => assertSameProcess(from, caller), 'caller_gone', 'caller_gone');
  });

  test.serial(`a peer that left its socket to another process and was reaped is not identified, ${title}`, async (t) => {
    const listener = await TestListener.open(t);
    const peer = await startPeer(t, { socket: listener.path });
    const fd = descriptorOf(await listener.next());
    const [, heir] = (await peer.ask('pass')).split(' ');
    await peer.exited;
    t.is(spawnSync('kill', ['-0', heir ?? '']).status, 0);
    const before = openDescriptors();
    refuses(t, () => identifyCaller(from, fd, 1), 'caller_gone', 'caller_gone');
    t.is(openDescriptors(), before);
  });

  testIf(needsRoot, `a socket passed to another user stays its opener's and ends with it, ${title}`, async (t) => {
    const { peer, fd, caller } = await connect(t, from, { uid: 65_533, gid: 65_533, groups: [] });
    const root = await connect(t, from);
    await root.peer.ask('pass 65534');
    t.is(from.peerCredentials(root.fd).uid, 0);
    await root.peer.exited;
    refuses(t, () => assertSameProcess(from, root.caller), 'caller_gone', 'caller_gone');
    t.is(from.peerCredentials(fd).uid, 65_533);
    t.is(caller.owner, 'uid:65533');
    await peer.ask('pass');
    await peer.exited;
    refuses(t, () => assertSameProcess(from, caller), 'caller_gone', 'caller_gone');
  });

  testIf(needsSetuid, `a caller that executes a set-user-ID program has changed, ${title}`, async (t) => {
    const program = join(temporaryDirectory(t), 'cat');
    copyFileSync('/bin/cat', program);
    chmodSync(program, 0o4755);
    const { peer, caller } = await connect(t, from, { uid: 65_534, gid: 65_534, groups: [] });
    assertSameProcess(from, caller);
    peer.tell(`exec ${program}`);
    await until(() => readFileSync(`/proc/${peer.pid}/comm`, 'latin1') === 'cat\n', 'exec');
    t.false(from.hasExited(caller.pidfd));
    refuses(t, () => assertSameProcess(from, caller), 'caller_changed', 'caller_changed');
  });
}

test.serial('a released caller is gone, and releasing it twice closes no other descriptor', async (t) => {
  const { caller } = await connect(t, kernel);
  releaseCaller(kernel, caller);
  refuses(t, () => assertSameProcess(kernel, caller), 'caller_gone', 'caller_gone');
  const next = kernel.openExitWatch();
  releaseCaller(kernel, caller);
  t.deepEqual(next.poll(), []);
  next.close();
});

test.serial('a connection without credentials is refused', async (t) => {
  const server = net.createServer().listen(0, '127.0.0.1');
  t.teardown(() => server.close());
  await once(server, 'listening');
  const client = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1');
  t.teardown(() => client.destroy());
  const [accepted] = (await once(server, 'connection')) as [net.Socket];
  t.teardown(() => accepted.destroy());
  refuses(t, () => identifyCaller(kernel, descriptorOf(accepted), 1), 'caller_unknown', 'no_credentials');
});

testIf(needsPidNamespace, 'a peer outside the pid namespace has pid 0 and is refused', async (t) => {
  const path = join(temporaryDirectory(t), 'socket');
  const script = supportFile('kernel-identify.ts');
  const listener = new TestProcess(t, 'unshare', ['--pid', '--fork', '--kill-child', process.execPath, script, path]);
  t.is(await listener.line(), 'listening');
  await startPeer(t, { socket: path });
  const answer = JSON.parse(await listener.line()) as { reason: string; message: string };
  t.is(answer.reason, 'pid_zero');
  t.regex(answer.message, /^pid_zero: /);
});

testIf(needsPidNamespace, 'a pid that was given to another process is never taken for the caller', async (t) => {
  const path = join(temporaryDirectory(t), 'socket');
  const namespace = ['--pid', '--fork', '--kill-child', '--mount-proc'];
  const script = new TestProcess(t, 'unshare', [...namespace, process.execPath, supportFile('kernel-reuse.ts'), path]);
  t.deepEqual(JSON.parse(await script.line()), {
    reused: true,
    early: 'caller_gone',
    late: 'caller_gone',
    earlyOlder: 'caller_gone',
    lateOlder: 'caller_changed',
    startTime: 'caller_changed',
    replacementItself: 'passed',
  });
});

const unaided = openKernel(libcWithoutPidfdInfo());

test.serial('without PIDFD_GET_INFO a /proc that cannot be read, or says something else, never passes', async (t) => {
  const { caller } = await connect(t, kernel);
  const root = temporaryDirectory(t);
  const directory = join(root, String(caller.pid));
  const status = join(directory, 'status');
  refuses(t, () => assertSameProcess(unaided, caller, root), 'caller_gone', 'caller_gone');
  mkdirSync(status, { recursive: true });
  refuses(t, () => assertSameProcess(unaided, caller, root), 'caller_unknown', 'attestation_failed');
  const other = temporaryDirectory(t);
  mkdirSync(join(other, String(caller.pid)));
  const write = (name: string, text: string): void => writeFileSync(join(other, String(caller.pid), name), text);
  write('status', 'Name:\tx\n');
  refuses(t, () => assertSameProcess(unaided, caller, other), 'caller_unknown', 'attestation_failed');
  write('status', `Uid:\t${caller.uid}\t${caller.uid + 1}\t${caller.uid}\t${caller.uid}\n`);
  refuses(t, () => assertSameProcess(unaided, caller, other), 'caller_changed', 'caller_changed');
  write('status', `Uid:\t9\t${caller.uid}\t9\t9\n`);
  t.notThrows(() => assertSameProcess(unaided, caller, other));
});

test.serial('without SO_PEERPIDFD a start time that cannot be read is a refusal that leaves no descriptor open', async (t) => {
  const { fd, caller } = await connect(t, older);
  const root = temporaryDirectory(t);
  const before = openDescriptors();
  refuses(t, () => identifyCaller(older, fd, 1, root), 'caller_gone', 'caller_gone');
  mkdirSync(join(root, String(caller.pid)));
  writeFileSync(join(root, String(caller.pid), 'stat'), '1 (x) S');
  refuses(t, () => identifyCaller(older, fd, 1, root), 'caller_unknown', 'attestation_failed');
  t.is(openDescriptors(), before);
});
