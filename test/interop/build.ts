import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { access, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Argv, BuildStep, Row } from './rows.ts';
import { slots } from './slots.ts';

const HERE = import.meta.dirname;
const CACHE = join(HERE, '..', '..', '.cache', 'interop');
const STEP_TIMEOUT_MS = 15 * 60_000;
const PROGRESS_INTERVAL_MS = 30_000;
const LOG_TAIL_CHARACTERS = 4_000;

// Each build uses all cores; a second one fills the time in which the first one downloads.
const buildSlot = slots(2);
const builds = new Map<string, Promise<Argv>>();

/**
 * The argv of a row's program, built on first use into `.cache/interop/<folder>-<key>`, where the key is a hash of the
 * program's files. A rejection carries the end of the build's log.
 */
export function builtProgram(row: Row): Promise<Argv> {
  const known = builds.get(row.folder);
  if (known !== undefined) return known;
  const build = ensureBuilt(row);
  builds.set(row.folder, build);
  return build;
}

async function ensureBuilt(row: Row): Promise<Argv> {
  const source = join(HERE, row.folder);
  const name = `${row.folder}-${await keyOf(source, row)}`;
  const target = join(CACHE, name);
  const stamp = join(target, 'built');
  if (!(await exists(stamp))) {
    await buildSlot(async () => {
      await removeOlder(row.folder);
      await mkdir(target, { recursive: true });
      await reportingProgress(row.name, () => row.build(source, target, stepsIn(source, `${target}.log`)));
      await writeFile(stamp, '');
    });
  }
  return row.argv(source, target);
}

async function keyOf(source: string, row: Row): Promise<string> {
  const hash = createHash('sha256').update(row.build.toString());
  const entries = await readdir(source, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  for (const file of files.sort()) hash.update(`${file.slice(source.length)}\0`).update(await readFile(file));
  return hash.digest('hex').slice(0, 12);
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function removeOlder(folder: string): Promise<void> {
  await mkdir(CACHE, { recursive: true });
  const older = (await readdir(CACHE)).filter((name) => name.slice(0, name.lastIndexOf('-')) === folder);
  for (const name of older) await rm(join(CACHE, name), { recursive: true, force: true });
}

/** Long builds say that they live, so that neither people nor CI take them for hung. */
async function reportingProgress(name: string, build: () => Promise<void>): Promise<void> {
  const started = performance.now();
  const elapsed = (): string => `${Math.round((performance.now() - started) / 1000)} s`;
  console.log(`interop: building the program for ${name}`);
  const progress = setInterval(() => console.log(`interop: still building ${name} after ${elapsed()}`), PROGRESS_INTERVAL_MS);
  try {
    await build();
    console.log(`interop: built ${name} in ${elapsed()}`);
  } finally {
    clearInterval(progress);
  }
}

function stepsIn(source: string, logPath: string): BuildStep {
  return async (command, args, env) => {
    const log = openSync(logPath, 'a');
    try {
      await runStep(command, args, { cwd: source, env: { ...process.env, ...env }, stdio: ['ignore', log, log] });
    } catch (error) {
      const tail = (await readFile(logPath, 'utf8')).slice(-LOG_TAIL_CHARACTERS);
      throw new Error(`${command} ${args.join(' ')}: ${String(error)}; the end of ${logPath}:\n${tail}`);
    } finally {
      closeSync(log);
    }
  };
}

interface StepOptions {
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  readonly stdio: ['ignore', number, number];
}

function runStep(command: string, args: readonly string[], options: StepOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { ...options, timeout: STEP_TIMEOUT_MS });
    child.once('error', reject);
    child.once('exit', (code, signal) => (code === 0 ? resolve() : reject(new Error(`ended with ${signal ?? code}`))));
  });
}
