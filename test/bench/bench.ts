/**
 * `node test/bench/bench.ts [--quick] [--out DIR]`: starts Signet as a real process, puts the list of plan.ts on it with the
 * client in load/, prints tables and writes DIR/figures.json and DIR/benchmarks.md. With BENCH_PEER=spire SPIRE runs beside it.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { messageOf, systemCode } from '../../src/errors.ts';
import { GROUPS, runChurn, runMemory, runRotation, runSpeed, runStarts, type Bench, type Group } from './groups.ts';
import { LoadClient } from './load-client.ts';
import { describeMachine } from './machine.ts';
import { planOf } from './plan.ts';
import { runToEnd } from './process.ts';
import { markdownSection, plainReport } from './report.ts';
import { PROJECT, Signet, Spire, type Subject } from './subject.ts';
import { faults } from './verdict.ts';
import type { Figures, MintRow } from './figures.ts';

const USAGE = `node test/bench/bench.ts [options]
  --quick            a smoke run of a few minutes: one short round of fewer loads
  --out DIR          where figures.json and benchmarks.md go (default .cache/bench/out)
  --only LIST        of ${GROUPS.join(',')}
  --rounds N         rounds of each speed load, 1 to 20 (default 3; quick 1)
  --seconds N        seconds of each timed load, 1 to 60 (default 5; quick 1)
  --without-signet   measure the peer only
  --render FILE      print the Markdown section of a figures.json and do nothing else
Environment:
  BENCH_PEER=spire   measure SPIRE beside Signet
  SPIRE_HARNESS      directory of its start.sh, prepare-agent.sh and stop.sh (default ../shared/spire)
  BENCH_PORT         first of two TCP ports for its servers (default 18381)
Exit codes: 0 measured, 1 Signet gave wrong answers, leaked or could not be measured, 2 usage.`;

interface Settings {
  readonly quick: boolean;
  readonly out: string;
  readonly only: ReadonlySet<Group>;
  readonly rounds: number | undefined;
  readonly seconds: number | undefined;
  readonly withSignet: boolean;
  readonly withSpire: boolean;
  readonly port: number;
}

/** The faults of the command line and the environment, for exit code 2. */
class UsageError extends Error {}

function whole(name: string, text: string | undefined, least: number, most: number): number | undefined {
  if (text === undefined || text === '') return undefined;
  const value = Number(text);
  const allowed = Number.isInteger(value) && value >= least && value <= most;
  if (!allowed) throw new UsageError(`${name} is ${text}: allowed is ${least} to ${most}`);
  return value;
}

function parseGroups(text: string | undefined): Set<Group> {
  if (text === undefined) return new Set(GROUPS);
  const known = new Map<string, Group>(GROUPS.map((group) => [group, group]));
  return new Set(text.split(',').map((name) => {
    const group = known.get(name);
    if (group === undefined) throw new UsageError(`--only ${name}: allowed are ${GROUPS.join(', ')}`);
    return group;
  }));
}

function parseOptions(argv: readonly string[]): Settings | { readonly render: string } | 'help' {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      quick: { type: 'boolean', default: false },
      out: { type: 'string', default: join(PROJECT, '.cache/bench/out') },
      only: { type: 'string' },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      'without-signet': { type: 'boolean', default: false },
      render: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return 'help';
  if (values.render !== undefined) return { render: values.render };
  const peer = process.env['BENCH_PEER'] ?? '';
  if (peer !== '' && peer !== 'spire') throw new UsageError(`BENCH_PEER is ${peer}: allowed is spire`);
  return {
    quick: values.quick,
    out: resolve(values.out),
    only: parseGroups(values.only),
    rounds: whole('--rounds', values.rounds, 1, 20),
    seconds: whole('--seconds', values.seconds, 1, 60),
    withSignet: !values['without-signet'],
    withSpire: peer === 'spire',
    port: whole('BENCH_PORT', process.env['BENCH_PORT'], 1024, 65_534) ?? 18_381,
  };
}

