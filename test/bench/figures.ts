import type { ChurnDetail, FairDetail, OwnDetail, RotateDetail, Sample, StormsDetail, StreamsDetail } from './load-client.ts';
import type { Machine } from './machine.ts';
import type { Primary } from './plan.ts';

export const GROUPS = [
  'mint', 'start', 'speed', 'users', 'restart', 'storms', 'fairness', 'memory', 'peaks', 'rotation',
] as const;
export type Group = (typeof GROUPS)[number];

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
  readonly what: string;
  readonly subject: string;
  /** Milliseconds from the agent's start to the first X509-SVID in a client's hands. */
  readonly ms: number[];
  readonly failures: string[];
}

/** Milliseconds until all streams had their SVID again; one element for each restart. */
export interface RestartRow extends Row {
  /** From the signal to the old agent, its end included. */
  readonly fromSignalMs: number[];
  /** From the start of the new agent. */
  readonly fromStartMs: number[];
  /** From the first stream that had its SVID again to the last. */
  readonly firstToLastMs: number[];
}

export interface MintRow {
  readonly what: string;
  readonly per_second: number;
  readonly note?: string;
}

export interface Rows {
  readonly mint: MintRow;
  readonly start: StartRow;
  readonly speed: SpeedRow;
  readonly users: Row<OwnDetail>;
  readonly restart: RestartRow;
  readonly storms: Row<StormsDetail>;
  readonly fairness: Row<FairDetail>;
  readonly memory: Row<StreamsDetail> & { readonly streams: number };
  readonly peaks: Row<Partial<ChurnDetail>>;
  readonly rotation: Row<RotateDetail>;
}

/** Under what a group was measured. */
export interface Conditions {
  readonly command: string;
  /** ISO 8601. */
  readonly date: string;
  /** Abbreviated; "with changes" when the checkout was not clean. */
  readonly commit: string;
  readonly quick: boolean;
  readonly machine: Machine;
  /** Of the machine, over one minute. */
  readonly loadAverage: { before: number; after: number };
  readonly subjects: readonly { readonly name: string; readonly settings: string }[];
  /** What was left out, by name and with the reason. */
  readonly skipped: readonly string[];
}

/** One group's results: a file of bench/results. */
export interface Result<G extends Group = Group> extends Conditions {
  readonly group: G;
  readonly rows: Rows[G][];
}

/** Everything that was measured; groups that were not are missing. */
export type Figures = { readonly [G in Group]?: Result<G> };

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

/** Anonymous memory that 1,000 connections left behind, in KiB: least squares over the churn's second half. */
export function growthPerThousand({ samples }: Partial<ChurnDetail>): number {
  const points = (samples ?? []).slice(Math.floor((samples ?? []).length / 2));
  const meanX = points.reduce((sum, p) => sum + p.rounds, 0) / points.length;
  const meanY = points.reduce((sum, p) => sum + p.anonymous_kib, 0) / points.length;
  const above = points.reduce((sum, p) => sum + (p.rounds - meanX) * (p.anonymous_kib - meanY), 0);
  const below = points.reduce((sum, p) => sum + (p.rounds - meanX) ** 2, 0);
  return (above / below) * 1000;
}
