import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Harness } from './harness.ts';
import { runProgram } from './run-program.ts';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const WORKLOAD = join(import.meta.dirname, 'workload');
const BUILD_TIMEOUT_MS = 600_000;

export interface Images {
  /** The agent and its commands. */
  readonly agent: string;
  /** The programs of `workload/`, as `/workload` and `/app/test/e2e/workload/tls.ts`. */
  readonly workload: string;
}

/** What the manifests of the overlay name. */
export const AGENT_IMAGE = 'localhost/signet-e2e:1';
const WORKLOAD_IMAGE = 'localhost/signet-e2e-workload:1';

/** Builds the static Go program; resolves with its path, in a directory that is the caller's. */
export async function buildWorkload(into: string): Promise<string> {
  const program = join(into, 'workload');
  const flags = ['-trimpath', '-buildvcs=false', '-ldflags=-s -w'];
  await runProgram(['go', 'build', ...flags, '-o', program, '.'], {
    cwd: join(WORKLOAD, 'go'),
    env: { CGO_ENABLED: '0' },
    timeoutMs: BUILD_TIMEOUT_MS,
  });
  return program;
}

/** Images of this checkout (after `make build`) and of this machine's programs, for the harness, which can pull none. */
export async function buildImages(harness: Harness): Promise<Images> {
  const stage = mkdtempSync(join(tmpdir(), 'signet-e2e-'));
  try {
    const agent = await agentImage(harness, join(stage, 'agent'));
    const workload = await workloadImage(harness, join(stage, 'workload'));
    return { agent, workload };
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
}

async function agentImage(harness: Harness, stage: string): Promise<string> {
  const app = join(stage, 'app');
  for (const part of ['dist', 'proto', 'deploy/signet', 'package.json']) copy(part, app);
  installModules(app);
  link(app, '/bin/node', 'node_modules/.bin/node');
  link(stage, '/app/deploy/signet', 'usr/local/bin/signet');
  return harness.image(AGENT_IMAGE.replace('localhost/', ''), stage, [nodeBinary(), 'busybox'], ['/app/deploy/signet']);
}

async function workloadImage(harness: Harness, stage: string): Promise<string> {
  const app = join(stage, 'app');
  for (const part of ['src', 'proto', 'package.json', 'test/e2e/workload/tls.ts']) copy(part, app);
  installModules(app);
  await buildWorkload(stage);
  return harness.image(WORKLOAD_IMAGE.replace('localhost/', ''), stage, [nodeBinary(), 'busybox'], ['/workload']);
}

function copy(part: string, app: string): void {
  mkdirSync(dirname(join(app, part)), { recursive: true });
  cpSync(join(ROOT, part), join(app, part), { recursive: true });
}

function link(root: string, target: string, path: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  symlinkSync(target, join(root, path));
}

interface Lock {
  readonly packages: Readonly<Record<string, { readonly dev?: boolean; readonly devOptional?: boolean }>>;
}

/** What `npm ci --omit=dev` leaves, but for Node.js, which the image has once, as a program with its libraries. */
function installModules(app: string): void {
  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as Lock;
  for (const [path, { dev, devOptional }] of Object.entries(lock.packages)) {
    if (
      path === '' ||
      dev === true ||
      devOptional === true ||
      path.startsWith('node_modules/node/') ||
      path === 'node_modules/node'
    )
      continue;
    if (existsSync(join(ROOT, path)) && !existsSync(join(app, path))) copy(path, app);
  }
}

function nodeBinary(): string {
  return join(ROOT, 'node_modules/node/bin/node');
}
