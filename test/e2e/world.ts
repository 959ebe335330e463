import type { Harness } from './harness.ts';
import type { Images } from './images.ts';
import type { KubeObject, Kubectl, Pod } from './kubectl.ts';
import { memoryOf } from './memory.ts';
import { ProgramError } from './run-program.ts';
import { eventually } from './wait.ts';
import { eventOf, idsOf, lineOf, linesOf, podOf, type Line, type PodPlan } from './workloads.ts';

export const TRUST_DOMAIN = 'e2e.test';
export const SYSTEM = 'signet-system';
export const RED = 'signet-e2e-red';
export const BLUE = 'signet-e2e-blue';
export const AGENTS = 'app.kubernetes.io/name=signet,app.kubernetes.io/component=agent';
export const NEEDS_HARNESS = 'only on the harness: it restarts or replaces parts of the node';

/** With the group: another kind of that name may be in the cluster, and kubectl would take either. */
export const CLUSTER_SPIFFE_IDS = 'clusterspiffeids.spire.spiffe.io';

/** The exit code of `signet explain` for a process without an identity. */
const NO_IDENTITY = 4;
const READY_TIMEOUT_MS = 90_000;
const POD_END_TIMEOUT_MS = 90_000;

/** The watchers that live from the first step to the last: whatever happens to the agent, they must not notice. */
export const CAST: readonly Required<Pick<PodPlan, 'namespace' | 'name' | 'serviceAccount'>>[] = [
  { namespace: RED, name: 'alpha-1', serviceAccount: 'alpha' },
  { namespace: RED, name: 'alpha-2', serviceAccount: 'alpha' },
  { namespace: RED, name: 'beta-1', serviceAccount: 'beta' },
  { namespace: BLUE, name: 'alpha-1', serviceAccount: 'alpha' },
];

export interface Named {
  readonly namespace: string;
  readonly name: string;
}

/** The cluster with the agent in it, in words of the steps. */
export class World {
  readonly kubectl: Kubectl;
  readonly images: Images;
  /** The node's own parts are in our hands only there. */
  readonly harness: Harness | undefined;
  readonly node: string;

  constructor(kubectl: Kubectl, images: Images, harness: Harness | undefined, node: string) {
    this.kubectl = kubectl;
    this.images = images;
    this.harness = harness;
    this.node = node;
  }

  /** `spiffe://e2e.test/ns/<namespace>/sa/<service account>`, what the default rule gives. */
  idOf(namespace: string, serviceAccount: string): string {
    return `spiffe://${TRUST_DOMAIN}/ns/${namespace}/sa/${serviceAccount}`;
  }

  /** Makes pods on the node that the tests look at. */
  async start(...plans: readonly PodPlan[]): Promise<void> {
    const pods = plans.map((plan) => podOf(this.images, { ...plan, spec: { nodeName: this.node, ...plan.spec } }));
    await this.kubectl.apply(...pods);
  }

  remove(...pods: readonly Named[]): Promise<unknown> {
    const namespaces = Map.groupBy(pods, (pod) => pod.namespace);
    return Promise.all(
      [...namespaces].map(([namespace, those]) => this.kubectl.remove('pod', namespace, ...those.map((pod) => pod.name))),
    );
  }

  /** Runs a pod to the first line `event`, and removes it. */
  async ask(plan: PodPlan, event: string): Promise<Line> {
    await this.start(plan);
    try {
      return await eventOf(this.kubectl, plan, event);
    } finally {
      await this.remove(plan);
    }
  }

