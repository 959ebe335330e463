import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { CORE_SCHEMA, loadAll } from 'js-yaml';
import { Harness } from '../e2e/harness.ts';
import { runProgram } from '../e2e/run-program.ts';
import { eventually, pause } from '../e2e/wait.ts';
import { certificatePem, keyPem, testCa, type TestCa } from '../support/authorities.ts';
import type { PreparedVault } from '../upstream/vault-tools.ts';
import { agentMissing, ROOT } from './missing.ts';
import type { Tier } from './vault.ts';

const CLUSTER = process.env['SIGNET_HARNESS'] ?? join(ROOT, '../shared/k8s');
const SCRIPTS = join(CLUSTER, '../upstreams');
const CACHE = process.env['SIGNET_CACHE'] ?? join(homedir(), '.cache', 'signet-tools');
const CONTROLLER = join(CACHE, 'bin', 'cm-controller');
const NAMESPACE = 'signet-system';
const NODE = 'node-a';
/** Of what the agents' kustomization makes, all but what runs them. */
const NEEDED = new Set(['Namespace', 'ServiceAccount', 'Role', 'RoleBinding', 'ClusterRole', 'ClusterRoleBinding', 'ValidatingAdmissionPolicy', 'ValidatingAdmissionPolicyBinding', 'CustomResourceDefinition']);
const TEN_YEARS_MS = 10 * 365 * 86_400_000;

/** Why there is no cert-manager to run against; undefined when there is one. */
export function certManagerMissing(): string | undefined {
  if (agentMissing() !== undefined) return agentMissing();
  if (!existsSync(join(CLUSTER, 'env.sh'))) return `there is no harness in ${CLUSTER}`;
  if (process.geteuid?.() !== 0) return 'the harness of the API server needs root';
  return existsSync(CONTROLLER) ? undefined : `no cert-manager controller at ${CONTROLLER}: run ${join(SCRIPTS, 'build.sh')} certmanager`;
}

export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly [field: string]: unknown;
}

/** cert-manager's controller on a real API server, with the objects of deploy/kubernetes and an Issuer `signet` as deploy/cert-manager has it. */
export class CertManager implements AsyncDisposable {
  readonly #harness: Harness;
  readonly #directory: string;
  readonly #isOwn: boolean;
  readonly #kubectl: string;

