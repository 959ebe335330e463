import { attempt, type Bench } from './bench.ts';
import type { StartRow } from '../figures.ts';

/** Starts on fresh state and restarts on kept state, one subject at a time, in alternation. */
export async function runStarts(bench: Bench): Promise<StartRow[]> {
  const row = (what: string) => ({ name }: { name: string }): StartRow => ({ what, subject: name, ms: [], failures: [] });
  const fresh = bench.subjects.map(row('fresh state'));
  const kept = bench.subjects.map(row('restart, state kept'));
  for (let round = 0; round < bench.plan.starts; round++) {
    for (const [i, subject] of bench.subjects.entries()) {
      const [first, again] = [fresh[i], kept[i]];
      if (first === undefined || again === undefined) continue;
      const up = await attempt(bench, first.failures, 'start', subject, async () => {
        first.ms.push(await subject.start({ keepState: true }));
      });
      if (up) await attempt(bench, again.failures, 'restart', subject, async () => void again.ms.push((await subject.restart()).ms));
      await subject.stop();
    }
  }
  for (const { what, subject, ms } of [...fresh, ...kept]) {
    bench.say(`start to first SVID, ${what}: ${subject} ${ms.map((one) => one.toFixed(0)).join(', ')} ms`);
  }
  return [...fresh, ...kept];
}
