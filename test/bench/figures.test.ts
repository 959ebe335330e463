import test from 'ava';
import { countErrors, growthPerThousand, median, ratio, summarise, type Figures, type SpeedRow } from './figures.ts';
import { markdownSection, plainReport } from './report.ts';
import { faults } from './verdict.ts';
import type { LoadReport, RotateDetail, Sample, StreamsDetail, Usage } from './load-client.ts';

const BUSYNESS = { before: 0.5, after: 1.5, others: 0.1 };

function usage(anonymous: number, fds: number): Usage {
  return { rss_kib: anonymous + 1000, pss_kib: anonymous + 500, anonymous_kib: anonymous, fds };
}

function sample<D = unknown>(over: Partial<LoadReport<D>> = {}): Sample<D> {
  const report: LoadReport<D> = {
    command: 'jwt', args: [], count: 100, seconds: 1, per_second: 100, errors: {}, client_cpu_s: 0.1,
    latency_ms: { p50: 1, p90: 2, p99: 3, max: 4 },
    processes: [{ pid: 1, cpu_s: 0.5, before: usage(2048, 10), after: usage(2048, 10) }],
    ...over,
  };
  return { report, busyness: BUSYNESS };
}

function speedRow(subject: string, ...perSecond: number[]): SpeedRow {
  const samples = perSecond.map((per_second) => sample({ per_second }));
  return { what: 'JWT', subject, args: ['jwt'], primary: 'per_second', samples, failures: [] };
}

const ROTATED: RotateDetail = {
  rotations: [{ streams: 5, spread_ms: 2, left_s: 30, life_gone: 0.5 }],
  expired: 0, broken: 0, repeated: 0, incomplete: 0, wrong: {}, ttl_s: 60,
};

const STREAMED: StreamsDetail = {
  all_after_ms: 10, open: [usage(4096, 30)], per_stream: { rss_kib: 20, pss_kib: 20, anonymous_kib: 20, fds: 2 },
  hold_s: 30, hold_cpu_s: [0.01], closed: [usage(4000, 10)], broken: {},
};

/** 100 KiB more after each 1,000 connections. */
const CHURNED = { samples: Array.from({ length: 10 }, (_, i) => ({ rounds: i * 1000, ...usage(2048 + i * 100, 12) })) };

function figuresWith(over: Partial<Figures> = {}): Figures {
  return {
    when: '2026-01-02T03:04:05.000Z', quick: false, loadAverage: { before: 0.1, after: 0.2 }, skipped: ['mint rate: not there'],
    machine: { cpus: 2, model: 'A|B', memoryGiB: 24, kernel: '6.18', node: 'v26' },
    subjects: [{ name: 'Signet', settings: 'defaults' }],
    start: [{ subject: 'Signet', ms: [30, 10, 20], failures: [] }],
    speed: [speedRow('Signet', 200, 100, 300), speedRow('SPIRE', 50, 50, 50)],
    memory: [
      { what: '10 streams', subject: 'Signet', args: [], streams: 10, samples: [sample({ detail: STREAMED })], failures: [] },
    ],
    churn: [{ what: '20,000 rounds', subject: 'Signet', args: [], samples: [sample({ detail: CHURNED })], failures: [] }],
    rotation: [{ what: '5 streams', subject: 'Signet', args: [], samples: [sample({ detail: ROTATED })], failures: [] }],
    mint: [{ what: 'X.509-SVID', per_second: 12_345.6 }],
    ...over,
  };
}

test('the median is the middle value, or the mean of the two in the middle', (t) => {
  t.is(median([3, 1, 2]), 2);
  t.is(median([4, 1, 3, 2]), 2.5);
  t.true(Number.isNaN(median([])));
});

test('a summary takes the best and the median of the rounds, and the least CPU for one operation', (t) => {
  const summary = summarise([
    sample({ per_second: 10 }),
    sample({ per_second: 30, latency_ms: { p50: 5, p90: 6, p99: 7, max: 8 }, count: 1000 }),
    sample({ per_second: 20, errors: { Unavailable: 2 } }),
  ]);
  t.deepEqual(summary.perSecond, { best: 30, median: 20 });
  t.deepEqual(summary.p50, { best: 1, median: 1 });
  t.deepEqual(summary.cpuMs, [0.5]);
  t.deepEqual([...summary.errors], [['Unavailable', 2]]);
});

test('the ratio is the median of the rounds that ran side by side, not the ratio of the medians', (t) => {
  t.is(ratio(speedRow('Signet', 100, 400, 90), speedRow('SPIRE', 50, 100, 90)), 2);
});