  private constructor(harness: Harness, directory: string, isOwn: boolean) {
    this.#harness = harness;
    this.#directory = directory;
    this.#isOwn = isOwn;
    this.#kubectl = join(directory, 'kubectl');
    writeFileSync(this.#kubectl, `#!/bin/sh\nexec "${harness.names.program}" kubectl "$@"\n`, { mode: 0o755 });
  }

  /** A cluster that is up already is used, and left. */
  static async open(): Promise<CertManager> {
    const harness = await Harness.find(CLUSTER);
    if (typeof harness === 'string') throw new Error(harness);
    const isOwn = !harness.isUp;
    if (isOwn) await runProgram([join(harness.directory, 'up.sh')], { env: { MODE: 'api' }, timeoutMs: 180_000 });
    const manager = new CertManager(harness, mkdtempSync(join(tmpdir(), 'signet-cert-manager-')), isOwn);
    try {
      await manager.startController();
      await manager.#prepare();
    } catch (error) {
      await manager[Symbol.asyncDispose]();
      throw error;
    }
    return manager;
  }

  async kubectl(...words: readonly string[]): Promise<string> {
    return runProgram([this.#kubectl, ...words], { env: { KUBECONFIG: this.#harness.names.kubeconfig } });
  }

  async apply(...objects: readonly object[]): Promise<void> {
    const input = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
    await runProgram([this.#kubectl, 'apply', '-f', '-'], { env: { KUBECONFIG: this.#harness.names.kubeconfig }, input });
  }

  async startController(approve = true): Promise<void> {
    const env = { KUBECONFIG: this.#harness.names.kubeconfig, KUBECTL: this.#kubectl, CM_APPROVE: String(approve) };
    await runProgram([join(SCRIPTS, 'cm-up.sh'), join(this.#directory, 'cm')], { env });
  }

  async stopController(): Promise<void> {
    await runProgram([join(SCRIPTS, 'cm-down.sh'), join(this.#directory, 'cm')]);
  }

  /** What the Issuer `signet` signs with from now on. */
  async sign(ca: TestCa): Promise<void> {
    const data = { 'tls.crt': base64(certificatePem(ca.certificate)), 'tls.key': base64(keyPem(ca)) };
    await this.apply({ apiVersion: 'v1', kind: 'Secret', type: 'kubernetes.io/tls', metadata: { name: 'signet-root', namespace: NAMESPACE }, data });
    await this.issuer({ ca: { secretName: 'signet-root' } });
  }

  async issuer(spec: object): Promise<void> {
    await this.apply({ apiVersion: 'cert-manager.io/v1', kind: 'Issuer', metadata: { name: 'signet', namespace: NAMESPACE }, spec });
    await this.kubectl('-n', NAMESPACE, 'wait', '--for=condition=Ready', 'issuer/signet', '--timeout=30s');
  }

  /** Denies every request that nobody has answered yet, until the answer is called. */
  deny(message: string): () => Promise<void> {
    let isOver = false;
    const condition = { type: 'Denied', status: 'True', reason: 'Tests', message };
    const patch = JSON.stringify({ status: { conditions: [condition] } });
    const run = async (): Promise<void> => {
      while (!isOver) {
        for (const name of await this.requests()) {
          const known = await this.kubectl('-n', NAMESPACE, 'get', name, '-o', 'jsonpath={.status.conditions}').catch(() => 'gone');
          if (known === '') await this.kubectl('-n', NAMESPACE, 'patch', name, '--subresource=status', '--type=merge', '-p', patch).catch(() => undefined);
        }
        await pause(200);
      }
    };
    const running = run();
    return async () => {
      isOver = true;
      await running;
    };
  }

  /** Creates `object` as another user. */
  async createAs(user: string, object: object): Promise<void> {
    await runProgram([this.#kubectl, `--as=${user}`, 'create', '-f', '-'], { env: { KUBECONFIG: this.#harness.names.kubeconfig }, input: JSON.stringify(object) });
  }

  /** What the agents believe from now on; DER. */
  async believe(...roots: readonly Buffer[]): Promise<void> {
    await this.apply({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'signet-roots', namespace: NAMESPACE }, data: { 'ca.crt': certificatePem(...roots) } });
  }

  /** Names of the CertificateRequests that are there. */
  async requests(): Promise<readonly string[]> {
    return (await this.kubectl('-n', NAMESPACE, 'get', 'certificaterequests', '-o', 'name')).split('\n').filter(Boolean);
  }

  /** The kubeconfig of an agent: the token of its service account, bound to a node. It is written again each time. */
  async kubeconfig(): Promise<{ readonly path: string; readonly tokenFile: string }> {
    const [path, tokenFile] = [join(this.#directory, 'agent.kubeconfig'), join(this.#directory, 'token')];
    const bound = ['--bound-object-kind', 'Node', '--bound-object-name', NODE, '--bound-object-uid', (await this.kubectl('get', 'node', NODE, '-o', 'jsonpath={.metadata.uid}')).trim()];
    writeFileSync(tokenFile, (await this.kubectl('-n', NAMESPACE, 'create', 'token', 'signet', '--duration', '4h', ...bound)).trim(), { mode: 0o600 });
    const { state, nodeAddress } = this.#harness.names;
    const cluster = { server: `https://${nodeAddress}:6443`, 'certificate-authority': join(state, 'pki', 'ca.crt') };
    const config = { clusters: [{ name: 'c', cluster }], users: [{ name: 'u', user: { tokenFile } }], contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }], 'current-context': 'x' };
    writeFileSync(path, JSON.stringify({ apiVersion: 'v1', kind: 'Config', ...config }));
    return { path, tokenFile };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopController();
    if (this.#isOwn) await this.#harness.down();
    else await this.kubectl('-n', NAMESPACE, 'delete', 'certificaterequests', '--all');
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #prepare(): Promise<void> {
    const overlay = join(this.#directory, 'overlay');
    const base = join(ROOT, 'deploy', 'kubernetes');
    await runProgram(['mkdir', '-p', overlay]);
    // A kustomization names its parts by relative paths.
    const up = '../'.repeat(overlay.split('/').length - 1);
    writeFileSync(join(overlay, 'kustomization.yaml'), JSON.stringify({ resources: [`${up}${base.slice(1)}`], components: [`${up}${base.slice(1)}/components/cert-manager`] }));
    const text = await runProgram([this.#kubectl, 'kustomize', '--load-restrictor=LoadRestrictionsNone', overlay]);
    const all = (loadAll(text, { schema: CORE_SCHEMA }) as (KubernetesObject | null)[]).filter((one) => one !== null);
    const rank = ({ kind }: KubernetesObject): number => (kind === 'Namespace' ? 0 : 1);
    await this.apply(...all.filter(({ kind }) => NEEDED.has(kind)).sort((a, b) => rank(a) - rank(b)));
    await this.apply({ apiVersion: 'v1', kind: 'Node', metadata: { name: NODE } });
    await eventually('the service account is there', 20_000, async () => this.kubectl('-n', NAMESPACE, 'get', 'serviceaccount', 'signet').catch(() => undefined));
  }
}

/** A root of today. */
export function rootNow(name: string): Promise<TestCa> {
  const now = Date.now();
  return testCa({ name: `O=Signet tests, CN=${name}`, from: now - 3_600_000, to: now + TEN_YEARS_MS });
}

/** The part of an agent's configuration that says who signs. `vault`: who signs tokens, where the node does not. */
export function underCertManager(kubeconfig: string, tier: Tier, vault?: PreparedVault): Readonly<Record<string, unknown>> {
  const certManager = { namespace: NAMESPACE, issuer: { name: 'signet' }, rootsConfigMap: { name: 'signet-roots' } };
  const authority = { type: 'cert-manager', tier, ttl: '1h', acceptUnconstrainedCA: true, certManager };
  const kubernetes = { kubeconfig, nodeName: NODE };
  if (vault === undefined) return { kubernetes, authority, jwt: { ttl: '60s' } };
  const { server, tokenFile } = vault;
  const section = { address: server.address.href, auth: { method: 'token', tokenFile } };
  return { kubernetes, authority: { ...authority, vault: section }, jwt: { ttl: '60s', signer: 'transit', transit: { key: 'signet-jwt' } } };
}

/** Opens all that a step needs: the root that signs and is believed, and how an agent gets there. */
export async function certManagerFor(started: AsyncDisposableStack): Promise<{ manager: CertManager; root: TestCa; kubeconfig: string; tokenFile: string }> {
  const manager = started.use(await CertManager.open());
  const root = await rootNow('first root');
  const { path, tokenFile } = await manager.kubeconfig();
  await manager.believe(root.certificate);
  await manager.sign(root);
  return { manager, root, kubeconfig: path, tokenFile };
}

function base64(text: string): string {
  return Buffer.from(text).toString('base64');
}
