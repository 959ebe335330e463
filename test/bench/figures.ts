import type { ChurnDetail, RotateDetail, Sample, StreamsDetail } from './load-client.ts';
import type { Machine } from './machine.ts';
import type { Primary } from './plan.ts';

/** All samples of one load on one subject, in the order of the rounds. A round without an answer is a `failure`, not a sample. */
export interface Row<D = unknown> {
  readonly what: string;
  readonly subject: string;
  readonly args: readonly string[];
  readonly samples: Sample<D>[];
  readonly failures: string[];
}

export interface SpeedRow extends Row {
  readonly primary: Primary;
}

export interface StartRow {
  readonly subject: string;
  /** From the agent's start to the first X509-SVID, each on fresh state. */
  readonly ms: number[];
  readonly failures: string[];
}

export interface MintRow {
  readonly what: string;
  readonly per_second: number;
  readonly note?: string;
}

/** Everything that one run of the benchmark has found; what `figures.json` holds. */
export interface Figures {
  readonly when: string;
  readonly quick: boolean;
  readonly machine: Machine;
  readonly loadAverage: { before: number; after: number };
  readonly subjects: readonly { readonly name: string; readonly settings: string }[];
  /** What was left out, by name and with the reason. */
  readonly skipped: string[];
  readonly start: StartRow[];
  readonly speed: SpeedRow[];
  readonly memory: (Row<StreamsDetail> & { readonly streams: number })[];
  readonly churn: Row<ChurnDetail>[];
  readonly rotation: Row<RotateDetail>[];
  readonly mint: MintRow[];
}

export function median(values: readonly number[]): number {
  if (values.length === 0) return NaN;
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

/** One line of the speed table: medians over the rounds, and the best where that says how much of it is the machine's noise. */
export interface Summary {
  readonly runs: number;
  readonly perSecond: { readonly best: number; readonly median: number };
  readonly p50: { readonly best: number; readonly median: number };
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
  /** Milliseconds of CPU for one operation, least of all rounds: one figure for each process under test, and the client. */
  readonly cpuMs: readonly number[];
  readonly clientMs: number;
  /** Operations that failed, by code, over all rounds. */
  readonly errors: ReadonlyMap<string, number>;
  /** Highest part of the machine that others took, 0 to 1. */
  readonly others: number;
}

export function summarise(samples: readonly Sample[]): Summary {
  const reports = samples.map(({ report }) => report);
  const latency = (key: 'p50' | 'p90' | 'p99' | 'max'): number[] => reports.flatMap((r) => r.latency_ms?.[key] ?? []);
  const perSecond = reports.map((r) => r.per_second);
  const processes = Math.max(0, ...reports.map((r) => r.processes?.length ?? 0));
  const worked = reports.filter((r) => r.count > 0);
  const cpuOf = (i: number): number => Math.min(...worked.map((r) => ((r.processes?.[i]?.cpu_s ?? NaN) * 1000) / r.count));
  return {
    runs: samples.length,
    perSecond: { best: Math.max(...perSecond), median: median(perSecond) },
    p50: { best: Math.min(...latency('p50')), median: median(latency('p50')) },
    p90: median(latency('p90')),
    p99: median(latency('p99')),
    max: median(latency('max')),
    cpuMs: Array.from({ length: processes }, (_, i) => cpuOf(i)),
    clientMs: Math.min(...worked.map((r) => (r.client_cpu_s * 1000) / r.count)),
    errors: countErrors(reports.map((r) => r.errors)),
    others: Math.max(0, ...samples.map(({ busyness }) => busyness.others)),
  };
}

export function countErrors(all: readonly Readonly<Record<string, number>>[]): Map<string, number> {
  const sum = new Map<string, number>();
  for (const errors of all) for (const [code, count] of Object.entries(errors)) sum.set(code, (sum.get(code) ?? 0) + count);
  return sum;
}

function primaryOf(sample: Sample | undefined, primary: Primary): number {
  if (sample === undefined) return NaN;
  return primary === 'per_second' ? sample.report.per_second : (sample.report.latency_ms?.[primary] ?? NaN);
}

/**
 * How many times as fast as `other` a subject is: median over the rounds, of which each ran side by side, so that a slow
 * minute of the machine hits both. Undefined without a round that both finished, and with errors on either side.
 */
export function ratio(row: SpeedRow, other: SpeedRow): number | undefined {
  if (countErrors([...row.samples, ...other.samples].map(({ report }) => report.errors)).size > 0) return undefined;
  if (row.failures.length > 0 || other.failures.length > 0) return undefined;
  const rounds = row.samples.map((sample, i) => {
    const [mine, theirs] = [primaryOf(sample, row.primary), primaryOf(other.samples[i], row.primary)];
    return row.primary === 'per_second' ? mine / theirs : theirs / mine;
  });
  const value = median(rounds.filter(Number.isFinite));
  return Number.isNaN(value) ? undefined : value;
}

/** Anonymous memory that 1,000 connections left behind, in KiB: least squares over the churn's second half. */
export function growthPerThousand({ samples }: ChurnDetail): number {
  const points = (samples ?? []).slice(Math.floor((samples ?? []).length / 2));
  const meanX = points.reduce((sum, p) => sum + p.rounds, 0) / points.length;
  const meanY = points.reduce((sum, p) => sum + p.anonymous_kib, 0) / points.length;
  const above = points.reduce((sum, p) => sum + (p.rounds - meanX) * (p.anonymous_kib - meanY), 0);
  const below = points.reduce((sum, p) => sum + (p.rounds - meanX) ** 2, 0);
  return (above / below) * 1000;
}
