import { SignetError, messageOf } from '../errors.ts';
import { containerById, type Container, type Pod } from '../kubernetes/pod.ts';
import type { Selector } from '../spiffe/selector.ts';
import { AttestedPods, type NodePods } from './attested-pods.ts';
import type { Attestor } from './attestor.ts';
import type { Caller } from './caller.ts';
import { placementOf, type CgroupRoot, type Placement } from './cgroup.ts';
import { readPlacement, readProc } from './placement.ts';
import { containerSelectors, podSelectors } from './pod-selectors.ts';

export interface KubernetesAttestorOptions {
  readonly pods: NodePods;
  /** Of `learnCgroupRoot`. */
  readonly root: CgroupRoot;
  /** `metadata.name` of this Node. */
  readonly nodeName: string;
  /** How long a pod is waited for before the API server or the kubelet is asked for it. Default 5,000 ms. */
  readonly podTimeoutMs?: number;
  /** Default `/proc`. */
  readonly procRoot?: string;
}

/** What can be said of a process without a connection, for `signet explain`. */
export interface ProcessDescription {
  /** The lines of `/proc/<pid>/cgroup`; none when it could not be read. */
  readonly cgroup: readonly string[];
  readonly placement: Placement;
  /** One sentence for people. */
  readonly why: string;
  readonly pod?: Pod;
  readonly container?: Container;
  readonly selectors: readonly Selector[];
}

const POD_TIMEOUT_MS = 5_000;

/** Whose share callers use whose place is not clear. */
const UNKNOWN_OWNER = 'unknown';

type InPod = Extract<Placement, { kind: 'pod' }>;

/** Selectors from the pod in which the caller runs; none for a caller that is known to be outside any container. */
export class KubernetesAttestor implements Attestor {
  readonly name = 'k8s';
  readonly #pods: NodePods;
  readonly #root: CgroupRoot;
  readonly #nodeName: string;
  readonly #podTimeoutMs: number;
  readonly #procRoot: string;
  readonly #attested: AttestedPods;
  readonly #outside = new WeakSet<Caller>();
  /** A connection may end while its caller is attested. */
  readonly #forgotten = new WeakSet<Caller>();

  constructor(options: KubernetesAttestorOptions) {
    this.#pods = options.pods;
    this.#root = options.root;
    this.#nodeName = options.nodeName;
    this.#podTimeoutMs = options.podTimeoutMs ?? POD_TIMEOUT_MS;
    this.#procRoot = options.procRoot ?? '/proc';
    this.#attested = new AttestedPods(options.pods, options.nodeName);
  }

  /** Attested callers in pods that are followed. */
  get size(): number {
    return this.#attested.size;
  }

