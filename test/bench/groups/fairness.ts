import { attempt, FIRST_USER, stopAll, withoutRoot, type Bench } from './bench.ts';
import type { Row } from '../figures.ts';
import type { FairDetail } from '../load-client.ts';

/** One user takes what it can get; how long another waits for a first X509-SVID. With every limit as delivered. */
export async function runFairness(bench: Bench): Promise<Row<FairDetail>[]> {
  if (withoutRoot(bench, 'fairness')) return [];
  const { rounds, fetches, seconds } = bench.plan.fairness;
  const what = 'first X509-SVID beside a noisy user';
  const args = ['fair', '-noise', String(FIRST_USER), '-victim', String(FIRST_USER + 1), '-n', String(fetches), '-d', `${seconds}s`];
  const rows = bench.subjects.map(({ name }): Row<FairDetail> => ({ what, subject: name, args, samples: [], failures: [] }));
  for (let round = 0; round < rounds; round++) {
    for (const [i, subject] of bench.subjects.entries()) {
      const row = rows[i];
      if (row === undefined) continue;
      const went = await attempt(bench, row.failures, what, subject, async () => {
        if (subject.pids.length === 0) await subject.start({ users: { first: FIRST_USER, count: 2 }, defaultLimits: true });
        const sample = await bench.client.run<FairDetail>(subject, args, seconds * 3);
        row.samples.push({ ...sample, round });
        const { quiet, noisy } = sample.report.detail ?? {};
        bench.say(`${what}: ${subject.name} p99 ${quiet?.latency_ms?.p99.toFixed(1)} ms alone, ${noisy?.latency_ms?.p99.toFixed(1)} beside it`);
        const errors = { ...quiet?.errors, ...noisy?.errors };
        if (Object.keys(errors).length > 0) throw new Error(`round ${round + 1}: ${JSON.stringify(errors)}`);
      });
      if (!went) await subject.stop();
    }
  }
  await stopAll(bench);
  return rows;
}
