import { attempt, stopAll, type Bench } from './bench.ts';
import type { Row } from '../figures.ts';
import type { RotateDetail } from '../load-client.ts';
import type { RotationLoad } from '../plan.ts';

/** Short-lived certificates on open streams. */
export async function runRotation(bench: Bench): Promise<Row<RotateDetail>[]> {
  const rows: Row<RotateDetail>[] = [];
  for (const load of bench.plan.rotations) rows.push(...await rotate(bench, load));
  return rows;
}

/** All subjects at the same time: they are idle but for the renewals. */
async function rotate(bench: Bench, { ttlSeconds, streams, seconds }: RotationLoad): Promise<Row<RotateDetail>[]> {
  const what = `${streams.toLocaleString('en')} streams, ${ttlSeconds} s TTL, ${seconds} s`;
  const args = ['rotate', '-n', String(streams), '-for', `${seconds}s`];
  const rows = bench.subjects.map(({ name }): Row<RotateDetail> => ({ what, subject: name, args, samples: [], failures: [] }));
  const runs = bench.subjects.map(async (subject, i) => {
    const row = rows[i];
    if (row === undefined) return;
    await attempt(bench, row.failures, what, subject, async () => {
      await subject.start({ x509TtlSeconds: ttlSeconds });
      const sample = await bench.client.run<RotateDetail>(subject, args, seconds + 10);
      row.samples.push(sample);
      bench.say(`${what}: ${subject.name} ${(sample.report.detail?.rotations ?? []).length} renewals`);
    });
  });
  const results = await Promise.allSettled(runs);
  await stopAll(bench);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
  return rows;
}
