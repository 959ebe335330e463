import { writeFileSync } from 'node:fs';
import { assertSameProcess, identifyCaller, releaseCaller } from '../../src/attestation/caller.ts';
import { isSignetError } from '../../src/errors.ts';
import { descriptorOf, openKernel } from '../../src/kernel.ts';
import { TestListener, TestProcess, libcWithoutPeerPidfd, startPeer } from './kernel-processes.ts';

// Run in a pid namespace of its own. A peer connects, leaves its socket to another process and ends; its pid is then given to a
// process of another user. Says how each question about the peer is answered.

const ending: (() => unknown)[] = [];
const t = { teardown: (end: () => unknown) => void ending.unshift(end) };
const modern = openKernel();
const older = openKernel(libcWithoutPeerPidfd());

const listener = await TestListener.open(t, process.argv[2] ?? '');
const peer = await startPeer(t, { socket: listener.path, uid: 65_533, gid: 65_533, groups: [] });
const fd = descriptorOf(await listener.next());
const early = identifyCaller(modern, fd, 1);
const earlyOlder = identifyCaller(older, fd, 2);
assertSameProcess(modern, early);
assertSameProcess(older, earlyOlder);

await peer.ask('pass');
await peer.exited;
const replacement = reusePid(peer.pid, 65_534);

const lateOlder = identifyCaller(older, fd, 3);
console.log(
  JSON.stringify({
    reused: replacement.pid === peer.pid,
    early: outcome(() => assertSameProcess(modern, early)),
    late: outcome(() => identifyCaller(modern, fd, 4)),
    earlyOlder: outcome(() => assertSameProcess(older, earlyOlder)),
    lateOlder: outcome(() => assertSameProcess(older, lateOlder)),
    startTime: outcome(() => assertSameProcess(older, { ...lateOlder, uid: 65_534, startTime: earlyOlder.startTime })),
    replacementItself: outcome(() => assertSameProcess(older, { ...lateOlder, uid: 65_534 })),
  }),
);
for (const caller of [early]) releaseCaller(modern, caller);
for (const caller of [earlyOlder, lateOlder]) releaseCaller(older, caller);
for (const end of ending) await end();

function reusePid(pid: number, uid: number): TestProcess {
  for (let i = 0; i < 100; i++) {
    writeFileSync('/proc/sys/kernel/ns_last_pid', String(pid - 1));
    const child = new TestProcess(t, 'cat', [], { uid, gid: uid });
    if (child.pid === pid) return child;
  }
  throw new Error(`pid ${pid} was not given out again`);
}

function outcome(ask: () => unknown): string {
  try {
    ask();
    return 'passed';
  } catch (error) {
    return isSignetError(error) ? error.code : String(error);
  }
}
