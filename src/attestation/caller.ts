import { readFileSync } from 'node:fs';
import { SignetError, isSignetError, messageOf, systemCode } from '../errors.ts';
import type { RefusalReason } from '../events.ts';
import { NO_ID, type Kernel } from '../kernel.ts';
import { effectiveUidOf, startTimeOf } from './proc.ts';

/** Who is at the other end of one connection, as the kernel told when it was made. Made once, passed to everything. */
export interface Caller {
  readonly connection: number;
  /** In the agent's pid namespace. For messages and for /proc only: `pidfd` is what stays the same process. */
  readonly pid: number;
  /** Effective user ID when it connected. */
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  /** Open until `releaseCaller`. */
  readonly pidfd: number;
  /** Whose share of every limit it uses: `uid:1000`, or `pod:<uid>` where pods are attested. */
  readonly owner: string;
  /** Field 22 of `/proc/<pid>/stat`, only where the kernel gives no pidfd of the peer. */
  readonly startTime: string | undefined;
}

/** A closed descriptor's number may be another file's by now, so a released caller is never asked about again. */
const released = new WeakSet<Caller>();

/**
 * Takes the peer of the connected Unix socket `fd` from the kernel. The caller must be given back with `releaseCaller`.
 *
 * Without SO_PEERPIDFD (before Linux 6.5) a process that ends, with its pid given to another one, before this function is called
 * cannot be told from that other one, unless their user IDs differ: `assertSameProcess` then refuses.
 *
 * @param ownerOf whose share of the limits a process uses; must not throw. Undefined, or left out: its user's.
 * @throws SignetError `caller_unknown` without credentials or with pid 0 (`refusalReasonOf` tells which), `caller_gone` when the
 * process has ended already, `kernel` when the kernel cannot tell.
 */
export function identifyCaller(
  kernel: Kernel,
  fd: number,
  connection: number,
  procRoot = '/proc',
  ownerOf?: (pid: number) => string | undefined,
): Caller {
  const { pid, uid, gid, groups } = kernel.peerCredentials(fd);
  if (uid === NO_ID) throw new SignetError('caller_unknown', 'no_credentials: the connection has no peer credentials');
  if (pid === 0) throw new SignetError('caller_unknown', `pid_zero: the peer (uid ${uid}) is in a hidden pid namespace`);
  const pidfd = kernel.peerPidfd(fd, pid);
  try {
    const startTime = kernel.hasPeerPidfd ? undefined : readStartTime(pid, procRoot);
    const owner = ownerOf?.(pid) ?? `uid:${uid}`;
    // Asked after /proc was read: while the process of the pidfd lives, its pid is its own.
    if (kernel.hasExited(pidfd)) throw gone(pid, 'has ended');
    return { connection, pid, uid, gid, groups, pidfd, owner, startTime };
  } catch (error) {
    kernel.closeDescriptor(pidfd);
    throw error;
  }
}

/**
 * Returns only if the process that connected is alive and still acts as the user it connected as.
 *
 * @throws SignetError `caller_gone` when it has ended, `caller_changed` when its effective user ID is another one (it has
 * executed a set-user-ID program, or changed its user), `caller_unknown` when /proc cannot be read.
 */
export function assertSameProcess(kernel: Kernel, caller: Caller, procRoot = '/proc'): void {
  if (released.has(caller)) throw gone(caller.pid, 'has disconnected');
  if (kernel.hasExited(caller.pidfd)) throw gone(caller.pid, 'has ended');
  const told = caller.startTime === undefined ? kernel.effectiveUid(caller.pidfd) : undefined;
  if (told === caller.uid) return;
  if (told !== undefined) throw changed(caller, `its effective uid is ${told}; it connected as ${caller.uid}`);
  const uid = effectiveUidOf(readProc(caller.pid, 'status', procRoot));
  const startTime = caller.startTime === undefined ? undefined : readStartTime(caller.pid, procRoot);
  // Asked last: what was read is about the process of the pidfd only if that one still has the pid.
  if (kernel.hasExited(caller.pidfd)) throw gone(caller.pid, 'has ended');
  if (uid === undefined) throw new SignetError('caller_unknown', `/proc/${caller.pid}/status has no effective user ID`);
  if (uid !== caller.uid) throw changed(caller, `its effective uid is ${uid}; it connected as ${caller.uid}`);
  if (startTime !== caller.startTime) throw changed(caller, `it started at ${startTime}; the other one at ${caller.startTime}`);
}

/** Closes the pidfd. Does nothing the second time. */
export function releaseCaller(kernel: Kernel, caller: Caller): void {
  if (released.has(caller)) return;
  released.add(caller);
  kernel.closeDescriptor(caller.pidfd);
}

/** The counter that a failure to identify or to attest a caller belongs to. */
export function refusalReasonOf(error: unknown): RefusalReason {
  if (isSignetError(error, 'caller_gone')) return 'caller_gone';
  if (isSignetError(error, 'caller_changed')) return 'caller_changed';
  if (isSignetError(error, 'caller_unknown') && error.message.startsWith('no_credentials:')) return 'no_credentials';
  if (isSignetError(error, 'caller_unknown') && error.message.startsWith('pid_zero:')) return 'pid_zero';
  return 'attestation_failed';
}

function readStartTime(pid: number, procRoot: string): string {
  const startTime = startTimeOf(readProc(pid, 'stat', procRoot));
  if (startTime === undefined) throw new SignetError('caller_unknown', `/proc/${pid}/stat has no start time`);
  return startTime;
}

/** Memory-backed, so that reading it at once does not wait for a disk. */
function readProc(pid: number, name: string, procRoot: string): string {
  try {
    return readFileSync(`${procRoot}/${pid}/${name}`, 'latin1');
  } catch (error) {
    throw procFailure(pid, name, error);
  }
}

/** Why `/proc/<pid>/<name>` could not be read: `caller_gone` when there is no such process, else `caller_unknown`. */
export function procFailure(pid: number, name: string, error: unknown): SignetError {
  const code = systemCode(error);
  if (code === 'ENOENT' || code === 'ESRCH') return gone(pid, 'has ended', error);
  const advice = 'the agent must be allowed to look at the processes of its callers';
  const message = `/proc/${pid}/${name} cannot be read: ${messageOf(error)}; ${advice}`;
  return new SignetError('caller_unknown', message, { cause: error });
}

function gone(pid: number, what: string, cause?: unknown): SignetError {
  return new SignetError('caller_gone', `process ${pid} ${what}`, { cause });
}

function changed(caller: Caller, what: string): SignetError {
  return new SignetError('caller_changed', `process ${caller.pid} is not the one that connected: ${what}`);
}
