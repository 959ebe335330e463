import { setTimeout as delay } from 'node:timers/promises';
import { attempt, type Bench } from './bench.ts';
import type { Row, Rows } from '../figures.ts';
import type { ChurnDetail, StreamsDetail } from '../load-client.ts';

/** Memory at rest and with streams: a fresh agent for each count, and no other agent that could share its pages. */
export async function runMemory(bench: Bench): Promise<Rows['memory'][]> {
  const rows: Rows['memory'][] = [];
  for (const { streams, holdSeconds } of bench.plan.memory) {
    for (const subject of bench.subjects) {
      const args = ['streams', '-n', String(streams), '-hold', `${holdSeconds}s`];
      const what = `${streams} streams`;
      const row: Rows['memory'] = { what, subject: subject.name, args, streams, samples: [], failures: [] };
      rows.push(row);
      await attempt(bench, row.failures, what, subject, async () => {
        await subject.start();
        await delay(bench.plan.restSeconds * 1000, undefined, { signal: bench.signal });
        const sample = await bench.client.run<StreamsDetail>(subject, args, holdSeconds + 10);
        row.samples.push(sample);
        bench.say(`${what}: ${subject.name} ${(sample.report.detail?.per_stream?.rss_kib ?? NaN).toFixed(0)} KiB each`);
      });
      await subject.stop();
    }
  }
  return rows;
}

/** The most memory in a storm and in a churn, each on a fresh agent, and whether it comes back. */
export async function runPeaks(bench: Bench): Promise<Row<Partial<ChurnDetail>>[]> {
  const { plan } = bench;
  const settle = ['-settle', `${plan.settleSeconds}s`];
  const loads = [
    { what: `storm of ${plan.stormCallers}`, args: ['storm', '-n', String(plan.stormCallers), ...settle], seconds: 5 },
    {
      what: `${plan.churnRounds.toLocaleString('en')} connect-fetch-close rounds`,
      args: ['churn', '-c', '4', '-n', String(plan.churnRounds), ...settle],
      seconds: plan.churnRounds / 500,
    },
  ];
  const rows: Row<Partial<ChurnDetail>>[] = [];
  for (const { what, args, seconds } of loads) {
    for (const subject of bench.subjects) {
      const row: Row<Partial<ChurnDetail>> = { what, subject: subject.name, args, samples: [], failures: [] };
      rows.push(row);
      await attempt(bench, row.failures, what, subject, async () => {
        await subject.start();
        await delay(plan.restSeconds * 1000, undefined, { signal: bench.signal });
        const sample = await bench.client.run<Partial<ChurnDetail>>(subject, args, seconds + plan.settleSeconds);
        row.samples.push(sample);
        const agent = sample.report.processes?.[0];
        const figures = [agent?.before.anonymous_kib, agent?.peak.anonymous_kib, agent?.after.anonymous_kib];
        bench.say(`memory, ${what}: ${subject.name} ${figures.map((kib) => ((kib ?? NaN) / 1024).toFixed(0)).join(' > ')} MiB anonymous`);
      });
      await subject.stop();
    }
  }
  return rows;
}
