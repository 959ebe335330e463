import type { Alarm, Clock } from '../clock.ts';
import { messageOf, SignetError } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Random } from '../random.ts';
import type { KubernetesClient } from './api-client.ts';
import { Informer } from './informer.ts';
import { isObject, objectAt, textAt, type JsonObject, type TextMap } from './json.ts';
import { besides } from './beside.ts';
import { BoundedPodIndex } from './bounded-pod-index.ts';
import type { Kubelet } from './kubelet.ts';
import { KubeletPods } from './kubelet-pods.ts';
import { trimNamespace, trimNode, type KubernetesNode, type Namespace } from './objects.ts';
import type { PodSource } from './pod-index.ts';
import { podsFromApi, type ListPods } from './pod-lookup.ts';
import { podTrim, type Pod, type TrimPod } from './pod.ts';
import { CLUSTER_SPIFFE_IDS, CLUSTER_STATIC_ENTRIES, NAMESPACES, NODES, PODS, named, onNode, type Resource } from './resources.ts';
import { formatSnapshot, LARGEST_SNAPSHOT, parseSnapshot, type ClusterMemory, type Snapshot, type SnapshotOwner } from './snapshot.ts';
import type { Stored, Trim } from './store.ts';

/** What is kept of an object whose `spec` somebody else reads. */
export interface CustomObject {
  readonly uid: string;
  readonly name: string;
  readonly generation: number;
  readonly spec: JsonObject;
}

export interface ClusterOptions {
  readonly nodeName: string;
  readonly client: KubernetesClient;
  /** Makes the kubelet's client; it trims as the others do. Undefined: the kubelet is not asked. */
  readonly kubelet: ((trim: TrimPod) => Kubelet) | undefined;
  readonly source: 'api' | 'kubelet';
  /** Follow the rules that are objects of the cluster. */
  readonly customResources: boolean;
  readonly memory?: ClusterMemory;
  /** Version of the program: what another one has kept in the memory is not read. Default ''. */
  readonly version?: string;
  /** Told when a static pod's hash was asked for that two pods claim. */
  readonly onConflict?: (hash: string) => void;
}

export interface ClusterTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** What the rules look at, besides pods. */
export interface Needs {
  readonly annotations: boolean;
  readonly namespaces: boolean;
  readonly node: boolean;
}

/** An informer, whatever of. */
interface Followed {
  readonly synced: boolean;
  readonly failure: string | undefined;
  readonly lastContact: number | undefined;
  entries(): Iterable<readonly [string, Stored<unknown>]>;
  whenSynced(): Promise<void>;
  start(): void;
  close(): Promise<void>;
}

/** Changes are kept for a restart after this time: a start of many pods is one write. */
const REMEMBER_MS = 2_000;

/**
 * The cluster as this node needs it: its pods, the rules, and what rules look at. Each is one list and one watch. What was known
 * last is kept, so that an agent which restarts while the API server is away begins with it.
 */
export class Cluster {
  readonly pods: BoundedPodIndex;
  readonly spiffeIds: Informer<CustomObject> | undefined;
  readonly staticEntries: Informer<CustomObject> | undefined;
  readonly #options: ClusterOptions;
  readonly #tools: ClusterTools;
  readonly #snapshot: Snapshot;
  readonly #podSource: PodSource & { start(): void; close(): Promise<void> };
  readonly #podInformer: Informer<Pod> | undefined;
  readonly #kubelet: Kubelet | undefined;
  readonly #listeners = new Set<() => void>();
  #namespaces: Informer<Namespace> | undefined;
  #nodes: Informer<KubernetesNode> | undefined;
  #annotations = false;
  #alarm: Alarm | undefined;
  #isStarted = false;
  #isTelling = false;
  #remembered = '';
  #remembering: Promise<void> = Promise.resolve();

