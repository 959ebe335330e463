import type { PodListener } from '../kubernetes/pod-index.ts';
import { containerById, type Pod } from '../kubernetes/pod.ts';
import type { Selector } from '../spiffe/selector.ts';
import type { Caller } from './caller.ts';
import { containerSelectors, podSelectors } from './pod-selectors.ts';

/** The pods of this node, a `PodIndex`. */
export interface NodePods {
  find(uid: string): Pod | undefined;
  waitFor(uid: string, timeoutMs: number, signal?: AbortSignal): Promise<Pod | undefined>;
  /** Keeps a pod known while it is in use. Returns the way to let go. */
  hold(uid: string): () => void;
  onChange(listener: PodListener): () => void;
}

/** A pod that callers were attested to run in, by the UID in their cgroup path. */
interface Attested {
  readonly key: string;
  /** Kept when the index has forgotten the pod: its processes are still there. */
  pod: Pod;
  /** By now another pod claims to be the mirror of the same static pod. */
  contested: boolean;
  readonly callers: Map<Caller, { readonly containerId: string | undefined; told: string }>;
  readonly letGo: () => void;
}

/**
 * Follows the pods of attested callers. A pod's labels change, and the status that names a container comes later than its
 * process, so what is said of a caller changes while it is connected.
 *
 * The index keeps a pod while a caller in it is followed. It is never told to release one when the last of them is forgotten: a
 * connection has ended then, not the pod's last process, which may connect again. The index bounds what it keeps then.
 */
export class AttestedPods {
  readonly #pods: NodePods;
  readonly #nodeName: string;
  readonly #byKey = new Map<string, Attested>();
  readonly #byCaller = new WeakMap<Caller, Attested>();
  readonly #listeners = new Set<(callers: readonly Caller[]) => void>();
  readonly #stop: () => void;

  constructor(pods: NodePods, nodeName: string) {
    this.#pods = pods;
    this.#nodeName = nodeName;
    this.#stop = pods.onChange((change, pod) => this.#changed(pod, change === 'added' || change === 'changed'));
  }

  /** Callers that are followed. */
  get size(): number {
    return [...this.#byKey.values()].reduce((sum, { callers }) => sum + callers.size, 0);
  }

  add(caller: Caller, key: string, containerId: string | undefined, pod: Pod): readonly Selector[] {
    this.forget(caller);
    const attested = this.#byKey.get(key) ?? { key, pod, contested: false, callers: new Map(), letGo: this.#pods.hold(key) };
    attested.pod = pod;
    attested.contested = false;
    const selectors = this.#selectorsOf(attested, containerId);
    attested.callers.set(caller, { containerId, told: selectors.join('\n') });
    this.#byKey.set(key, attested);
    this.#byCaller.set(caller, attested);
    return selectors;
  }

  /** Undefined for a caller that was not added, or was forgotten. */
  current(caller: Caller): readonly Selector[] | undefined {
    const attested = this.#byCaller.get(caller);
    const followed = attested?.callers.get(caller);
    if (attested === undefined || followed === undefined) return undefined;
    if (!attested.contested) attested.pod = this.#pods.find(attested.key) ?? attested.pod;
    return this.#selectorsOf(attested, followed.containerId);
  }

  forget(caller: Caller): void {
    const attested = this.#byCaller.get(caller);
    this.#byCaller.delete(caller);
    attested?.callers.delete(caller);
    if (attested?.callers.size !== 0) return;
    this.#byKey.delete(attested.key);
    attested.letGo();
  }

  onChange(listener: (callers: readonly Caller[]) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  close(): void {
    this.#stop();
    for (const { letGo } of this.#byKey.values()) letGo();
    this.#byKey.clear();
    this.#listeners.clear();
  }

  #changed(pod: Pod, isListed: boolean): void {
    const changed: Caller[] = [];
    for (const attested of this.#concerned(pod)) {
      const found = this.#pods.find(attested.key);
      attested.pod = found ?? attested.pod;
      // A listed pod that cannot be found by its key is one of two.
      if (found !== undefined || isListed) attested.contested = found === undefined;
      changed.push(...this.#toldAnew(attested));
    }
    if (changed.length > 0) for (const listener of [...this.#listeners]) listener(changed);
  }

  #concerned(pod: Pod): Attested[] {
    const keys = new Set([pod.uid, pod.configHash ?? pod.uid]);
    const exact = [...keys].flatMap((key) => this.#byKey.get(key) ?? []);
    // One of two claimants may have ended, or claim something else by now.
    const contested = [...this.#byKey.values()].filter((attested) => attested.contested && !keys.has(attested.key));
    return [...exact, ...contested];
  }

  #toldAnew(attested: Attested): Caller[] {
    const changed: Caller[] = [];
    for (const [caller, followed] of attested.callers) {
      const now = this.#selectorsOf(attested, followed.containerId).join('\n');
      if (now === followed.told) continue;
      followed.told = now;
      changed.push(caller);
    }
    return changed;
  }

  #selectorsOf({ key, pod, contested }: Attested, containerId: string | undefined): Selector[] {
    // All that is sure: a pod of this node, and no process of the host. No pod of the API has this UID.
    if (contested) return [`k8s:node-name:${this.#nodeName}`, `k8s:pod-uid:${key}`];
    const container = containerById(pod, containerId ?? '');
    return [...podSelectors(pod), ...(container === undefined ? [] : containerSelectors(container))];
  }
}
