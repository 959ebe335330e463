import { setTimeout as delay } from 'node:timers/promises';
import { attempt, FIRST_USER, stopAll, withoutRoot, type Bench } from './bench.ts';
import { identityOf, wallClock } from '../subject.ts';
import type { RestartRow, Row } from '../figures.ts';
import type { OwnDetail, ReconnectDetail, StormsDetail } from '../load-client.ts';

/** Storms in which each caller is a process of its own under a user of its own with an identity of its own. */
export async function runUsers(bench: Bench): Promise<Row<OwnDetail>[]> {
  if (withoutRoot(bench, 'storms of processes')) return [];
  const count = bench.plan.stormCallers;
  const args = ['storm', '-n', String(count), '-own', String(FIRST_USER), '-identity', identityOf('UID'), '-timeout', '20s'];
  const row = (what: string) => ({ name }: { name: string }): Row<OwnDetail> => (
    { what: `${count} processes, ${what}`, subject: name, args, samples: [], failures: [] }
  );
  const first = bench.subjects.map(row('first time since the start'));
  const again = bench.subjects.map(row('again'));
  for (const [i, subject] of bench.subjects.entries()) {
    const row = first[i];
    if (row === undefined) continue;
    await attempt(bench, row.failures, row.what, subject, async () => {
      await subject.start({ users: { first: FIRST_USER, count } });
      // An agent that signs ahead may have done so.
      await delay(bench.plan.restSeconds * 1000, undefined, { signal: bench.signal });
      await storm(bench, row, subject, 0);
    });
  }
  for (let round = 0; round < bench.plan.usersAgain; round++) {
    for (const [i, subject] of bench.subjects.entries()) {
      const [row, before] = [again[i], first[i]];
      if (row === undefined || before?.failures.length !== 0 || row.failures.length > 0) continue;
      await attempt(bench, row.failures, row.what, subject, () => storm(bench, row, subject, round));
    }
  }
  await stopAll(bench);
  return [...first, ...again];
}

async function storm(bench: Bench, row: Row<OwnDetail>, subject: Bench['subjects'][number], round: number): Promise<void> {
  const sample = await bench.client.run<OwnDetail>(subject, row.args, 60);
  row.samples.push({ ...sample, round });
  const { count, latency_ms } = sample.report;
  bench.say(`${row.what}: ${subject.name} ${count} served, the last after ${(latency_ms?.max ?? NaN).toFixed(0)} ms`);
  // It has hung or is about to: later rounds would say nothing else.
  if (count < bench.plan.stormCallers) throw new Error(`round ${round + 1}: ${count} of ${bench.plan.stormCallers} were served`);
}

/** Storm after storm on one agent: some agents hang only after many. Ends for a subject with the first lost caller. */
export async function runStorms(bench: Bench): Promise<Row<StormsDetail>[]> {
  const { storms, stormCallers } = bench.plan;
  const args = ['storms', '-n', String(stormCallers), '-times', String(storms)];
  const rows: Row<StormsDetail>[] = [];
  for (const subject of bench.subjects) {
    const what = `${storms} storms of ${stormCallers}`;
    const row: Row<StormsDetail> = { what, subject: subject.name, args, samples: [], failures: [] };
    rows.push(row);
    await attempt(bench, row.failures, what, subject, async () => {
      await subject.start();
      const sample = await bench.client.run<StormsDetail>(subject, args, storms);
      row.samples.push(sample);
      const { lost_in, last_ms } = sample.report.detail ?? { lost_in: NaN, last_ms: [] };
      bench.say(`${what}: ${subject.name} ${lost_in === 0 ? `none lost in ${last_ms?.length}` : `lost callers in storm ${lost_in}`}`);
    });
    await subject.stop();
  }
  return rows;
}

/** The agent is restarted under open streams that connect again at once. */
export async function runRestarts(bench: Bench): Promise<RestartRow[]> {
  const { reconnects, reconnectStreams } = bench.plan;
  const what = `${reconnectStreams} streams`;
  const args = ['reconnect', '-n', String(reconnectStreams), '-timeout', '20s'];
  const rows = bench.subjects.map(({ name }): RestartRow => (
    { what, subject: name, args, samples: [], failures: [], fromSignalMs: [], fromStartMs: [], firstToLastMs: [] }
  ));
  for (let round = 0; round < reconnects; round++) {
    for (const [i, subject] of bench.subjects.entries()) {
      const row = rows[i];
      if (row === undefined) continue;
      const went = await attempt(bench, row.failures, what, subject, async () => {
        if (subject.pids.length === 0) await subject.start({ keepState: true });
        await restartUnder(bench, row, subject, round);
      });
      if (!went) await subject.stop();
    }
  }
  await stopAll(bench);
  return rows;
}

async function restartUnder(bench: Bench, row: RestartRow, subject: Bench['subjects'][number], round: number): Promise<void> {
  const opened = Promise.withResolvers<void>();
  // The process that the client would measure is another one afterwards.
  const target = { socketPath: subject.socketPath, pids: [] };
  const run = bench.client.run<ReconnectDetail>(target, row.args, 60, { onEvent: () => opened.resolve() });
  run.catch(() => {});
  await Promise.race([opened.promise, run]);
  const before = wallClock();
  const { signalledAt, startedAt } = await subject.restart();
  const sample = await run;
  row.samples.push({ ...sample, round });
  const { first_unix_ms, last_unix_ms } = sample.report.detail ?? { first_unix_ms: NaN, last_unix_ms: NaN };
  if (Object.keys(sample.report.errors).length > 0) throw new Error(`round ${round + 1}: streams did not come back`);
  if (!(last_unix_ms > before)) throw new Error(`round ${round + 1}: streams broke before the restart`);
  row.fromSignalMs.push(last_unix_ms - signalledAt);
  row.fromStartMs.push(last_unix_ms - startedAt);
  row.firstToLastMs.push(last_unix_ms - first_unix_ms);
  bench.say(`restart under ${row.what}: ${subject.name} all back ${(last_unix_ms - signalledAt).toFixed(0)} ms after the signal`);
}
