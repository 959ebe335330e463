import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';

/** What the figures were measured on. */
export interface Machine {
  readonly cpus: number;
  readonly model: string;
  readonly memoryGiB: number;
  readonly kernel: string;
  readonly node: string;
}

export function describeMachine(): Machine {
  return {
    cpus: availableParallelism(),
    model: cpus()[0]?.model.trim() ?? 'unknown',
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
  };
}

/** How busy the machine was around one load. */
export interface Busyness {
  /** One-minute load average before and after. */
  readonly before: number;
  readonly after: number;
  /** Part of all CPUs (0 to 1) that neither the client nor the measured processes took. */
  readonly others: number;
}

/** Seconds that all CPUs together were not idle since the machine started: /proc/stat, in ticks of 10 ms. */
function busySeconds(): number {
  const [first = ''] = readFileSync('/proc/stat', 'utf8').split('\n', 1);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = first.trim().split(/\s+/).slice(1).map(Number);
  return (user + nice + system + irq + softirq + steal) / 100;
}

/** Starts watching the machine; the returned function ends it, given the CPU seconds that the measurement itself took. */
export function watchMachine(): (ownCpuSeconds: number) => Busyness {
  const before = loadavg()[0] ?? 0;
  const busy = busySeconds();
  const start = performance.now();
  return (own) => {
    const wall = (performance.now() - start) / 1000;
    const others = (busySeconds() - busy - own) / (wall * availableParallelism());
    return { before, after: loadavg()[0] ?? 0, others: Math.min(Math.max(others, 0), 1) };
  };
}

/** The checkout's commit, abbreviated; with what is not committed it says so. Results and what is made of them do not count. */
export function describeCommit(directory: string): string {
  const git = (...args: string[]): string | undefined => {
    const { status, stdout } = spawnSync('git', ['-C', directory, ...args], { encoding: 'utf8' });
    return status === 0 ? stdout.trim() : undefined;
  };
  const commit = git('rev-parse', '--short=10', 'HEAD');
  if (commit === undefined) return 'unknown';
  const changes = git('status', '--porcelain', '--', '.', ':!bench', ':!BENCHMARKS.md') ?? '';
  return changes === '' ? commit : `${commit} with changes`;
}
