import { median, type Conditions, type Figures, type Group, type Result } from '../figures.ts';
import { findings } from './findings.ts';
import { memorySection, peaksSection, rotationSection } from './memory.ts';
import { measured, measuresOf, middle, OWN, peersOf, ratio, type Ratio } from './measures.ts';
import { fairnessSection, mintSection, speedSection, startSection } from './speed.ts';
import { restartSection, stormsSection, usersSection } from './storms.ts';
import { figure, markdownTable, plainTable } from './table.ts';
import type { Section } from './cells.ts';
import type { Sample } from '../load-client.ts';
import type { Results, Seen } from '../results.ts';

const SECTIONS: Readonly<Record<Group, (figures: Figures) => Section>> = {
  mint: mintSection,
  start: startSection,
  speed: speedSection,
  users: usersSection,
  restart: restartSection,
  storms: stormsSection,
  fairness: fairnessSection,
  memory: memorySection,
  peaks: peaksSection,
  rotation: rotationSection,
};

/** What a terminal shows after a run. */
export function plainReport(figures: Figures): string {
  const plain = ({ title, notes, head, rows }: Section): string => [title, plainTable(head, rows), ...notes].join('\n');
  const compared = comparison(figures);
  const groups = measured(figures).map((result) => SECTIONS[result.group](figures)).filter(({ rows }) => rows.length > 0);
  return [conditionsOf(figures).join('\n'), ...groups.map(plain), ...(compared === undefined ? [] : [plain(compared)])].join('\n\n');
}

/** The whole of BENCHMARKS.md. `picture` is the path of the SVG from there. */
export function markdownReport({ figures, seen }: Results, picture: string): string {
  const list = (lines: readonly string[]): string[] => (lines.length > 0 ? [lines.map((line) => `- ${line}`).join('\n')] : []);
  const compared = comparison(figures);
  const parts = [
    '<!-- Written by `make bench` from bench/results. `make check` fails when it was changed by hand. -->',
    '# Benchmarks',
    'The same load from one client, against Signet and against SPIRE in alternation where both were measured. Run it yourself: `make bench`, '
      + '`BENCH_PEER=spire make bench`, or `QUICK=1 make bench` for a hint in two minutes. The raw samples behind every figure here are in '
      + '[bench/results](bench/results).',
    ...list(conditionsOf(figures)),
  ];
  if (compared !== undefined) {
    parts.push(`## ${compared.title}`, ...list(findings(figures)), `![How many times as good as SPIRE](${picture})`);
    parts.push(markdownTable(compared.head, compared.rows), ...list(compared.notes));
  }
  for (const result of measured(figures)) {
    const { title, head, rows, notes } = SECTIONS[result.group](figures);
    if (rows.length > 0) parts.push(`## ${title}`, markdownTable(head, rows), ...list([...notes, ...conditionsIfOther(result, figures)]));
  }
  parts.push(...seen.flatMap(seenSection));
  return `${parts.join('\n\n')}\n`;
}

/** The table of all ratios; undefined when Signet was measured alone. */
function comparison(figures: Figures): Section | undefined {
  const peers = peersOf(figures);
  if (peers.length === 0) return undefined;
  const rows = measuresOf(figures).map((measure) => [
    measure.name,
    ...[OWN, ...peers].map((subject) => withUnit(middle(measure, subject), measure.unit)),
    ...peers.map((peer) => ratioText(ratio(measure, OWN, peer))),
  ]);
  return {
    title: 'Beside SPIRE',
    notes: [
      'Medians of the rounds. The last columns: how many times as good Signet is, also in times and memory; above 1 is better. '
        + 'Each is the median of the ratios of rounds that ran side by side, which need not be the ratio of the medians.',
      '"2 of 3": the other rounds were not answered in full by the other side and are left out. A dash: there was none that both answered.',
    ],
    head: ['what', OWN, ...peers, ...peers.map((peer) => `to ${peer}`)],
    rows,
  };
}

function ratioText(found: Ratio | undefined): string {
  if (found === undefined) return '–';
  return `${figure(found.value)}×${found.rounds < found.of ? ` (${found.rounds} of ${found.of})` : ''}`;
}

function withUnit(value: number | undefined, unit: string): string {
  return value === undefined ? '–' : `${figure(value)} ${unit}`.replace(' /s', '/s');
}

function sameRun(a: Conditions, b: Conditions): boolean {
  return a.commit === b.commit && a.date.slice(0, 10) === b.date.slice(0, 10) && a.quick === b.quick;
}

function ranAt({ date, commit, command, quick }: Conditions): string {
  const hint = quick ? ' A quick run: its figures are a hint, not a measurement.' : '';
  return `Measured ${date.slice(0, 10)} with \`${command}\` at commit ${commit}.${hint}`;
}

function conditionsIfOther(result: Result, figures: Figures): string[] {
  const [first] = measured(figures);
  return first === undefined || sameRun(first, result) ? [] : [ranAt(result)];
}

function conditionsOf(figures: Figures): string[] {
  const all = measured(figures);
  const [first] = all;
  if (first === undefined) return ['Nothing has been measured.'];
  const samples = all.flatMap(({ rows }) => rows.flatMap((row): readonly Sample[] => ('samples' in row ? row.samples : [])));
  const others = samples.map(({ busyness }) => busyness.others * 100);
  const { machine } = first;
  const loads = all.flatMap(({ loadAverage }) => [loadAverage.before, loadAverage.after]);
  const subjects = new Map(all.flatMap((result) => result.subjects.map(({ name, settings }) => [name, settings] as const)));
  const skipped = [...new Set(all.flatMap((result) => result.skipped))];
  return [
    ranAt(first),
    `Machine: ${machine.cpus} CPUs (${machine.model}), ${machine.memoryGiB} GiB, Linux ${machine.kernel}, Node ${machine.node}.`,
    'Client, agents and servers share it.',
    `Load average ${figure(Math.min(...loads))} to ${figure(Math.max(...loads))} between the groups, the load itself included.`,
    ...(others.length > 0
      ? [`Other processes took ${figure(median(others))} % of the CPUs in the median sample, ${figure(Math.max(...others))} % at most.`]
      : []),
    ...[...subjects].map(([name, settings]) => `${name}: ${settings}.`),
    ...skipped.map((reason) => `Left out: ${reason}.`),
  ];
}

function seenSection({ title, command, date, commit, conditions, tables }: Seen): string[] {
  return [
    `## ${title}`,
    `Seen by \`${command}\`, written down ${date} at ${commit}. ${conditions}`,
    ...tables.flatMap(({ intro, command: own, head, rows, note }) => [
      ...(intro === undefined ? [] : [own === undefined ? intro : `${intro} (\`${own}\`):`]),
      markdownTable(head, rows),
      ...(note === undefined ? [] : [note]),
    ]),
  ];
}