test('a shorter time is a higher ratio', (t) => {
  const timed = (subject: string, p50: number): SpeedRow => (
    { ...speedRow(subject), primary: 'p50', samples: [sample({ latency_ms: { p50, p90: 9, p99: 9, max: 9 } })] }
  );
  t.is(ratio(timed('Signet', 2), timed('SPIRE', 3)), 1.5);
});

test('there is no ratio for a load with errors or failed rounds on either side', (t) => {
  const bad: SpeedRow = { ...speedRow('SPIRE'), samples: [sample({ errors: { Unavailable: 1 } })] };
  t.is(ratio(speedRow('Signet', 100), bad), undefined);
  t.is(ratio(bad, speedRow('Signet', 100)), undefined);
  t.is(ratio(speedRow('Signet', 100), { ...speedRow('SPIRE', 50), failures: ['it hung'] }), undefined);
});

test('errors are added up by code', (t) => {
  t.deepEqual([...countErrors([{ a: 1 }, { a: 2, b: 3 }])], [['a', 3], ['b', 3]]);
});

test('growth is the slope of the second half of the churn', (t) => {
  t.is(Math.round(growthPerThousand(CHURNED)), 100);
});

test('a clean run has no faults', (t) => {
  t.deepEqual(faults(figuresWith(), 'Signet'), []);
});

test('calls that failed are a fault', (t) => {
  const row = { ...speedRow('Signet'), samples: [sample({ errors: { Unavailable: 2 }, error_example: 'gone' })] };
  t.deepEqual(faults(figuresWith({ speed: [row] }), 'Signet'), ['JWT: 2 times Unavailable (gone)']);
  t.deepEqual(faults(figuresWith({ speed: [{ ...row, subject: 'SPIRE' }] }), 'Signet'), []);
});

test('descriptors that stay after the close are a fault', (t) => {
  const detail = { ...STREAMED, closed: [usage(4000, 13)] };
  const row = { what: '10 streams', subject: 'Signet', args: [], streams: 10, samples: [sample({ detail })], failures: [] };
  t.deepEqual(faults(figuresWith({ memory: [row] }), 'Signet'), ['10 streams: 10 descriptors before, 13 after all had closed']);
});

test('memory that rises with each connection is a fault, but not in a quick run', (t) => {
  const samples = CHURNED.samples.map((s) => ({ ...s, ...usage(2048 + s.rounds, 12) }));
  const row = { what: 'churn', subject: 'Signet', args: [], samples: [sample({ detail: { samples } })], failures: [] };
  t.deepEqual(faults(figuresWith({ churn: [row] }), 'Signet'), ['churn: 1000 KiB of memory for 1,000 connections stay']);
  t.deepEqual(faults(figuresWith({ churn: [row], quick: true }), 'Signet'), []);
});

test('expired, broken, late and repeated renewals are faults, and so is none at all', (t) => {
  const wrong = { 'the key is not the certificate\'s': 1 };
  const detail: RotateDetail = { ...ROTATED, rotations: null, expired: 1, broken: 2, incomplete: 3, repeated: 4, wrong };
  const row = { what: 'R', subject: 'Signet', args: [], samples: [sample({ detail })], failures: ['R: it hung'] };
  t.deepEqual(faults(figuresWith({ rotation: [row] }), 'Signet'), [
    'R: it hung',
    'R: 1 streams held an expired certificate',
    'R: 2 streams ended',
    'R: 3 renewals did not reach every stream',
    'R: 4 messages repeated the certificate before',
    'R: 1 times the key is not the certificate\'s',
    'R: no renewal was seen',
  ]);
});

test('the Markdown section has one well-formed table for each group', (t) => {
  const section = markdownSection(figuresWith());
  const lines = section.split('\n');
  t.is(lines[0], '## Measured 2026-01-02');
  t.is(lines.filter((line) => line.startsWith('### ')).length, 6);
  t.true(lines.includes('- Left out: mint rate: not there.'));
  const speed = lines.filter((line) => line.startsWith('| JWT |'));
  t.true(speed[0]?.startsWith('| JWT | Signet | 3 | 300 / 200 * | 1 / 1 | 2 | 3 | 4 |'), speed[0]);
  t.true(speed[1]?.endsWith('| 4× |'), speed[1]);
  let columns = 0;
  for (const line of lines) {
    const cells = line.startsWith('|') ? line.split('|').length : 0;
    if (cells > 0 && columns > 0) t.is(cells, columns, line);
    columns = cells;
  }
});

test('a group without figures has no table, and a missing figure is a dash', (t) => {
  const unfinished = { what: 'R', subject: 'Signet', args: [], samples: [], failures: ['x'] };
  const text = plainReport(figuresWith({ memory: [], mint: [], rotation: [unfinished] }));
  t.false(text.includes('Memory at rest'));
  t.regex(text, /^R +Signet +– /m);
  t.false(text.includes('NaN'));
  t.false(text.includes('Infinity'));
});
