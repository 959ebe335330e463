import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../src/errors.ts';
import type { ChurnDetail, LoadClient, RotateDetail, StreamsDetail } from './load-client.ts';
import type { Figures, Row, SpeedRow, StartRow } from './figures.ts';
import type { Plan } from './plan.ts';
import type { Subject } from './subject.ts';

export const GROUPS = ['start', 'speed', 'memory', 'churn', 'rotation', 'mint'] as const;
export type Group = (typeof GROUPS)[number];

/** What every group of loads works with. */
export interface Bench {
  readonly plan: Plan;
  readonly client: LoadClient;
  readonly subjects: readonly Subject[];
  readonly figures: Figures;
  readonly signal: AbortSignal;
  /** One line of progress. */
  say(line: string): void;
}

/** Runs one step of one subject. A failure is noted and does not end the benchmark, unless it was called off. */
async function attempt(
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

async function stopAll(bench: Bench): Promise<void> {
  for (const subject of bench.subjects) await subject.stop();
}

/** Fresh starts, one subject at a time, in alternation. */
export async function runStarts(bench: Bench): Promise<void> {
  const rows = bench.subjects.map(({ name }): StartRow => ({ subject: name, ms: [], failures: [] }));
  bench.figures.start.push(...rows);
  for (let round = 0; round < bench.plan.starts; round++) {
    for (const [i, subject] of bench.subjects.entries()) {
      const row = rows[i];
      if (row === undefined) continue;
      await attempt(bench, row.failures, 'start', subject, async () => void row.ms.push(await subject.start()));
      await subject.stop();
    }
  }
  for (const row of rows) bench.say(`start to first SVID: ${row.subject} ${row.ms.map((ms) => ms.toFixed(0)).join(', ')} ms`);
}

/** All subjects are up; each load goes round them (A B C A B C ...), so that a slow minute of the machine hits all. */
export async function runSpeed(bench: Bench): Promise<void> {
  const up: Subject[] = [];
  const broken: string[] = [];
  for (const subject of bench.subjects) {
    if (await attempt(bench, broken, 'speed', subject, async () => void (await subject.start()))) up.push(subject);
    else bench.figures.skipped.push(`${subject.name} in the speed table: ${broken.at(-1)}`);
  }
  for (const { what, args, seconds, primary, repeat } of bench.plan.speed) {
    const rows = up.map(({ name }): SpeedRow => ({ what, subject: name, args, primary, samples: [], failures: [] }));
    bench.figures.speed.push(...rows);
    for (let round = 0; round < bench.plan.rounds * repeat; round++) {
      for (const [i, subject] of up.entries()) {
        const row = rows[i];
        if (row === undefined) continue;
        await speedRound(bench, row, subject, seconds);
      }
    }
  }
  await stopAll(bench);
}

async function speedRound(bench: Bench, row: SpeedRow, subject: Subject, seconds: number): Promise<void> {
  const went = await attempt(bench, row.failures, row.what, subject, async () => {
    const sample = await bench.client.run(subject, row.args, seconds);
    row.samples.push(sample);
    const { per_second, latency_ms, errors } = sample.report;
    const time = row.primary === 'per_second' ? undefined : (latency_ms?.[row.primary] ?? NaN);
    const speed = time === undefined ? `${per_second.toFixed(0)}/s` : `${time.toFixed(2)} ms`;
    const bad = Object.keys(errors).length > 0 ? ` errors ${JSON.stringify(errors)}` : '';
    bench.say(`${row.what}: ${subject.name} ${speed}${bad}`);
    if ((errors['no_answer'] ?? 0) + (errors['DeadlineExceeded'] ?? 0) > 0) throw new Error('calls were never answered');
  });
  // An agent that hangs would spoil every load after this one.
  if (went) return;
  await attempt(bench, row.failures, `${row.what}, restart after it`, subject, async () => void (await subject.start()));
}

/** Memory at rest and with streams: a fresh agent for each count, and no other agent that could share its pages. */
export async function runMemory(bench: Bench): Promise<void> {
  const { plan, client, figures } = bench;
  for (const streams of plan.streams) {
    for (const subject of bench.subjects) {
      const args = ['streams', '-n', String(streams), '-hold', `${plan.holdSeconds}s`];
      const what = `${streams} streams`;
      const row: Figures['memory'][number] = { what, subject: subject.name, args, streams, samples: [], failures: [] };
      figures.memory.push(row);
      await attempt(bench, row.failures, what, subject, async () => {
        await subject.start();
        await delay(plan.restSeconds * 1000, undefined, { signal: bench.signal });
        const sample = await client.run<StreamsDetail>(subject, args, plan.holdSeconds + 10);
        row.samples.push(sample);
        bench.say(`${what}: ${subject.name} ${(sample.report.detail?.per_stream?.rss_kib ?? NaN).toFixed(0)} KiB each`);
      });
      await subject.stop();
    }
  }
}

/** Many connections on a fresh agent, with its memory and descriptors in between. */
export async function runChurn(bench: Bench): Promise<void> {
  const { plan, client, figures } = bench;
  for (const subject of bench.subjects) {
    const what = `${plan.churnRounds.toLocaleString('en')} connect-fetch-close rounds`;
    const args = ['churn', '-c', '4', '-n', String(plan.churnRounds)];
    const row: Row<ChurnDetail> = { what, subject: subject.name, args, samples: [], failures: [] };
    figures.churn.push(row);
    await attempt(bench, row.failures, what, subject, async () => {
      await subject.start();
      const sample = await client.run<ChurnDetail>(subject, args, plan.churnRounds / 500);
      row.samples.push(sample);
      bench.say(`${what}: ${subject.name} ${sample.report.per_second.toFixed(0)}/s`);
    });
    await subject.stop();
  }
}

/** Short-lived certificates on open streams. All subjects at the same time: they are idle but for the renewals. */
export async function runRotation(bench: Bench): Promise<void> {
  const { ttlSeconds, streams, seconds } = bench.plan.rotation;
  const what = `${streams} streams, ${ttlSeconds} s TTL, ${seconds} s`;
  const args = ['rotate', '-n', String(streams), '-for', `${seconds}s`];
  const rows = bench.subjects.map(({ name }): Row<RotateDetail> => ({ what, subject: name, args, samples: [], failures: [] }));
  bench.figures.rotation.push(...rows);
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
}
