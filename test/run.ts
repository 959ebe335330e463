/**
 * Runs the tests in an order that lets them be honest: first the many small ones, side by side; then the hostile callers, alone,
 * since they measure what is left of the machine; last the published clients, whose toolchains build on all cores.
 *
 *     node test/run.ts [FILE ...]
 */
import { spawn } from 'node:child_process';
import { globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../', import.meta.url));
const AVA = fileURLToPath(new URL('../node_modules/.bin/ava', import.meta.url));
const PROGRESS_MS = 20_000;
/** No test takes this long, the building of toolchains included. AVA's own time-out ends its TAP reporter with an exception. */
const SILENCE_MS = 20 * 60_000;

interface Phase {
  readonly name: string;
  readonly files: readonly string[];
  readonly atOnce: number;
}

interface Tally {
  passed: number;
  failed: number;
  skipped: number;
}

interface Results {
  readonly rooms: Map<string, Tally>;
  readonly skipped: string[];
  readonly failed: string[];
  /** Files of which there was a result: `spiffe/id`. */
  readonly files: string[];
}

const results: Results = { rooms: new Map(), skipped: [], failed: [], files: [] };
const started = performance.now();
for (const phase of phasesOf(process.argv.slice(2))) await run(phase, results);
report(results);
process.exitCode = results.failed.length > 0 ? 1 : 0;

function phasesOf(chosen: readonly string[]): Phase[] {
  const files = chosen.length > 0 ? [...chosen] : globSync('test/**/*.test.ts', { cwd: ROOT }).sort();
  const isHostile = (file: string): boolean => file.includes('test/behaviour/hostile/');
  const isInterop = (file: string): boolean => file.includes('test/interop/');
  const phases = [
    { name: 'units and behaviour', files: files.filter((file) => !isHostile(file) && !isInterop(file)), atOnce: Math.max(availableParallelism(), 2) },
    { name: 'hostile callers', files: files.filter(isHostile), atOnce: 1 },
    { name: 'published SPIFFE clients', files: files.filter(isInterop), atOnce: 1 },
  ];
  return phases.filter((phase) => phase.files.length > 0);
}

async function run(phase: Phase, into: Results): Promise<void> {
  console.log(`\n── ${phase.name} (${phase.files.length} files)`);
  const child = spawn(process.execPath, [AVA, '--tap', '--timeout=2h', '--concurrency', String(phase.atOnce), ...phase.files], { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
  const before = totalOf(into);
  const progress = setInterval(() => console.log(`   ${seconds()} s: ${text(difference(totalOf(into), before))} so far`), PROGRESS_MS);
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve));
  const quiet = setTimeout(() => {
    fail(into, phase.name, `no test ended for ${SILENCE_MS / 60_000} minutes; those that hang are among: ${unheard(phase, into).join(', ')}`);
    child.kill('SIGKILL');
  }, SILENCE_MS);
  const prefix = unnamed(phase.files);
  await read(child.stdout, into, prefix, () => void quiet.refresh());
  const code = await exited;
  clearTimeout(quiet);
  clearInterval(progress);
  const done = difference(totalOf(into), before);
  // A test process that dies takes its results along: that is a failure even where no test has failed.
  if (code !== 0 && done.failed === 0) fail(into, phase.name, `the test runner ended with ${code}`);
  console.log(`   ${text(difference(totalOf(into), before))}`);
}

/** Reads TAP: `ok 1 - title # SKIP`, `not ok 2 - title` and the indented block of details after a failure. */
async function read(stdout: NodeJS.ReadableStream, into: Results, prefix: string, onLine: () => void): Promise<void> {
  let isInDetails = false;
  for await (const line of createInterface({ input: stdout })) {
    onLine();
    const match = /^(ok|not ok) \d+ - (.*?)( # SKIP.*)?$/.exec(line);
    if (match !== null) {
      const [, verdict, title = '', skip] = match;
      isInDetails = verdict === 'not ok';
      count(into, prefix + title, verdict === 'not ok' ? 'failed' : skip === undefined ? 'passed' : 'skipped');
    } else if (line.startsWith('  ') || line.startsWith('#')) {
      if (isInDetails || (line.startsWith('# ') && /exception|rejection|timed out|exited/i.test(line))) console.log(`   ${line}`);
    } else if (line !== '' && !/^(TAP version|\d+\.\.\d+|---)/.test(line)) {
      console.log(`   ${line}`);
    }
  }
}

function count(into: Results, title: string, verdict: keyof Tally): void {
  const file = title.split(' › ').slice(0, -1).join('/');
  if (into.files.at(-1) !== file) into.files.push(file);
  if (verdict === 'failed') return fail(into, title.split(' › ')[0] ?? title, title);
  if (verdict === 'skipped') into.skipped.push(title);
  tallyOf(into, title)[verdict] += 1;
}

function fail(into: Results, room: string, title: string): void {
  into.failed.push(title);
  tallyOf(into, room).failed += 1;
  console.log(`   FAILED  ${title}`);
}

/** What AVA leaves out of its titles: the folder that all files share, or the whole name of a single one. */
function unnamed(files: readonly string[]): string {
  const names = files.map((file) => file.replace(/^.*?\btest\//, '').replace(/\.test\.ts$/, '').split('/'));
  const [first = []] = names;
  const shared = names.length === 1 ? first : first.filter((part, at) => names.every((name) => name.length > at + 1 && name[at] === part));
  return shared.map((part) => `${part} › `).join('');
}

/** Files of which no result has come. */
function unheard(phase: Phase, into: Results): readonly string[] {
  return phase.files.filter((file) => !into.files.some((heard) => file.endsWith(`${heard}.test.ts`)));
}

/** AVA's titles begin with the file: `spiffe › id › a sentence`. */
function tallyOf(into: Results, title: string): Tally {
  const [room = title] = title.split(' › ');
  const tally = into.rooms.get(room) ?? { passed: 0, failed: 0, skipped: 0 };
  into.rooms.set(room, tally);
  return tally;
}

function report(all: Results): void {
  const width = Math.max(...[...all.rooms.keys()].map((room) => room.length), 4);
  console.log(`\n${'room'.padEnd(width)}  passed  failed  skipped`);
  for (const [room, tally] of [...all.rooms].sort()) {
    console.log(`${room.padEnd(width)}  ${String(tally.passed).padStart(6)}  ${String(tally.failed).padStart(6)}  ${String(tally.skipped).padStart(7)}`);
  }
  if (all.skipped.length > 0) console.log(`\nskipped:\n${all.skipped.map((title) => `  ${title}`).join('\n')}`);
  if (all.failed.length > 0) console.log(`\nfailed:\n${all.failed.map((title) => `  ${title}`).join('\n')}`);
  console.log(`\n${seconds()} s in all`);
  const { passed, failed, skipped } = totalOf(all);
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
}

function totalOf(all: Results): Tally {
  const total = { passed: 0, failed: 0, skipped: 0 };
  for (const tally of all.rooms.values()) for (const key of ['passed', 'failed', 'skipped'] as const) total[key] += tally[key];
  return total;
}

function difference(after: Tally, before: Tally): Tally {
  return { passed: after.passed - before.passed, failed: after.failed - before.failed, skipped: after.skipped - before.skipped };
}

function text(tally: Tally): string {
  return `${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped`;
}

function seconds(): string {
  return ((performance.now() - started) / 1000).toFixed(0);
}