  constructor(options: ClusterOptions, tools: ClusterTools) {
    this.#options = options;
    this.#tools = tools;
    this.#snapshot = parseSnapshot(options.memory?.read(), this.#owner);
    this.#kubelet = options.kubelet?.(this.#trimPod);
    this.#podInformer = options.source === 'api' ? this.#informer<Pod>(PODS, this.#trimPod, onNode(options.nodeName)) : undefined;
    this.#podSource = this.#podInformer ?? new KubeletPods(this.#listFromKubelet, tools, this.#seedOf<Pod>(PODS));
    this.#podSource.onChange(() => this.#rememberSoon());
    const onConflict = (hash: string): void => options.onConflict?.(hash);
    const onOversized = (pod: Pod): void => this.#sayOversized(pod);
    this.pods = new BoundedPodIndex({ source: this.#podSource, clock: tools.clock, lookup: this.#lookup, onConflict, onOversized });
    if (!options.customResources) return;
    this.spiffeIds = this.#informer(CLUSTER_SPIFFE_IDS, trimCustom);
    this.staticEntries = this.#informer(CLUSTER_STATIC_ENTRIES, trimCustom);
  }

  /** True when a restart has left something to begin with. */
  get isSeeded(): boolean {
    return this.#snapshot.has(PODS.name);
  }

  /** True when all rules are known, from the API server or from before a restart. */
  get knowsRules(): boolean {
    const isKnown = (informer: Followed | undefined, resource: Resource): boolean =>
      informer === undefined || informer.synced || this.#snapshot.has(resource.name);
    return (
      isKnown(this.spiffeIds, CLUSTER_SPIFFE_IDS) &&
      isKnown(this.staticEntries, CLUSTER_STATIC_ENTRIES) &&
      isKnown(this.#namespaces, NAMESPACES) &&
      isKnown(this.#nodes, NODES)
    );
  }

  /** True when everything that is followed is complete: what is not known then is not there. */
  get isSynced(): boolean {
    return this.pods.synced && this.#informers().every(({ synced }) => synced);
  }

  /** Why the API server (or the kubelet, as the source) cannot be followed now, or undefined. */
  get failure(): string | undefined {
    return this.#informers().find(({ failure }) => failure !== undefined)?.failure ?? (this.#podSource instanceof KubeletPods ? this.#podSource.failure : undefined);
  }

  /** When all that is followed was last heard of, in milliseconds since the Unix epoch: the oldest counts. */
  get lastContact(): number | undefined {
    const contacts = [this.pods.lastContact, ...this.#informers().map(({ lastContact }) => lastContact)];
    return contacts.includes(undefined) ? undefined : Math.min(...contacts.filter((one) => one !== undefined));
  }

  start(): void {
    this.#isStarted = true;
    this.#podSource.start();
    for (const informer of this.#informers()) informer.start();
  }

  /** Resolves when everything that is followed is complete. */
  async whenSynced(): Promise<void> {
    if (this.#podInformer !== undefined) await this.#podInformer.whenSynced();
    await Promise.all(this.#informers().map((informer) => informer.whenSynced()));
  }

  /** Follows what rules look at, from now on. What is not needed any more goes on to be followed: it may be again. */
  need(needs: Needs): void {
    if (needs.annotations && !this.#annotations) {
      this.#annotations = true;
      this.#podInformer?.reload();
    }
    if (needs.namespaces) this.#namespaces ??= this.#follow(this.#informer(NAMESPACES, trimNamespace));
    if (needs.node) this.#nodes ??= this.#follow(this.#informer(NODES, trimNode, named(this.#options.nodeName)));
  }

  /** The labels of a namespace, or undefined where they are not followed or it is not known. */
  namespaceLabels(name: string): TextMap | undefined {
    return this.#namespaces?.get(name)?.labels;
  }

  get node(): KubernetesNode | undefined {
    return this.#nodes?.get(this.#options.nodeName);
  }

  /** Calls `listener` whenever a rule, a namespace or the node has changed, or all of them have become known. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    this.pods.close();
    await Promise.all([this.#podSource.close(), ...this.#informers().map((informer) => informer.close())]);
    this.#kubelet?.close();
    const isDue = this.#alarm !== undefined;
    this.#alarm?.cancel();
    if (isDue) this.#remember();
    await this.#remembering;
  }

  /** Pods that are not listed (any more) are in memory too. */
  readonly #trimPod: TrimPod = (raw, known) => podTrim({ annotations: this.#annotations })(raw, known + this.pods.unlisted);

  readonly #listFromKubelet: ListPods = async (signal) => (await this.#kubelet?.pods(signal)) ?? [];

  /** Whoever is more likely to answer is asked first. */
  readonly #lookup: ListPods = async (signal) => {
    if (this.#options.source === 'kubelet') return this.#listFromKubelet(signal);
    const fromApi = podsFromApi(this.#options.client, this.#options.nodeName, this.#trimPod);
    if (this.#kubelet === undefined) return fromApi(signal);
    const [first, second] = this.failure === undefined ? [fromApi, this.#listFromKubelet] : [this.#listFromKubelet, fromApi];
    return besides(first, second, { clock: this.#tools.clock, isEnough: (pods) => this.pods.hasAllAwaited(pods) })(signal);
  };

  #informers(): Followed[] {
    const all: (Followed | undefined)[] = [this.#podInformer, this.spiffeIds, this.staticEntries, this.#namespaces, this.#nodes];
    return all.filter((informer) => informer !== undefined);
  }

  #informer<T>(resource: Resource, trim: Trim<T>, fieldSelector?: string): Informer<T> {
    const seed = this.#seedOf<T>(resource);
    const { client } = this.#options;
    const informer = new Informer<T>({ client, resource, trim, ...this.#tools, seed, ...(fieldSelector === undefined ? {} : { fieldSelector }) });
    informer.whenSynced().then(() => this.#tell(), () => undefined);
    // A rule's status and a node's heartbeat are changes of what nobody here looks at.
    if (resource !== PODS) informer.onChange((kind, item, before) => (kind === 'changed' && isSame(item, before) ? this.#rememberSoon() : this.#tell()));
    return informer;
  }

  #follow<T>(informer: Informer<T>): Informer<T> {
    if (this.#isStarted) informer.start();
    return informer;
  }

  /**
   * What was written by this program, to a file that only it can write, is what it was. Without a version all of it is trimmed anew
   * when it is told again.
   */
  #seedOf<T>(resource: Resource): Iterable<readonly [string, Stored<T>]> {
    const seed = (this.#snapshot.get(resource.name) ?? []) as readonly (readonly [string, Stored<T>])[];
    return seed.map(([key, stored]) => [key, { ...stored, resourceVersion: '' }] as const);
  }

  #sayOversized({ namespace, name, uid, oversized }: Pod): void {
    const fields = { event: 'kubernetes.pod_too_large', pod: `${namespace}/${name}`, podUid: uid, bytes: oversized };
    this.#tools.log.warn(fields, 'the labels, annotations, owners and containers of a pod are too many to be kept: its callers are refused');
  }

  get #owner(): SnapshotOwner {
    return { nodeName: this.#options.nodeName, program: this.#options.version ?? '' };
  }

  /** Several changes in one turn of the event loop, as in a list, are one. */
  #tell(): void {
    this.#rememberSoon();
    if (this.#isTelling) return;
    this.#isTelling = true;
    queueMicrotask(() => {
      this.#isTelling = false;
      for (const listener of [...this.#listeners]) listener();
    });
  }

  #rememberSoon(): void {
    if (this.#options.memory === undefined) return;
    this.#alarm ??= this.#tools.clock.after(REMEMBER_MS, () => {
      this.#alarm = undefined;
      this.#remember();
    });
  }

  /** Nothing is written before everything was known once: half a snapshot would hide the rest. */
  #remember(): void {
    const { memory } = this.#options;
    if (memory === undefined || !this.isSynced) return;
    const whole = formatSnapshot(this.#owner, this.#takeSnapshot());
    // What was kept before is older with each change: better nothing than that.
    const text = whole ?? formatSnapshot(this.#owner, new Map()) ?? '';
    if (text === this.#remembered) return;
    if (whole === undefined) this.#sayNotRemembered(new SignetError('limit_exceeded', `it has more than ${LARGEST_SNAPSHOT} bytes`));
    this.#remembering = this.#remembering.then(() => memory.write(text)).then(
      () => void (this.#remembered = text),
      (error: unknown) => this.#sayNotRemembered(error),
    );
  }

  #sayNotRemembered(error: unknown): void {
    this.#tools.log.warn({ event: 'kubernetes.not_remembered', err: messageOf(error) }, 'what is known of the cluster cannot be kept for a restart');
  }

  #takeSnapshot(): Snapshot {
    const snapshot = new Map<string, (readonly [string, Stored<unknown>])[]>();
    const keep = (resource: Resource, informer: Pick<Followed, 'entries'> | undefined): void => {
      if (informer !== undefined) snapshot.set(resource.name, [...informer.entries()]);
    };
    keep(PODS, this.#podInformer ?? (this.#podSource instanceof KubeletPods ? this.#podSource : undefined));
    keep(CLUSTER_SPIFFE_IDS, this.spiffeIds);
    keep(CLUSTER_STATIC_ENTRIES, this.staticEntries);
    keep(NAMESPACES, this.#namespaces);
    keep(NODES, this.#nodes);
    return snapshot;
  }
}

function isSame(item: unknown, before: unknown): boolean {
  return JSON.stringify(item) === JSON.stringify(before);
}

function trimCustom(raw: JsonObject): CustomObject | undefined {
  const metadata = objectAt(raw, 'metadata');
  const [uid, name, generation] = [textAt(metadata, 'uid'), textAt(metadata, 'name'), metadata['generation']];
  if (uid === '' || name === '' || !isObject(raw['spec'])) return undefined;
  return { uid, name, generation: typeof generation === 'number' ? generation : 0, spec: raw['spec'] };
}
