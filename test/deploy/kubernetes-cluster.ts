import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { CORE_SCHEMA, load } from 'js-yaml';
import { reachCluster } from '../support/kubernetes-cluster.ts';
import { findProgram, run, type Manifest, type Ran } from './manifests.ts';

const kubectl = findProgram('kubectl');
const reached = await reachCluster();
if (typeof reached !== 'string') reached.client.close();

/** Whether the tests with a real API server can run, and why not. */
export const needsCluster = [
  kubectl !== undefined && typeof reached !== 'string',
  kubectl === undefined ? 'needs kubectl' : `needs a cluster: ${typeof reached === 'string' ? reached : ''}`,
] as const;

const KUBECONFIG = process.env['SIGNET_TEST_KUBECONFIG'] ?? '';

/** kubectl, as the administrator or with another kubeconfig. */
export function kubectlRun(args: readonly string[], input = '', kubeconfig = KUBECONFIG): Ran {
  return run(kubectl ?? '', ['--kubeconfig', kubeconfig, ...args], input);
}

/** The same. @throws Error with what kubectl said. */
export function kubectlOk(args: readonly string[], input = ''): string {
  const { status, stdout, stderr } = kubectlRun(args, input);
  if (status !== 0) throw new Error(`kubectl ${args.join(' ')}: ${stderr}`);
  return stdout;
}

const UNIQUE = /signet-deploy-[0-9a-f]{8}/;

/** A name that no other run has. */
export function unique(): string {
  return `signet-deploy-${randomBytes(4).toString('hex')}`;
}

const NAMESPACED: ReadonlySet<string> = new Set(['ServiceAccount', 'Role', 'RoleBinding', 'Pod', 'Lease', 'Secret']);

/** True for kinds that are in a namespace; kustomize gives one to some that are not. */
export function isNamespaced({ kind }: Manifest): boolean {
  return NAMESPACED.has(kind);
}

/**
 * Objects that exist while the test runs. The cluster may have the project's own installed: only what has a name from `unique` is
 * made, and only what was made is deleted.
 */
export function make(t: ExecutionContext, manifests: readonly Manifest[]): void {
  for (const one of manifests) {
    const { name, namespace = '' } = one.metadata;
    const place = isNamespaced(one) ? `${namespace}/${name}` : name;
    if (!UNIQUE.test(place)) throw new Error(`${one.kind} ${place} is not a name of this test's own`);
    const input = JSON.stringify(one);
    kubectlOk(['create', '-f', '-'], input);
    t.teardown(() => kubectlRun(['delete', '--ignore-not-found', '--wait=false', '-f', '-'], input));
  }
}

/** A namespace while the test runs, with the labels of the project's own. */
export function makeNamespace(t: ExecutionContext): string {
  const name = unique();
  const labels = { 'signet.dev/agents': 'true', 'pod-security.kubernetes.io/enforce': 'privileged' };
  make(t, [{ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } }]);
  return name;
}

/** What the API server says of objects that it does not store: one line for each. */
export function dryRun(manifests: readonly Manifest[], kubeconfig = KUBECONFIG): Ran {
  const input = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: manifests });
  return kubectlRun(['apply', '--dry-run=server', '-f', '-'], input, kubeconfig);
}

/** A kubeconfig for the same cluster with a bearer token and nothing else. */
export function kubeconfigWith(t: ExecutionContext, token: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'signet-kubeconfig-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const own = load(readFileSync(KUBECONFIG, 'utf8'), { schema: CORE_SCHEMA }) as Record<string, unknown>;
  const contexts = own['contexts'] as { name: string; context: { cluster: string } }[];
  const cluster = contexts.find(({ name }) => name === own['current-context'])?.context.cluster;
  const path = join(directory, 'kubeconfig');
  const config = {
    ...own,
    'current-context': 'test',
    contexts: [{ name: 'test', context: { cluster, user: 'test' } }],
    users: [{ name: 'test', user: { token } }],
  };
  writeFileSync(path, JSON.stringify(config), { mode: 0o600 });
  return path;
}

/** Calls until it says true, for at most 20 s: a new admission policy counts a moment after it was made. */
export async function eventually(t: ExecutionContext, what: string, isSo: () => boolean): Promise<void> {
  const end = Date.now() + 20_000;
  while (!isSo()) {
    if (Date.now() > end) return t.fail(`not within 20 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
