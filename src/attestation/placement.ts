import { readFileSync } from 'node:fs';
import { SignetError } from '../errors.ts';
import { procFailure } from './caller.ts';
import { placementOf, type CgroupRoot, type Placement } from './cgroup.ts';

export interface PlacedProcess {
  /** All of `/proc/<pid>/cgroup`. */
  readonly text: string;
  readonly placement: Placement;
}

/**
 * Reads where the process `pid` runs, at once: /proc is memory-backed. Never through mounts, which a process can have of its own.
 *
 * On cgroup v1 a process whose main thread has ended while others go on is shown at `/`, which `placementOf` takes for nobody's. The
 * state is read too, between two readings of the cgroup, before and after, so that such a process is told what is wrong with it. It
 * proves nothing: a program can end its main thread and execute another in time with the readings.
 *
 * @throws SignetError `caller_gone` when there is no such process, `caller_changed` when it is just being moved, `caller_unknown`
 * when its main thread has ended or /proc cannot be read.
 */
export function readPlacement(pid: number, root: CgroupRoot, procRoot = '/proc'): PlacedProcess {
  assertRunning(pid, procRoot);
  const text = readProc(pid, 'cgroup', procRoot);
  assertRunning(pid, procRoot);
  const again = readProc(pid, 'cgroup', procRoot);
  assertRunning(pid, procRoot);
  if (again === text) return { text, placement: placementOf(text, root) };
  throw new SignetError('caller_changed', `process ${pid} was moved to another cgroup while its own was read`);
}

/** The letter after the command name in `/proc/<pid>/stat` (proc_pid_stat(5)); undefined when the text is not of that form. */
export function stateOf(stat: string): string | undefined {
  const end = stat.lastIndexOf(')');
  return end === -1 ? undefined : /^ ([A-Za-z]) /.exec(stat.slice(end + 1))?.[1];
}

function assertRunning(pid: number, procRoot: string): void {
  const state = stateOf(readProc(pid, 'stat', procRoot));
  if (state === undefined) throw new SignetError('caller_unknown', `/proc/${pid}/stat has no state`);
  if (!/[ZXx]/.test(state)) return;
  throw new SignetError('caller_unknown', `the main thread of process ${pid} has ended (${state}): its cgroup tells nothing`);
}

export function readProc(pid: number, name: string, procRoot: string): string {
  try {
    return readFileSync(`${procRoot}/${pid}/${name}`, 'latin1');
  } catch (error) {
    throw procFailure(pid, name, error);
  }
}
