import { attempt, stopAll, type Bench } from './bench.ts';
import type { SpeedRow } from '../figures.ts';
import type { Subject } from '../subject.ts';

/** Failures of one load on one subject after which it is not tried again. */
const ENOUGH = 3;

/** All subjects are up; each load goes round them (A B C A B C ...), so that a slow minute of the machine hits all. */
export async function runSpeed(bench: Bench): Promise<SpeedRow[]> {
  const all: SpeedRow[] = [];
  const up: Subject[] = [];
  const broken: string[] = [];
  for (const subject of bench.subjects) {
    if (await attempt(bench, broken, 'speed', subject, async () => void (await subject.start()))) up.push(subject);
    else bench.skipped.push(`${subject.name} in the speed table: ${broken.at(-1)}`);
  }
  for (const { what, args, seconds, primary, repeat } of bench.plan.speed) {
    const rows = up.map(({ name }): SpeedRow => ({ what, subject: name, args, primary, samples: [], failures: [] }));
    all.push(...rows);
    for (let round = 0; round < bench.plan.rounds * repeat; round++) {
      for (const [i, subject] of up.entries()) {
        const row = rows[i];
        if (row === undefined) continue;
        await speedRound(bench, row, subject, seconds, round);
      }
    }
  }
  await stopAll(bench);
  return all;
}

async function speedRound(bench: Bench, row: SpeedRow, subject: Subject, seconds: number, round: number): Promise<void> {
  // Each failure costs a wait and a restart; by then it is known.
  if (row.failures.length >= ENOUGH) return;
  const went = await attempt(bench, row.failures, row.what, subject, async () => {
    const sample = await bench.client.run(subject, row.args, seconds);
    row.samples.push({ ...sample, round });
    const { per_second, latency_ms, errors } = sample.report;
    const time = row.primary === 'per_second' ? undefined : (latency_ms?.[row.primary] ?? NaN);
    const speed = time === undefined ? `${per_second.toFixed(0)}/s` : `${time.toFixed(2)} ms`;
    const bad = Object.keys(errors).length > 0 ? ` errors ${JSON.stringify(errors)}` : '';
    bench.say(`${row.what}: ${subject.name} ${speed}${bad}`);
    if ((errors['no_answer'] ?? 0) + (errors['DeadlineExceeded'] ?? 0) > 0) throw new Error(`round ${round + 1}: calls were never answered`);
  });
  // An agent that hangs would spoil every load after this one.
  if (went) return;
  await attempt(bench, row.failures, `${row.what}, restart after it`, subject, async () => void (await subject.start()));
}
