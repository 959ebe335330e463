/**
 * `node test/bench/bench.ts [--quick] [--out DIR]`: starts Signet as a real process, puts the list of plan.ts on it with the
 * client in load/, prints tables and writes one file of raw samples for each group. With BENCH_PEER=spire SPIRE runs beside it.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { messageOf, systemCode } from '../../src/errors.ts';
import { GROUPS, type Conditions, type Figures, type Group, type Result, type Rows } from './figures.ts';
import { runFairness } from './groups/fairness.ts';
import { runMemory, runPeaks } from './groups/memory.ts';
import { runMint } from './groups/mint.ts';
import { runRotation } from './groups/rotation.ts';
import { runSpeed } from './groups/speed.ts';
import { runStarts } from './groups/start.ts';
import { runRestarts, runStorms, runUsers } from './groups/storms.ts';
import { LoadClient } from './load-client.ts';
import { describeMachine, describeCommit } from './machine.ts';
import { planOf } from './plan.ts';
import { plainReport } from './report/document.ts';
import { keptResults, writeRendered } from './render.ts';
import { writeResult } from './results.ts';
import { Signet } from './signet.ts';
import { Spire } from './spire.ts';
import { PROJECT, type Subject } from './subject.ts';
import { faults } from './verdict.ts';
import type { Bench } from './groups/bench.ts';

const USAGE = `node test/bench/bench.ts [options]
  --quick            a smoke run of a minute or two: one short round of fewer loads
  --out DIR          where the results go (default bench/results; quick .cache/bench/quick); BENCHMARKS.md and the picture follow
  --only LIST        of ${GROUPS.join(',')}
  --rounds N         rounds of each speed load, 1 to 20 (default 3; quick 1)
  --seconds N        seconds of each timed load, 1 to 60 (default 3; quick 1)
  --without-signet   measure the peer only
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
  /** How the run can be repeated. */
  readonly command: string;
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

function parseOptions(argv: readonly string[]): Settings | 'help' {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      quick: { type: 'boolean', default: false },
      out: { type: 'string' },
      only: { type: 'string' },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      'without-signet': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return 'help';
  const peer = process.env['BENCH_PEER'] ?? '';
  if (peer !== '' && peer !== 'spire') throw new UsageError(`BENCH_PEER is ${peer}: allowed is spire`);
  // What does not change the figures is no part of how they are repeated.
  const shown = argv.filter((arg, i) => arg !== '--out' && argv[i - 1] !== '--out' && arg !== '--quick' && !arg.startsWith('--out='));
  const simple = `${values.quick ? 'QUICK=1 ' : ''}make bench`;
  return {
    quick: values.quick,
    out: resolve(values.out ?? (values.quick ? join(PROJECT, '.cache/bench/quick') : keptResults(PROJECT))),
    only: parseGroups(values.only),
    rounds: whole('--rounds', values.rounds, 1, 20),
    seconds: whole('--seconds', values.seconds, 1, 60),
    withSignet: !values['without-signet'],
    withSpire: peer === 'spire',
    port: whole('BENCH_PORT', process.env['BENCH_PORT'], 1024, 65_534) ?? 18_381,
    command: `${peer === '' ? '' : `BENCH_PEER=${peer} `}${simple}${shown.length > 0 ? ` BENCH_ARGS="${shown.join(' ')}"` : ''}`,
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

const RUNNERS: { readonly [G in Group]: (bench: Bench) => Promise<Rows[G][]> } = {
  mint: runMint,
  start: runStarts,
  speed: runSpeed,
  users: runUsers,
  restart: runRestarts,
  storms: runStorms,
  fairness: runFairness,
  memory: runMemory,
  peaks: runPeaks,
  rotation: runRotation,
};

type Common = Pick<Conditions, 'command' | 'commit' | 'quick' | 'machine' | 'subjects'>;

async function runGroup<G extends Group>(group: G, bench: Bench, common: Common, skipped: readonly string[]): Promise<Result<G>> {
  const date = new Date().toISOString();
  const before = loadavg()[0] ?? NaN;
  bench.skipped.length = 0;
  const rows = await RUNNERS[group](bench);
  return { group, ...common, date, loadAverage: { before, after: loadavg()[0] ?? NaN }, skipped: [...skipped, ...bench.skipped], rows };
}

/** Each group is written when it is done, so that a run that is called off has not been for nothing. */
async function measure(settings: Settings, signal: AbortSignal): Promise<Figures> {
  // Short, because a Unix socket's path has at most 107 bytes.
  const directory = mkdtempSync(join(tmpdir(), 'bench-'));
  // Callers of other users have to get to the client and to the sockets, and need to see nothing else.
  chmodSync(directory, 0o711);
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
    for (const reason of skipped) say(`left out: ${reason}`);
    const common: Common = {
      command: settings.command, commit: describeCommit(PROJECT), quick: settings.quick, machine: describeMachine(),
      subjects: subjects.map(({ name, settings: set }) => ({ name, settings: set })),
    };
    const bench: Bench = { plan: planOf(settings.quick, settings.rounds, settings.seconds), client, subjects, skipped: [], signal, say };
    const figures: Record<string, Result> = {};
    for (const group of GROUPS) {
      if (!settings.only.has(group)) continue;
      say(`── ${group}`);
      const result = await runGroup(group, bench, common, skipped);
      for (const reason of bench.skipped) say(`left out: ${reason}`);
      figures[group] = result;
      writeResult(settings.out, result);
    }
    return figures as Figures;
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
  const controller = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => controller.abort(new Error(`ended by ${name}`)));
  const figures = await measure(settings, controller.signal);
  writeRendered(settings.out);
  process.stdout.write(`${plainReport(figures)}\n\nWritten: ${relative(process.cwd(), settings.out)}\n`);
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
