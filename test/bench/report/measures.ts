import { countErrors, GROUPS, median, type Figures, type Result, type SpeedRow } from '../figures.ts';
import type { Latency, Sample } from '../load-client.ts';

/** Whom the ratios are about. */
export const OWN = 'Signet';

/** How the names of loads by the published client end. */
export const GRPC = ', as grpc-go sees it';

/** One figure of every subject, round by round, as it is compared. */
export interface Measure {
  readonly name: string;
  readonly unit: '/s' | 'ms' | 'MiB' | 'KiB' | 's/min';
  readonly better: 'higher' | 'lower';
  /** Rounds in their order; `undefined`: not every call of that round was answered, and rightly. */
  readonly rounds: ReadonlyMap<string, readonly (number | undefined)[]>;
}

interface Sampled {
  readonly what: string;
  readonly subject: string;
  readonly samples: readonly Sample[];
}

function clean({ report }: Sample): boolean {
  return countErrors([report.errors]).size === 0;
}

/** A round without a sample has a hole, so that those that ran side by side stay side by side. */
function byRound<S extends Sample>(samples: readonly S[]): (S | undefined)[] {
  const list: (S | undefined)[] = [];
  for (const [i, sample] of samples.entries()) list[sample.round ?? i] = sample;
  return Array.from(list);
}

function grouped<R extends { readonly what: string }>(rows: readonly R[]): Map<string, R[]> {
  return Map.groupBy(rows, ({ what }) => what);
}

function measure(
  name: string, unit: Measure['unit'], better: Measure['better'], entries: readonly (readonly [string, readonly (number | undefined)[]])[],
): Measure {
  const rounds = entries.map(([subject, list]) => (
    [subject, list.map((value) => (value !== undefined && Number.isFinite(value) ? value : undefined))] as const
  ));
  return { name, unit, better, rounds: new Map(rounds) };
}

/** Measures of all rows with the same `what`. */
function sampled<R extends Sampled>(
  rows: readonly R[] | undefined, unit: Measure['unit'], better: Measure['better'], name: (what: string) => string,
  pick: (report: R['samples'][number]['report'], row: R) => number | undefined,
): Measure[] {
  return [...grouped(rows ?? [])].map(([what, list]) => measure(name(what), unit, better, list.map((row) => (
    [row.subject, byRound(row.samples).map((sample) => (sample && clean(sample) ? pick(sample.report, row) : undefined))] as const
  ))));
}

function speedMeasures(rows: readonly SpeedRow[] | undefined): Measure[] {
  return [...grouped(rows ?? [])].flatMap(([, list]) => {
    const key = list[0]?.primary;
    return key === 'per_second'
      ? sampled(list, '/s', 'higher', (what) => what, (report) => report.per_second)
      : sampled(list, 'ms', 'lower', (what) => what, (report) => (key === undefined ? undefined : report.latency_ms?.[key]));
  });
}

/** `first X509-SVID` is fast in the middle and may be slow at its end: both are compared. */
function tail(rows: readonly SpeedRow[] | undefined, percentile: keyof Latency): Measure[] {
  const timed = (rows ?? []).filter((row) => row.primary === 'p50');
  return sampled(timed, 'ms', 'lower', (what) => `${what}, ${percentile}`, (report) => report.latency_ms?.[percentile]);
}

const mib = (kib: number | undefined): number | undefined => (kib === undefined ? undefined : kib / 1024);

/** Everything that is compared, in the order of the document. */
export function measuresOf(figures: Figures): Measure[] {
  const { start, speed, users, restart, fairness, memory, peaks, rotation } = figures;
  const starts = [...grouped(start?.rows ?? [])].map(([what, list]) => (
    measure(`start to first X509-SVID, ${what}`, 'ms', 'lower', list.map((row) => [row.subject, row.ms] as const))
  ));
  const restarts = [...grouped(restart?.rows ?? [])].map(([what, list]) => (
    measure(`restart under ${what}: last is back`, 'ms', 'lower', list.map((row) => [row.subject, row.fromSignalMs] as const))
  ));
  // Each count of streams begins with an agent at rest; one of them is enough.
  const atRest = memory?.rows.filter(({ streams }) => streams === memory.rows[0]?.streams);
  return [
    ...speedMeasures(speed?.rows).filter(({ name }) => !name.endsWith(GRPC)),
    ...tail(speed?.rows.filter(({ what }) => !what.endsWith(GRPC)), 'p99'),
    ...sampled(users?.rows, 'ms', 'lower', (what) => `storm of ${what}`, (report) => report.latency_ms?.max),
    ...restarts,
    ...sampled(fairness?.rows, 'ms', 'lower', (what) => `${what}, p99`, (report) => report.detail?.noisy.latency_ms?.p99),
    ...starts,
    ...sampled(atRest, 'MiB', 'lower', () => 'resident at rest', (report) => mib(report.processes?.[0]?.before.rss_kib)),
    ...sampled(atRest, 'MiB', 'lower', () => 'anonymous at rest', (report) => mib(report.processes?.[0]?.before.anonymous_kib)),
    ...sampled(memory?.rows, 'KiB', 'lower', (what) => `${what}: resident for each`, (report) => report.detail?.per_stream?.rss_kib),
    ...sampled(memory?.rows, 'ms', 'lower', (what) => `${what}: all served`, (report) => report.detail?.all_after_ms),
    ...sampled(peaks?.rows, 'MiB', 'lower', (what) => `${what}: peak resident`, (report) => mib(report.processes?.[0]?.peak.rss_kib)),
    ...sampled(rotation?.rows, 'ms', 'lower', (what) => `renewal on ${what.replace(/ streams.*/, '')} streams: first to last`, (report) => (
      median((report.detail?.rotations ?? []).map(({ spread_ms }) => spread_ms))
    )),
    ...speedMeasures(speed?.rows).filter(({ name }) => name.endsWith(GRPC)),
  ];
}

/** The middle of a subject's rounds. */
export function middle({ rounds }: Measure, subject: string): number | undefined {
  const value = median((rounds.get(subject) ?? []).filter((one) => one !== undefined));
  return Number.isNaN(value) ? undefined : value;
}

export interface Ratio {
  /** How many times as good; above 1 is better, in times and memory too. */
  readonly value: number;
  /** Rounds that it comes from, and those that there were. */
  readonly rounds: number;
  readonly of: number;
}

/**
 * How many times as good `subject` is as `peer`: median over the rounds, of which each ran side by side, so that a slow minute of
 * the machine hits both. A round that the peer did not answer in full is left out, which is in the peer's favour; one of the
 * subject's makes it undefined.
 */
export function ratio({ rounds, better }: Measure, subject: string, peer: string): Ratio | undefined {
  const [mine, theirs] = [rounds.get(subject), rounds.get(peer)];
  if (mine === undefined || theirs === undefined || mine.includes(undefined)) return undefined;
  const each = mine.flatMap((own, i) => {
    const other = theirs[i];
    if (own === undefined || other === undefined) return [];
    return [better === 'higher' ? own / other : other / own];
  });
  const value = median(each);
  return Number.isFinite(value) && value > 0 ? { value, rounds: each.length, of: mine.length } : undefined;
}

/** The groups that were measured, in the order of the document. */
export function measured(figures: Figures): Result[] {
  return GROUPS.flatMap((group) => figures[group] ?? []);
}

/** Who was measured beside Signet, in its order. */
export function peersOf(figures: Figures): string[] {
  const names = measured(figures).flatMap(({ subjects }) => subjects.map(({ name }) => name));
  return names.includes(OWN) ? [...new Set(names)].filter((name) => name !== OWN) : [];
}
