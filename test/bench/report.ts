import { countErrors, growthPerThousand, median, ratio, summarise, type Figures, type SpeedRow } from './figures.ts';
import { figure, markdownTable, plainTable } from './table.ts';
import type { RotateDetail, Usage } from './load-client.ts';

interface Section {
  readonly title: string;
  readonly notes: readonly string[];
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** What a terminal shows. */
export function plainReport(figures: Figures): string {
  const plain = ({ title, notes, head, rows }: Section): string => [title, plainTable(head, rows), ...notes].join('\n');
  const sections = sectionsOf(figures).map(plain);
  return [conditions(figures).join('\n'), ...sections].join('\n\n');
}

/** A section of a Markdown document, with its headings from level `level` on. */
export function markdownSection(figures: Figures, level = 2): string {
  const mark = '#'.repeat(level);
  const list = (lines: readonly string[]): string[] => (lines.length > 0 ? [lines.map((line) => `- ${line}`).join('\n')] : []);
  const sections = sectionsOf(figures).flatMap(({ title, notes, head, rows }) => (
    [`${mark}# ${title}`, markdownTable(head, rows), ...list(notes)]
  ));
  const measured = `${mark} Measured ${figures.when.slice(0, 10)}`;
  return `${[measured, ...list(conditions(figures)), ...sections].join('\n\n')}\n`;
}

function conditions({ machine, loadAverage, subjects, skipped, quick, speed }: Figures): string[] {
  const samples = speed.flatMap((row) => row.samples);
  const others = samples.map(({ busyness }) => busyness.others * 100);
  const [usual, most] = [figure(median(others)), figure(Math.max(...others))];
  return [
    ...(quick ? ['A quick run: one short round. Its figures are a hint, not a measurement.'] : []),
    `Machine: ${machine.cpus} CPUs (${machine.model}), ${machine.memoryGiB} GiB, Linux ${machine.kernel}, Node ${machine.node}.`,
    'Client, agents and servers share it.',
    `Load average ${figure(loadAverage.before)} before, ${figure(loadAverage.after)} after.`,
    ...(others.length > 0 ? [`Other processes took ${usual} % of the CPUs in the median speed load, ${most} % at most.`] : []),
    ...subjects.map(({ name, settings }) => `${name}: ${settings}.`),
    ...skipped.map((reason) => `Left out: ${reason}.`),
  ];
}

function sectionsOf(figures: Figures): Section[] {
  const all = [start(figures), speedSection(figures), memory(figures), churn(figures), rotation(figures), mint(figures)];
  return all.filter(({ rows }) => rows.length > 0);
}

function start({ start }: Figures): Section {
  return {
    title: 'Agent start to first SVID',
    notes: ['Fresh state each time; SPIRE: fresh join token, its server already up.'],
    head: ['subject', 'starts', 'best ms', 'median ms'],
    rows: start.map(({ subject, ms }) => [subject, String(ms.length), figure(Math.min(...ms)), figure(median(ms))]),
  };
}

function speedSection({ speed }: Figures): Section {
  return {
    title: 'Speed',
    notes: [
      'Times in ms; "best / median" over the rounds, else the median. Rounds alternate between the subjects.',
      'CPU: ms for one operation, least of all rounds; for SPIRE agent + server. Client: the same of the load generator.',
      '"Signet is": how many times as fast, median of the rounds, by the figure with a star.',
      'load: one-minute load average before the first and after the last round; others: most CPU that other processes took.',
    ],
    head: [
      'what', 'subject', 'runs', 'per second', 'p50', 'p90', 'p99', 'max', 'CPU', 'client', 'errors', 'load', 'others',
      'Signet is',
    ],
    rows: speed.map((row) => speedLine(row, speed)),
  };
}

function speedLine(row: SpeedRow, all: readonly SpeedRow[]): string[] {
  const s = summarise(row.samples);
  const star = (key: SpeedRow['primary'], text: string): string => (key === row.primary ? `${text} *` : text);
  const own = all.find(({ what, subject }) => what === row.what && subject === 'Signet');
  const faster = own === undefined || own === row ? undefined : ratio(own, row);
  const [first, last] = [row.samples[0], row.samples.at(-1)];
  return [
    row.what,
    row.subject,
    String(s.runs),
    row.primary === 'per_second' ? star('per_second', `${figure(s.perSecond.best)} / ${figure(s.perSecond.median)}`) : '',
    star('p50', `${figure(s.p50.best)} / ${figure(s.p50.median)}`),
    figure(s.p90),
    figure(s.p99),
    star('max', figure(s.max)),
    s.cpuMs.map((ms) => figure(ms)).join(' + '),
    figure(s.clientMs),
    errorsText(s.errors, row.failures),
    `${figure(first?.busyness.before)}→${figure(last?.busyness.after)}`,
    `${figure(s.others * 100)} %`,
    faster === undefined ? '' : `${figure(faster)}×`,
  ];
}

function errorsText(errors: ReadonlyMap<string, number>, failures: readonly string[]): string {
  const list = [...errors].map(([code, count]) => `${count} ${code}`);
  if (failures.length > 0) list.push(`${failures.length} failed`);
  return list.length > 0 ? list.join(', ') : '0';
}

const mebibytes = (kib: number | undefined): string => figure(kib === undefined ? undefined : kib / 1024);
const memoryOf = (u: Usage | undefined): string =>
  u === undefined || u.error !== undefined ? '–' : [u.rss_kib, u.pss_kib, u.anonymous_kib].map(mebibytes).join(' / ');
const descriptorsOf = (u: Usage | undefined): string => (u === undefined || u.error !== undefined ? '–' : String(u.fds));

function memory({ memory }: Figures): Section {
  return {
    title: 'Memory at rest and with streams',
    notes: [
      'MiB as RSS / PSS / anonymous of the agent (SPIRE\'s server not counted).',
      'Each on a fresh agent, with none of the others up.',
      'At rest: after one client. Each stream on a connection of its own; for each: KiB of RSS / anonymous, and descriptors.',
      'Idle CPU: seconds of agent (+ server) in a minute with the streams open. Closed: three seconds after the last close.',
    ],
    head: [
      'streams', 'subject', 'at rest', 'open', 'each KiB', 'each fds', 'all served ms', 'idle CPU s/min', 'closed',
      'fds before→closed', 'errors',
    ],
    rows: memory.map(({ streams, subject, samples, failures }) => {
      const report = samples[0]?.report;
      const detail = report?.detail;
      const before = report?.processes?.[0]?.before;
      return [
        String(streams),
        subject,
        memoryOf(before),
        memoryOf(detail?.open[0]),
        `${figure(detail?.per_stream?.rss_kib)} / ${figure(detail?.per_stream?.anonymous_kib)}`,
        figure(detail?.per_stream?.fds),
        figure(detail?.all_after_ms),
        (detail?.hold_cpu_s ?? []).map((s) => figure((s * 60) / (detail?.hold_s ?? NaN))).join(' + '),
        memoryOf(detail?.closed[0]),
        `${descriptorsOf(before)}→${descriptorsOf(detail?.closed[0])}`,
        errorsText(countErrors([report?.errors ?? {}, detail?.broken ?? {}]), failures),
      ];
    }),
  };
}

function churn({ churn }: Figures): Section {
  return {
    title: 'Connections that come and go',
    notes: [
      'On a fresh agent. MiB as RSS / PSS / anonymous.',
      'Growth: KiB of anonymous memory for 1,000 connections, in the second half.',
    ],
    head: ['rounds', 'subject', 'per second', 'before', 'after', 'growth', 'fds before→after', 'errors'],
    rows: churn.map(({ what, subject, samples, failures }) => {
      const report = samples[0]?.report;
      const agent = report?.processes?.[0];
      return [
        what,
        subject,
        figure(report?.per_second),
        memoryOf(agent?.before),
        memoryOf(agent?.after),
        figure(report?.detail === undefined ? undefined : growthPerThousand(report.detail)),
        `${descriptorsOf(agent?.before)}→${descriptorsOf(agent?.after)}`,
        errorsText(countErrors([report?.errors ?? {}]), failures),
      ];
    }),
  };
}

function range(detail: RotateDetail | undefined, pick: (r: NonNullable<RotateDetail['rotations']>[number]) => number): string {
  const values = (detail?.rotations ?? []).map(pick);
  return values.length === 0 ? '–' : `${figure(Math.min(...values))}–${figure(Math.max(...values))}`;
}

function rotation({ rotation }: Figures): Section {
  return {
    title: 'Renewal on open streams',
    notes: [
      'Left: seconds that the old certificate was still valid at the push.',
      'Gone: part of its notBefore–notAfter at the push, back-dating included.',
      'Expired: streams that ever held an expired certificate; broken: that ended.',
      'Repeated: messages with the certificate that the stream already had; partial: renewals that missed a stream.',
    ],
    head: [
      'what', 'subject', 'renewals', 'first to last ms', 'left s', 'gone', 'expired', 'broken', 'repeated', 'partial', 'CPU s',
      'errors',
    ],
    rows: rotation.map(({ what, subject, samples, failures }) => {
      const report = samples[0]?.report;
      const detail = report?.detail;
      return [
        what,
        subject,
        figure(detail === undefined ? undefined : (detail.rotations ?? []).length),
        range(detail, (r) => r.spread_ms),
        range(detail, (r) => r.left_s),
        range(detail, (r) => r.life_gone),
        figure(detail?.expired),
        figure(detail?.broken),
        figure(detail?.repeated),
        figure(detail?.incomplete),
        (report?.processes ?? []).map(({ cpu_s }) => figure(cpu_s)).join(' + '),
        errorsText(countErrors([report?.errors ?? {}, detail?.wrong ?? {}]), failures),
      ];
    }),
  };
}

function mint({ mint }: Figures): Section {
  return {
    title: 'Minting, in one process and without a wire',
    notes: [],
    head: ['what', 'per second', 'note'],
    rows: mint.map(({ what, per_second, note }) => [what, figure(per_second), note ?? '']),
  };
}
