import type { Conditions, Figures, Group, Result, Rows, SpeedRow } from './figures.ts';
import type { LoadReport, RotateDetail, Sample, StreamsDetail, Usage } from './load-client.ts';

const BUSYNESS = { before: 0.5, after: 1.5, others: 0.1 };

export function usage(anonymous: number, fds: number): Usage {
  return { rss_kib: anonymous + 1000, pss_kib: anonymous + 500, anonymous_kib: anonymous, fds };
}

export function loadReport<D = unknown>(over: Partial<LoadReport<D>> = {}): LoadReport<D> {
  return {
    command: 'jwt', args: [], count: 100, seconds: 1, per_second: 100, errors: {}, client_cpu_s: 0.1,
    latency_ms: { p50: 1, p90: 2, p99: 3, max: 4 },
    processes: [{
      pid: 1, cpu_s: 0.5, before: usage(2048, 10), peak: { rss_kib: 9000, anonymous_kib: 8000 }, after: usage(2048, 10),
    }],
    ...over,
  };
}

export function sample<D = unknown>(over: Partial<LoadReport<D>> = {}): Sample<D> {
  return { report: loadReport(over), busyness: BUSYNESS };
}

export function speedRow(subject: string, ...perSecond: number[]): SpeedRow {
  const samples = perSecond.map((per_second) => sample({ per_second }));
  return { what: 'JWT', subject, args: ['jwt'], primary: 'per_second', samples, failures: [] };
}

export const ROTATED: RotateDetail = {
  rotations: [{ streams: 5, spread_ms: 2, left_s: 30, life_gone: 0.5 }],
  expired: 0, broken: 0, repeated: 0, incomplete: 0, wrong: {}, ttl_s: 60, message_bytes: 1200,
  plain: { writes_ms: 1, spread_ms: 1.5 },
};

export const STREAMED: StreamsDetail = {
  all_after_ms: 10, open: [usage(4096, 30)], per_stream: { rss_kib: 20, pss_kib: 20, anonymous_kib: 20, fds: 2 },
  hold_s: 30, hold_cpu_s: [0.01], closed: [usage(4000, 10)], broken: {},
};

/** 100 KiB more after each 1,000 connections. */
export const CHURNED = { samples: Array.from({ length: 10 }, (_, i) => ({ rounds: i * 1000, ...usage(2048 + i * 100, 12) })) };

export const CONDITIONS: Conditions = {
  command: 'make bench', date: '2026-01-02T03:04:05.000Z', commit: 'abc1234567', quick: false, loadAverage: { before: 0.1, after: 0.2 },
  machine: { cpus: 2, model: 'A|B', memoryGiB: 24, kernel: '6.18', node: 'v26' },
  subjects: [{ name: 'Signet', settings: 'defaults' }, { name: 'SPIRE', settings: 'defaults' }],
  skipped: ['mint rate: not there'],
};

export function result<G extends Group>(group: G, rows: Rows[G][], over: Partial<Conditions> = {}): Result<G> {
  return { group, ...CONDITIONS, ...over, rows };
}

const plain = { subject: 'Signet', args: [], failures: [] };

export function figuresWith(over: { readonly [G in Group]?: Result<G> } = {}): Figures {
  const latency_ms = { p50: 1, p90: 2, p99: 3, max: 4 };
  return {
    mint: result('mint', [{ what: 'X.509-SVID', per_second: 12_345.6 }]),
    start: result('start', [{ what: 'fresh state', subject: 'Signet', ms: [30, 10, 20], failures: [] }]),
    speed: result('speed', [speedRow('Signet', 200, 100, 300), speedRow('SPIRE', 50, 50, 50)]),
    users: result('users', [{ ...plain, what: '500 processes, again', samples: [sample({ detail: { own_ms: latency_ms, users: 500 } })] }]),
    restart: result('restart', [
      { ...plain, what: '500 streams', samples: [sample()], fromSignalMs: [700], fromStartMs: [600], firstToLastMs: [90] },
    ]),
    storms: result('storms', [
      { ...plain, what: '2 storms of 5', samples: [sample({ detail: { last_ms: [1, 2], served: [5, 5], lost_in: 0 } })] },
    ]),
    fairness: result('fairness', [{
      ...plain, what: 'beside', samples: [sample({ detail: { quiet: loadReport(), noisy: loadReport(), noise: loadReport() } })],
    }]),
    memory: result('memory', [{ ...plain, what: '10 streams', streams: 10, samples: [sample({ detail: STREAMED })] }]),
    peaks: result('peaks', [{ ...plain, what: '20,000 rounds', args: ['-settle', '20s'], samples: [sample({ detail: CHURNED })] }]),
    rotation: result('rotation', [{ ...plain, what: '5 streams', samples: [sample({ detail: ROTATED })] }]),
    ...over,
  };
}