  /**
   * The pod's UID is enough: a container's selectors appear when a status of the pod names it.
   *
   * @throws SignetError `caller_unknown` when the caller may be in a container, but not in one of a pod of this node;
   * `caller_gone`, `caller_changed`; KubernetesError when nobody can tell whether there is such a pod; the signal's reason.
   */
  async attest(caller: Caller, signal: AbortSignal): Promise<readonly Selector[]> {
    const { placement } = readPlacement(caller.pid, this.#root, this.#procRoot);
    if (placement.kind === 'unclear') throw unknown(caller.pid, placement.why);
    if (placement.kind === 'outside') return this.#takeOutside(caller);
    await this.#pods.waitFor(placement.podUid, this.#podTimeoutMs, signal);
    signal.throwIfAborted();
    this.#assertStillThere(caller, placement);
    // Asked again, since by now a second pod may claim to be the mirror of the same static pod.
    const pod = this.#pods.find(placement.podUid);
    if (pod === undefined) throw unknown(caller.pid, noSuchPod(placement.podUid));
    if (pod.nodeName !== this.#nodeName) throw unknown(caller.pid, onOtherNode(pod, this.#nodeName));
    if (this.#forgotten.has(caller)) return podSelectors(pod);
    return this.#attested.add(caller, placement.podUid, placement.containerId, pod);
  }

  /** What `attest` would say now, from the index alone. Undefined for a caller that was not attested, or was forgotten. */
  current(caller: Caller): readonly Selector[] | undefined {
    return this.#outside.has(caller) ? [] : this.#attested.current(caller);
  }

  /** Calls `listener` with those attested callers whose selectors have changed: labels, a container's status. */
  onChange(listener: (callers: readonly Caller[]) => void): () => void {
    return this.#attested.onChange(listener);
  }

  /** The caller's connection is closed. */
  forget(caller: Caller): void {
    this.#forgotten.add(caller);
    this.#outside.delete(caller);
    this.#attested.forget(caller);
  }

  /**
   * `pod:<uid>` for a process that is in a pod, as its cgroup says now; undefined for one that is known to be outside any container.
   * All others share one bucket: a container can have as many user IDs as it likes. Never throws.
   */
  ownerOf(pid: number): string | undefined {
    try {
      const placement = placementOf(readProc(pid, 'cgroup', this.#procRoot), this.#root);
      if (placement.kind === 'outside') return undefined;
      return placement.kind === 'pod' ? `pod:${placement.podUid}` : UNKNOWN_OWNER;
    } catch {
      return UNKNOWN_OWNER;
    }
  }

  /** Never throws: what cannot be read is said so. */
  describe(pid: number): ProcessDescription {
    let text = '';
    try {
      text = readProc(pid, 'cgroup', this.#procRoot);
      const placed = readPlacement(pid, this.#root, this.#procRoot);
      return this.#describe(placed.text, placed.placement);
    } catch (error) {
      const why = messageOf(error);
      return { cgroup: linesOf(text), placement: { kind: 'unclear', why }, why, selectors: [] };
    }
  }

  close(): void {
    this.#attested.close();
  }

  #takeOutside(caller: Caller): readonly Selector[] {
    if (!this.#forgotten.has(caller)) this.#outside.add(caller);
    return [];
  }

  /** The time that the answer took was enough to be moved, or to end the main thread. */
  #assertStillThere(caller: Caller, before: InPod): void {
    const { placement } = readPlacement(caller.pid, this.#root, this.#procRoot);
    const isSame = placement.kind === 'pod' && placement.podUid === before.podUid && placement.containerId === before.containerId;
    if (isSame) return;
    throw new SignetError('caller_changed', `process ${caller.pid} was moved out of its container while it was attested`);
  }

  #describe(text: string, placement: Placement): ProcessDescription {
    const described = { cgroup: linesOf(text), placement, selectors: [] };
    if (placement.kind === 'unclear') return { ...described, why: `it may be in a container: ${placement.why}` };
    if (placement.kind === 'outside') return { ...described, why: 'it is a process of the host, outside any container' };
    const pod = this.#pods.find(placement.podUid);
    if (pod === undefined) return { ...described, why: noSuchPod(placement.podUid) };
    if (pod.nodeName !== this.#nodeName) return { ...described, why: onOtherNode(pod, this.#nodeName) };
    const named = `its cgroup names pod ${pod.namespace}/${pod.name}`;
    const container = containerById(pod, placement.containerId ?? '');
    const selectors = [...podSelectors(pod), ...(container === undefined ? [] : containerSelectors(container))];
    if (container === undefined) return { ...described, why: `${named}; no status names its container yet`, pod, selectors };
    return { ...described, why: `${named}, container ${container.name}`, pod, container, selectors };
  }
}

function linesOf(text: string): readonly string[] {
  return text.split('\n').filter((line) => line !== '');
}

function noSuchPod(uid: string): string {
  const isStatic = !uid.includes('-');
  const other = isStatic ? ', or two pods claim to be the mirror of that static pod' : '';
  return `its cgroup names pod ${uid}, which nobody tells of among the pods of this node${other}`;
}

function onOtherNode(pod: Pod, nodeName: string): string {
  const bound = `which is bound to node ${JSON.stringify(pod.nodeName)} and not to ${nodeName}`;
  return `its cgroup names pod ${pod.namespace}/${pod.name}, ${bound}`;
}

function unknown(pid: number, why: string): SignetError {
  return new SignetError('caller_unknown', `process ${pid}: ${why}`);
}
