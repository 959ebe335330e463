import { spawnSync } from 'node:child_process';
import { accessSync, constants, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { delimiter, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { CORE_SCHEMA, loadAll } from 'js-yaml';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));
export const KUSTOMIZE = join(ROOT, 'deploy/kubernetes');
export const CHART = join(ROOT, 'deploy/helm/signet');
export const EXAMPLES = join(ROOT, 'deploy/examples/kubernetes');

export interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  [field: string]: unknown;
}

/** The program's path, on PATH or beside the other tools that the tests build; undefined where it is missing. */
export function findProgram(name: string): string | undefined {
  const cache = process.env['SIGNET_CACHE'] ?? join(homedir(), '.cache/signet-tools');
  const places = [...(process.env['PATH'] ?? '').split(delimiter), join(cache, 'bin')];
  return places.map((place) => join(place, name)).find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end, at most for a minute. */
export function run(program: string, args: readonly string[], input = '', env: NodeJS.ProcessEnv = process.env): Ran {
  const limits = { timeout: 60_000, maxBuffer: 32 * 1_048_576 };
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', input, env, ...limits });
  return { status, stdout: stdout ?? '', stderr: error === undefined ? stderr : `${error.message}\n${stderr}` };
}

export function parse(text: string): Manifest[] {
  return (loadAll(text, { schema: CORE_SCHEMA }) as (Manifest | null)[]).filter((document) => document !== null);
}

export function readManifests(path: string): Manifest[] {
  return parse(readFileSync(path, 'utf8'));
}

/** What a kustomization in a directory of its own makes of the project's; `text` refers to it as `BASE`. */
export function kustomize(t: ExecutionContext, kubectl: string, text: string): Manifest[] {
  const directory = mkdtempSync(join(tmpdir(), 'signet-kustomize-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'kustomization.yaml'), text.replaceAll('BASE', relative(directory, KUSTOMIZE)));
  const { status, stdout, stderr } = run(kubectl, ['kustomize', directory]);
  t.is(status, 0, stderr);
  return parse(stdout);
}

/** The one object of this kind and name. */
export function find(t: ExecutionContext, manifests: readonly Manifest[], kind: string, name?: string): Manifest {
  const found = manifests.filter((one) => one.kind === kind && (name === undefined || one.metadata.name === name));
  const [only] = found;
  if (only === undefined || found.length > 1) {
    t.fail(`${found.length} objects ${kind} ${name ?? ''}`);
    throw new Error('unreachable');
  }
  return only;
}

/** `kind/namespace/name` of each, sorted. */
export function namesOf(manifests: readonly Manifest[]): string[] {
  return manifests.map(({ kind, metadata }) => [kind, metadata.namespace, metadata.name].filter(Boolean).join('/')).sort();
}

/** What `path` leads to, `a.b.0.c`; undefined where it leads nowhere. */
export function at(value: unknown, path: string): unknown {
  return path.split('.').reduce<unknown>((inner, key) => (inner as Record<string, unknown> | undefined)?.[key], value);
}

/** Every string in a manifest, under its path. */
export function* texts(value: unknown, path = ''): Generator<readonly [path: string, text: string]> {
  if (typeof value === 'string') yield [path, value];
  else if (typeof value === 'object' && value !== null) {
    for (const [key, inner] of Object.entries(value)) yield* texts(inner, path === '' ? key : `${path}.${key}`);
  }
}
