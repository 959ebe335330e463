import { readFileSync } from 'node:fs';
import { systemCode } from '../errors.ts';
import type { ProcessFact } from './messages.ts';
import { Refusal } from './refusal.ts';

/** PF_KTHREAD of the kernel's `flags` (proc_pid_stat(5), field 9). */
const KERNEL_THREAD = 0x0020_0000;

/** What /proc tells of a process, and when it was started: together with the pid that is one process. */
export interface ProcessSnapshot {
  readonly fact: ProcessFact;
  /** Field 22 of `/proc/<pid>/stat`. */
  readonly startTime: string;
  /** The process that this pid is a thread of; the pid itself for a process. */
  readonly process: number;
}

/**
 * The process `pid` as it is now. A command's name may be any bytes without NUL; what is not UTF-8 is replaced.
 *
 * @throws Refusal `no_such_process`, `failed`
 */
export function readProcess(pid: number, procRoot = '/proc'): ProcessSnapshot {
  const stat = read(pid, 'stat', procRoot);
  const status = read(pid, 'status', procRoot);
  const end = stat.lastIndexOf(')');
  const fields = stat.slice(end + 2).split(' ');
  const [, uid = NaN] = numbersOf(status, 'Uid');
  const [, gid = NaN] = numbersOf(status, 'Gid');
  const startTime = fields[22 - 3];
  if (end === -1 || startTime === undefined || Number.isNaN(uid) || Number.isNaN(gid)) {
    throw new Refusal('failed', `/proc/${pid} is not of the form that is known`);
  }
  const fact: ProcessFact = {
    pid,
    command: stat.slice(stat.indexOf('(') + 1, end),
    state: fields[0] ?? '?',
    kernel_thread: (Number(fields[9 - 3]) & KERNEL_THREAD) !== 0,
    uid,
    gid,
    groups: numbersOf(status, 'Groups'),
  };
  return { fact, startTime, process: numbersOf(status, 'Tgid')[0] ?? pid };
}

/** True when a process with this pid has not ended, and another one begun, since `before` was read. */
export function isStill(before: ProcessSnapshot, procRoot = '/proc'): boolean {
  try {
    const now = readProcess(before.fact.pid, procRoot);
    return now.startTime === before.startTime && now.fact.uid === before.fact.uid;
  } catch {
    return false;
  }
}

/** Memory-backed, so that reading it at once does not wait for a disk. */
function read(pid: number, name: string, procRoot: string): string {
  try {
    return readFileSync(`${procRoot}/${pid}/${name}`, 'utf8');
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ESRCH') throw noSuchProcess(pid);
    throw new Refusal(
      'failed',
      `/proc/${pid}/${name} cannot be read: ${code ?? String(error)}`,
      'the agent must be allowed to look at all processes',
    );
  }
}

export function noSuchProcess(pid: number): Refusal {
  const next = 'the number counts in the pid namespace of the agent: see "ps -ef" on the node, not in the container';
  return new Refusal('no_such_process', `there is no process ${pid} here, or it has just ended`, next);
}

/** The decimal numbers of the line `<name>:` (proc_pid_status(5)). The name of the command cannot begin a line of its own. */
function numbersOf(status: string, name: string): number[] {
  const line = new RegExp(`^${name}:[ \\t]*([0-9 \\t]*)$`, 'm').exec(status)?.[1] ?? '';
  return line.trim() === ''
    ? []
    : line
        .trim()
        .split(/[ \t]+/)
        .map(Number);
}