  /** Like `ask`, to the pod's end; all its lines. */
  async runToEnd(...plans: readonly PodPlan[]): Promise<readonly (readonly Line[])[]> {
    await this.start(...plans);
    try {
      return await Promise.all(plans.map((plan) => this.#linesAtEnd(plan)));
    } finally {
      await this.remove(...plans);
    }
  }

  async #linesAtEnd({ namespace, name }: Named): Promise<readonly Line[]> {
    await eventually(`${namespace}/${name} ends`, POD_END_TIMEOUT_MS, async () => {
      const { phase } = (await this.kubectl.pod(namespace, name)).status;
      return phase === 'Succeeded' || phase === 'Failed' ? true : undefined;
    });
    return linesOf(this.kubectl, namespace, name);
  }

  /**
   * The next update of each watcher of the cast that was printed after the moment `since` (Unix time in milliseconds), and that
   * `wanted` accepts.
   */
  updatesSince(since: number, timeoutMs?: number, wanted: (line: Line) => boolean = () => true): Promise<readonly Line[]> {
    return Promise.all(
      CAST.map((pod) =>
        lineOf(this.kubectl, pod, (line) => line.event === 'update' && line.t > since && wanted(line), 'an update', timeoutMs),
      ),
    );
  }

  /**
   * @throws Error that says which watcher of the cast was told something else than its own ID, or something that its bundle does
   *   not verify, or was restarted
   */
  async assertCastKeptItsIds(): Promise<void> {
    for (const pod of CAST) {
      const { containerStatuses = [] } = (await this.kubectl.pod(pod.namespace, pod.name)).status;
      // The log of a container that ended is not asked for.
      if (containerStatuses.some(({ restartCount }) => restartCount > 0))
        throw new Error(`${pod.namespace}/${pod.name} was restarted`);
      const own = this.idOf(pod.namespace, pod.serviceAccount);
      for (const line of await linesOf(this.kubectl, pod.namespace, pod.name)) {
        const ids = idsOf(line);
        if (line.event === 'update' && (ids.length !== 1 || ids[0] !== own))
          throw new Error(`${pod.namespace}/${pod.name} was told ${ids.join(', ') || 'nothing'}`);
        if (line.unverified !== undefined && line.unverified.length > 0)
          throw new Error(`${pod.namespace}/${pod.name} cannot verify ${line.unverified.join()}`);
      }
    }
  }

  /** The agents' pods on the node; the ready ones with `ready`. */
  async agents(selector = AGENTS): Promise<readonly Pod[]> {
    const pods = await this.kubectl.pods(SYSTEM, selector);
    return pods.filter((pod) => pod.spec.nodeName === this.node);
  }

  /** The agent of the node, once it is ready; not one of `besides` (their UIDs). */
  agent(besides: readonly string[] = [], selector = AGENTS): Promise<Pod> {
    return eventually('the agent of the node is ready', READY_TIMEOUT_MS, async () =>
      (await this.agents(selector)).find((pod) => isReady(pod) && !besides.includes(pod.metadata.uid)),
    );
  }

  /** What the agent's process takes, where its processes are of this machine. */
  async memoryOfAgent(): Promise<string> {
    const agent = await this.agent();
    const [pid] = this.harness?.processesOf(agent.metadata.uid, 'main.js') ?? [];
    if (pid === undefined) return 'not known: its processes are on another machine';
    const { rss, anonymous, peak } = memoryOf(pid);
    return `${rss} MB resident (${anonymous} MB of it anonymous), at most ${peak} MB so far`;
  }

  /** What `signet explain` says in the agent's pod. Its exit code says whether there is an identity. */
  async explain(...args: readonly string[]): Promise<string> {
    const agent = await this.agent();
    const command = ['exec', '-n', SYSTEM, agent.metadata.name, '-c', 'agent', '--', 'signet', 'explain', ...args];
    return this.kubectl.run(command).catch((error: unknown) => {
      if (error instanceof ProgramError && error.code === NO_IDENTITY) return error.stdout;
      throw error;
    });
  }
}

export function isReady(pod: Pod): boolean {
  return pod.status.conditions?.some((condition) => condition.type === 'Ready' && condition.status === 'True') === true;
}

/** A rule; `spec` as SPIRE's controller manager documents it. */
export function clusterSpiffeId(name: string, spec: Readonly<Record<string, unknown>>): KubeObject {
  return { apiVersion: 'spire.spiffe.io/v1alpha1', kind: 'ClusterSPIFFEID', metadata: { name }, spec };
}
