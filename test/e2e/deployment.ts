import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { loadAll } from 'js-yaml';
import { AGENT_IMAGE, ROOT, type Images } from './images.ts';
import { listOf, type KubeObject, type Kubectl } from './kubectl.ts';
import { runProgram } from './run-program.ts';
import { eventually } from './wait.ts';
import { BLUE, RED, SYSTEM, TRUST_DOMAIN } from './world.ts';

const OVERLAY = join(import.meta.dirname, 'overlay');
const ROLLOUT_SECONDS = 120;
const CLEANUP_TIMEOUT_MS = 60_000;
/** Below the node's /run. */
const HOST_DIRECTORIES = ['signet', 'signet-e2e', 'signet-e2e-second'];
const CRD = 'CustomResourceDefinition';

/** The project's own manifests and the namespaces of the tests, and what it takes to remove every trace of them. */
export class Deployment {
  readonly #kubectl: Kubectl;
  readonly #images: Images;
  readonly #node: string;
  #made: readonly KubeObject[] = [];

  constructor(kubectl: Kubectl, images: Images, node: string) {
    this.#kubectl = kubectl;
    this.#images = images;
    this.#node = node;
  }

  /** The reason not to touch this cluster, if there is one. */
  async obstacle(): Promise<string | undefined> {
    for (const namespace of [SYSTEM, RED, BLUE]) {
      if ((await this.#kubectl.run(['get', 'namespace', namespace, '--ignore-not-found', '-o', 'name'])) !== '') {
        return `the namespace ${namespace} is there already: the tests would replace and then remove what is in it`;
      }
    }
    return undefined;
  }

  async apply(): Promise<void> {
    const rendered = await this.#rendered();
    const wanted = [...rendered, ...namespaces()];
    this.#made = await this.#missing(wanted);
    await this.#createCa();
    const definitions = rendered.filter((object) => object.kind === CRD);
    await this.#kubectl.run(['apply', '-f', '-'], listOf(definitions));
    await this.#kubectl.run(['wait', '--for=condition=Established', '--timeout=30s', '-f', '-'], listOf(definitions));
    await this.#kubectl.run(['apply', '-f', '-'], listOf(wanted.filter((object) => object.kind !== CRD)));
  }

  async rolledOut(): Promise<void> {
    await this.#kubectl.run(
      ['rollout', 'status', '-n', SYSTEM, 'daemonset/signet', `--timeout=${ROLLOUT_SECONDS}s`],
      undefined,
      2 * ROLLOUT_SECONDS * 1000,
    );
  }

  /** Removes what `apply` has made, but nothing that was there before, and the agent's directories on the node. */
  async remove(): Promise<void> {
    if (this.#made.length === 0) return;
    await this.#kubectl
      .run(['delete', 'daemonset', '-n', SYSTEM, '--all', '--wait=true', '--timeout=60s', '--cascade=foreground'])
      .catch(() => undefined);
    await this.#cleanNode();
    await this.#kubectl.run(['delete', 'nodereports.signet.dev', this.#node, '--ignore-not-found']).catch(() => undefined);
    await this.#kubectl.run(
      ['delete', '--ignore-not-found', '--wait=true', '--timeout=120s', '-f', '-'],
      listOf(this.#made),
      180_000,
    );
  }

  async #rendered(): Promise<readonly KubeObject[]> {
    const yaml = (await this.#kubectl.run(['kustomize', OVERLAY])).replaceAll(AGENT_IMAGE, this.#images.agent);
    return loadAll(yaml) as KubeObject[];
  }

  async #missing(wanted: readonly KubeObject[]): Promise<readonly KubeObject[]> {
    // Kinds whose definition is not there yet cannot be asked for; the tests make none before it is.
    const text = await this.#kubectl.run(['get', '--ignore-not-found', '-o', 'json', '-f', '-'], listOf(wanted));
    const there = text.trim() === '' ? [] : parseDocuments(text);
    const keys = new Set(there.map(keyOf));
    return wanted.filter((object) => !keys.has(keyOf(object)));
  }

  async #createCa(): Promise<void> {
    await runProgram(['sh', join(ROOT, 'deploy/kubernetes/create-ca.sh'), TRUST_DOMAIN], { env: this.#kubectl.environment });
  }

  /** By a pod, since a cluster need not be on this machine. */
  async #cleanNode(): Promise<void> {
    const name = 'signet-e2e-clean';
    const remove = `cd /host && rm -rf ${HOST_DIRECTORIES.join(' ')}`;
    await this.#kubectl.apply({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: RED },
      spec: {
        nodeName: this.#node,
        restartPolicy: 'Never',
        terminationGracePeriodSeconds: 0,
        automountServiceAccountToken: false,
        containers: [
          {
            name: 'main',
            image: this.#images.workload,
            command: ['sh', '-c', remove],
            volumeMounts: [{ name: 'run', mountPath: '/host' }],
          },
        ],
        volumes: [{ name: 'run', hostPath: { path: '/run' } }],
      },
    });
    await eventually("the agent's directories are removed from the node", CLEANUP_TIMEOUT_MS, async () =>
      (await this.#kubectl.pod(RED, name)).status.phase === 'Succeeded' ? true : undefined,
    );
  }
}

function namespaces(): readonly KubeObject[] {
  const account = (namespace: string, name: string): KubeObject => ({
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name, namespace },
  });
  const namespace = (name: string): KubeObject => ({
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name, labels: { 'pod-security.kubernetes.io/enforce': 'privileged' } },
  });
  return [namespace(RED), namespace(BLUE), account(RED, 'alpha'), account(RED, 'beta'), account(BLUE, 'alpha')];
}

/** kubectl prints a List, one object, or several objects one after the other. */
function parseDocuments(text: string): readonly KubeObject[] {
  const documents = text
    .split(/^(?=\{$)/m)
    .filter((part) => part.trim() !== '')
    .map((part) => JSON.parse(part) as KubeObject & { items?: KubeObject[] });
  return documents.flatMap((document) => document.items ?? [document]);
}

function keyOf({ kind, metadata }: KubeObject): string {
  return `${kind}/${metadata.namespace ?? ''}/${metadata.name}`;
}

/** True when the checkout was built: the image holds what `make build` makes. */
export function isBuilt(): boolean {
  return existsSync(join(ROOT, 'dist/main.js'));
}
