import { countErrors, growthPerThousand, type Figures, type Row } from './figures.ts';

/** Descriptors that may come and go by themselves (a timer's, a log's) without being a leak. */
const SPARE_DESCRIPTORS = 2;

/**
 * KiB of anonymous memory for 1,000 connections above which the churn counts as a leak. Half a kilobyte for each connection is
 * less than any object that a connection has; the collector's saw-tooth over 10,000 connections stays below it.
 */
const LEAK_KIB_PER_THOUSAND = 500;

/** What `subject` did wrong in a run, one sentence each. Speed is no fault; wrong answers, leaks and late renewals are. */
export function faults(figures: Figures, subject: string): string[] {
  const own = <R extends { readonly subject: string }>(result: { readonly rows: readonly R[] } | undefined): R[] =>
    (result?.rows ?? []).filter((row) => row.subject === subject);
  const { start, speed, users, restart, storms, fairness, memory, peaks, rotation } = figures;
  const loads: Row[] = [
    ...own(speed), ...own(users), ...own(restart), ...own(storms), ...own(fairness), ...own(memory), ...own(peaks), ...own(rotation),
  ];
  return [
    ...[...own(start), ...loads].flatMap((row) => row.failures),
    ...loads.flatMap(callFaults),
    ...own(storms).flatMap(stormFaults),
    ...own(memory).flatMap(streamFaults),
    ...own(peaks).flatMap((row) => churnFaults(row, peaks?.quick === true)),
    ...own(rotation).flatMap(rotationFaults),
  ];
}

function callFaults({ what, samples }: Row): string[] {
  const errors = countErrors(samples.map(({ report }) => report.errors));
  const example = samples.find(({ report }) => report.error_example !== undefined)?.report.error_example;
  return [...errors].map(([code, count]) => `${what}: ${count} times ${code} (${example})`);
}

type RowsOf<G extends keyof Figures> = NonNullable<Figures[G]>['rows'][number];

function stormFaults({ what, samples }: RowsOf<'storms'>): string[] {
  return samples.flatMap(({ report: { detail } }) => (
    detail === undefined || detail.lost_in === 0 ? [] : [`${what}: callers were lost in storm ${detail.lost_in}`]
  ));
}

function streamFaults({ what, samples }: RowsOf<'memory'>): string[] {
  return samples.flatMap(({ report }) => {
    const [before, closed] = [report.processes?.[0]?.before.fds ?? 0, report.detail?.closed[0]?.fds ?? 0];
    const broken = Object.entries(report.detail?.broken ?? {})
      .map(([code, count]) => `${what}: ${count} streams ended by ${code}`);
    if (closed > before + SPARE_DESCRIPTORS) broken.push(`${what}: ${before} descriptors before, ${closed} after all had closed`);
    return broken;
  });
}

function churnFaults({ what, samples }: RowsOf<'peaks'>, quick: boolean): string[] {
  return samples.flatMap(({ report }) => {
    const found: string[] = [];
    const [before, after] = [report.processes?.[0]?.before.fds ?? 0, report.processes?.[0]?.after.fds ?? 0];
    if (after > before + SPARE_DESCRIPTORS) found.push(`${what}: ${before} descriptors before, ${after} after`);
    // In a short churn the heap is still growing to its working size; a storm has no samples in between.
    const growth = quick || report.detail?.samples === undefined ? 0 : growthPerThousand(report.detail);
    if (growth > LEAK_KIB_PER_THOUSAND) found.push(`${what}: ${growth.toFixed(0)} KiB of memory for 1,000 connections stay`);
    return found;
  });
}

function rotationFaults({ what, samples }: RowsOf<'rotation'>): string[] {
  return samples.flatMap(({ report: { detail } }) => {
    if (detail === undefined) return [];
    const found: string[] = [];
    if (detail.expired > 0) found.push(`${what}: ${detail.expired} streams held an expired certificate`);
    if (detail.broken > 0) found.push(`${what}: ${detail.broken} streams ended`);
    if (detail.incomplete > 0) found.push(`${what}: ${detail.incomplete} renewals did not reach every stream`);
    if (detail.repeated > 0) found.push(`${what}: ${detail.repeated} messages repeated the certificate before`);
    for (const [reason, count] of Object.entries(detail.wrong)) found.push(`${what}: ${count} times ${reason}`);
    if ((detail.rotations ?? []).length === 0) found.push(`${what}: no renewal was seen`);
    return found;
  });
}