function chooseSubjects(
  settings: Settings, directory: string, client: LoadClient, skipped: string[], signal: AbortSignal,
): Subject[] {
  const subjects: Subject[] = [];
  if (settings.withSignet) {
    const missing = Signet.missing();
    if (missing !== undefined) throw new Error(`Signet cannot be started: ${missing}`);
    subjects.push(new Signet(join(directory, 'signet'), client));
  } else {
    skipped.push('Signet: --without-signet');
  }
  const missing = settings.withSpire ? Spire.missing() : 'BENCH_PEER=spire not set';
  if (missing !== undefined) {
    skipped.push(`SPIRE: ${missing}`);
    return subjects;
  }
  subjects.push(new Spire(join(directory, 'spire'), client, false, settings.port, signal));
  subjects.push(new Spire(join(directory, 'tuned'), client, true, settings.port + 1, signal));
  return subjects;
}

/**
 * The slot for minting without a wire: mint.ts, where it exists, is run by itself and prints one JSON object
 * `{ "rows": [{ "what": string, "per_second": number, "note"?: string }] }`.
 */
async function runMint(bench: Bench): Promise<void> {
  const script = join(import.meta.dirname, 'mint.ts');
  if (!existsSync(script)) {
    bench.figures.skipped.push('mint rate: there is no test/bench/mint.ts');
    return;
  }
  const options = { cwd: PROJECT, timeoutMs: 300_000, signal: bench.signal };
  const { code, output, errors } = await runToEnd(process.execPath, [script], options);
  if (code !== 0) throw new Error(`mint.ts: ${errors.trim()}`);
  const { rows } = JSON.parse(output) as { rows: MintRow[] };
  bench.figures.mint.push(...rows);
}

const RUNNERS: Readonly<Record<Group, (bench: Bench) => Promise<void>>> = {
  start: runStarts,
  speed: runSpeed,
  memory: runMemory,
  churn: runChurn,
  rotation: runRotation,
  mint: runMint,
};

async function measure(settings: Settings, signal: AbortSignal): Promise<Figures> {
  // Short, because a Unix socket's path has at most 107 bytes.
  const directory = mkdtempSync(join(tmpdir(), 'bench-'));
  const begin = performance.now();
  const say = (line: string): void => {
    const seconds = ((performance.now() - begin) / 1000).toFixed(0).padStart(4);
    process.stderr.write(`[${seconds} s] ${line}\n`);
  };
  let subjects: Subject[] = [];
  try {
    const client = await LoadClient.build(directory, signal);
    const skipped: string[] = [];
    subjects = chooseSubjects(settings, directory, client, skipped, signal);
    const loadAverage = { before: loadavg()[0] ?? NaN, after: NaN };
    const figures: Figures = {
      when: new Date().toISOString(), quick: settings.quick, machine: describeMachine(), loadAverage, skipped,
      subjects: subjects.map(({ name, settings }) => ({ name, settings })),
      start: [], speed: [], memory: [], churn: [], rotation: [], mint: [],
    };
    const plan = planOf(settings.quick, settings.rounds, settings.seconds);
    const bench: Bench = { plan, client, subjects, figures, signal, say };
    for (const group of GROUPS) if (settings.only.has(group)) await RUNNERS[group](bench);
    loadAverage.after = loadavg()[0] ?? NaN;
    return figures;
  } finally {
    await Promise.allSettled(subjects.map((subject) => subject.stop()));
    rmSync(directory, { recursive: true, force: true });
  }
}

async function main(): Promise<number> {
  const settings = parseOptions(process.argv.slice(2));
  if (settings === 'help') {
    process.stdout.write(`${USAGE}\n`);
    return 0;
  }
  if ('render' in settings) {
    process.stdout.write(markdownSection(JSON.parse(readFileSync(settings.render, 'utf8')) as Figures));
    return 0;
  }
  const controller = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => controller.abort(new Error(`ended by ${name}`)));
  const figures = await measure(settings, controller.signal);
  mkdirSync(settings.out, { recursive: true });
  writeFileSync(join(settings.out, 'figures.json'), `${JSON.stringify(figures, undefined, 2)}\n`);
  writeFileSync(join(settings.out, 'benchmarks.md'), markdownSection(figures));
  process.stdout.write(`${plainReport(figures)}\n`);
  const wrong = faults(figures, 'Signet');
  for (const fault of wrong) process.stderr.write(`Signet: ${fault}\n`);
  return wrong.length > 0 ? 1 : 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  const usage = error instanceof UsageError || systemCode(error)?.startsWith('ERR_PARSE_ARGS') === true;
  process.stderr.write(`bench: ${messageOf(error)}\n${usage ? `${USAGE}\n` : ''}`);
  process.exitCode = usage ? 2 : 1;
}
