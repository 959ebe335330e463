import { messageOf } from '../../../src/errors.ts';
import type { LoadClient } from '../load-client.ts';
import type { Plan } from '../plan.ts';
import type { Subject } from '../subject.ts';

/** What every group of loads works with. */
export interface Bench {
  readonly plan: Plan;
  readonly client: LoadClient;
  readonly subjects: readonly Subject[];
  /** What this group has to leave out, by name and with the reason. */
  readonly skipped: string[];
  readonly signal: AbortSignal;
  /** One line of progress. */
  say(line: string): void;
}

/** Runs one step of one subject. A failure is noted and does not end the benchmark, unless it was called off. */
export async function attempt(
  bench: Bench, failures: string[], what: string, subject: Subject, step: () => Promise<void>,
): Promise<boolean> {
  bench.signal.throwIfAborted();
  try {
    await step();
    return true;
  } catch (error) {
    bench.signal.throwIfAborted();
    const text = [messageOf(error), subject.diagnosis()].filter(Boolean).join('; ');
    failures.push(`${what}: ${text}`);
    bench.say(`${what}: ${subject.name} failed: ${text}`);
    return false;
  }
}

export async function stopAll(bench: Bench): Promise<void> {
  for (const subject of bench.subjects) await subject.stop();
}

/** Callers under users of their own need root; without it such a group is left out by name. */
export function withoutRoot(bench: Bench, what: string): boolean {
  if (process.getuid?.() === 0) return false;
  bench.skipped.push(`${what}: callers under users of their own need root`);
  return true;
}

/** Users of their own begin here: above those of distributions, below those of user namespaces. */
export const FIRST_USER = 20_000;
