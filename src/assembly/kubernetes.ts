import { join } from 'node:path';
import type { CgroupRoot } from '../attestation/cgroup.ts';
import { learnCgroupRoot } from '../attestation/cgroup-root.ts';
import { KubernetesAttestor } from '../attestation/kubernetes.ts';
import type { Alarm, Clock } from '../clock.ts';
import type { Config } from '../config/config.ts';
import { SignetError } from '../errors.ts';
import { KubernetesClient } from '../kubernetes/api-client.ts';
import { Cluster } from '../kubernetes/cluster.ts';
import { inClusterCredentials, SERVICE_ACCOUNT_DIRECTORY, type Credentials } from '../kubernetes/credentials.ts';
import { kubeconfigCredentials } from '../kubernetes/kubeconfig.ts';
import { Kubelet } from '../kubernetes/kubelet.ts';
import { PodRegistry } from '../registration/pod-registry.ts';
import { foreignClass } from '../registration/rules/common-spec.ts';
import { RuleStatus } from '../registration/status/rule-status.ts';
import { BundlePublisher } from '../trust/publish/bundle-publisher.ts';
import type { OwnBundle } from '../trust/publish/own-bundle.ts';
import { memoryIn } from './memory.ts';
import type { RoomTools } from './tools.ts';
import { ownVersion } from './version.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** What was found out before anything was opened. */
export interface KubernetesPlan {
  readonly nodeName: string;
  readonly credentials: Credentials;
  readonly root: CgroupRoot;
  readonly podUid: string | undefined;
  /** Where the agent's Lease is; undefined outside a pod: then rules get no status. */
  readonly namespace: string | undefined;
}

/** The last known pods and rules, in `privateDir`. */
const SNAPSHOT = 'cluster.json';
/** Many changes in a moment are one count of what the rules come to. */
const TALLY_MS = 1_000;

/**
 * Judges what this node needs to recognise pods. Undefined where it is not asked to.
 *
 * @throws SignetError `invalid_config` with what to set.
 */
export function planKubernetes({ attestation, kubernetes }: Config, env: Environment): KubernetesPlan | undefined {
  if (!attestation.kubernetes.enabled) return undefined;
  const { nodeName, kubeconfig } = kubernetes;
  if (nodeName === undefined) throw new SignetError('invalid_config', 'kubernetes.nodeName is not set');
  const podUid = env['POD_UID'] || undefined;
  return {
    nodeName,
    credentials: kubeconfig === undefined ? inClusterCredentials({ env }) : kubeconfigCredentials(kubeconfig),
    root: learnCgroupRoot({ configured: attestation.kubernetes.cgroupRoot, podUid }),
    podUid,
    namespace: env['POD_NAMESPACE'] || undefined,
  };
}

/** What a node of a cluster has more than another: its pods, its rules, and who says what they come to. */
export class KubernetesRooms {
  readonly cluster: Cluster;
  readonly attestor: KubernetesAttestor;
  readonly registry: PodRegistry;
  readonly nodeName: string;
  readonly client: KubernetesClient;
  readonly #status: RuleStatus | undefined;
  readonly #config: Config;
  readonly #plan: KubernetesPlan;
  readonly #tools: RoomTools;
  readonly #stops: readonly (() => void)[];
  #tallying: Alarm | undefined;
  #publisher: BundlePublisher | undefined;

  constructor(config: Config, plan: KubernetesPlan, tools: RoomTools) {
    const { clock, events } = tools;
    const { registration, trustDomain, clusterName, clusterDomain, withdrawalDelayMs } = config;
    this.nodeName = plan.nodeName;
    this.#config = config;
    this.#plan = plan;
    this.#tools = tools;
    this.client = new KubernetesClient({ credentials: plan.credentials, clock });
    this.cluster = new Cluster(
      {
        nodeName: plan.nodeName,
        client: this.client,
        kubelet: kubeletOf(config, plan, clock),
        source: config.kubernetes.source,
        customResources: registration.customResources,
        memory: memoryIn(config.privateDir, SNAPSHOT, tools.log),
        version: ownVersion(),
        onConflict: (hash) => events.publish('podHashConflict', { hash }),
      },
      tools,
    );
    const { podTimeoutMs } = config.attestation.kubernetes;
    this.attestor = new KubernetesAttestor({ pods: this.cluster.pods, root: plan.root, nodeName: plan.nodeName, podTimeoutMs });
    const options = { ...registration, trustDomain, clusterName, clusterDomain, withdrawalDelayMs };
    this.registry = new PodRegistry(config.entries, options, this.cluster, clock, events);
    this.#status = statusOf(config, plan, this.client, tools);
    this.#stops = [this.registry.onChange(() => this.#tallySoon()), this.cluster.pods.onChange(() => this.#tallySoon())];
  }

  /** Publishes the bundle in the cluster, if the configuration asks for it. Closed with the others. */
  publish(bundle: OwnBundle): void {
    const { configMap, clusterTrustBundle } = this.#config.trust.publish;
    const { namespace, podUid, nodeName } = this.#plan;
    if (namespace === undefined || (configMap === undefined && !clusterTrustBundle)) return;
    const identity = podUid ?? nodeName;
    this.#publisher = new BundlePublisher({ client: this.client, bundle, identity, namespace, configMap, clusterTrustBundle, ...this.#tools });
    this.#publisher.start();
  }

  /** Begins to follow the cluster. */
  start(): void {
    this.cluster.start();
    this.#status?.start();
  }

  async close(): Promise<void> {
    this.#tallying?.cancel();
    for (const stop of this.#stops) stop();
    this.registry.close();
    this.attestor.close();
    await Promise.all([this.#publisher?.close(), this.#status?.close(), this.cluster.close()]);
    this.client.close();
  }

  #tallySoon(): void {
    if (this.#status === undefined) return;
    this.#tallying ??= this.#tools.clock.after(TALLY_MS, () => {
      this.#tallying = undefined;
      // Half of the rules, or of the pods, would be told as if they were all.
      if (this.cluster.isSynced) this.#status?.set(this.registry.tallies());
    });
  }
}

function kubeletOf({ kubernetes }: Config, { nodeName }: KubernetesPlan, clock: Clock) {
  const { kubelet, source } = kubernetes;
  if (kubelet === undefined && source === 'api') return undefined;
  const { host = '127.0.0.1', port = 10_250, serverName = nodeName, caFile = join(SERVICE_ACCOUNT_DIRECTORY, 'ca.crt') } = kubelet ?? {};
  const token = { path: join(SERVICE_ACCOUNT_DIRECTORY, 'token') };
  return (trim: ConstructorParameters<typeof Kubelet>[0]['trim']): Kubelet =>
    new Kubelet({ host, port, serverName, token, ca: { path: caFile }, clock, trim });
}

/** Without a namespace of its own the agent has nowhere to take a Lease. */
function statusOf(config: Config, plan: KubernetesPlan, client: KubernetesClient, tools: RoomTools): RuleStatus | undefined {
  const { registration } = config;
  if (!registration.status || !registration.customResources || plan.namespace === undefined) return undefined;
  return new RuleStatus({
    client,
    nodeName: plan.nodeName,
    reporter: plan.podUid ?? 'host',
    namespace: plan.namespace,
    isOurs: (rule) => foreignClass({ className: rule.className }, registration) === undefined,
    ...tools,
  });
}
