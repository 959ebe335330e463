import type { Alarm, Clock } from '../clock.ts';
import { KubernetesError } from './api-error.ts';
import { containerById, type Container, type Pod } from './pod.ts';
import { PodLookup, type ListPods } from './pod-lookup.ts';
import type { ChangeListener } from './store.ts';
import { UnlistedPods } from './unlisted-pods.ts';

/** What feeds the index: an `Informer<Pod>` on the pods of this node. */
export interface PodSource {
  readonly synced: boolean;
  readonly lastContact: number | undefined;
  /** Why nothing is told now; undefined, or left out, while all is well. */
  readonly failure?: string | undefined;
  items(): Iterable<Pod>;
  onChange(listener: ChangeListener<Pod>): () => void;
  nudge(): void;
  /** Somebody waits for a pod: a source that is not told of changes looks now, and again soon. Returns the way to stop. */
  seek?(): () => void;
}

export interface PodIndexOptions {
  readonly source: PodSource;
  readonly clock: Clock;
  /** Is asked once when the source has not told in time: the API server directly, or the kubelet. */
  readonly lookup?: ListPods;
  /** How long that may take. Default 5,000 ms. */
  readonly lookupMs?: number;
  /** How long a pod that the source does not list (any more) stays known without `hold` and `release`. Default one hour. */
  readonly unlistedMs?: number;
  /** Is told each time a static pod's hash was asked for that two pods claim. */
  readonly onConflict?: (hash: string, claimants: readonly Pod[]) => void;
}

/** `departed`: gone from the API, its processes may still be there. `removed`: released, or its time is over. */
export type PodChange = 'added' | 'changed' | 'departed' | 'removed';
export type PodListener = (change: PodChange, pod: Pod) => void;

/** A pod, and its container where a status names it. */
export interface PodAndContainer {
  readonly pod: Pod;
  readonly container: Container | undefined;
}

interface Waiter {
  readonly isEnough: (pod: Pod) => boolean;
  readonly resolve: (pod: Pod) => void;
}

const LOOKUP_MS = 5_000;
const UNLISTED_MS = 3_600_000;

/**
 * The pods of this node by the UID in their cgroup path: the pod's own, or for a static pod the hash that its mirror pod carries.
 * Whoever waits is answered by the source's event, never by polling.
 */
export class PodIndex {
  readonly #options: PodIndexOptions;
  readonly #pods = new Map<string, Pod>();
  /** Static pods' hashes, each with the UIDs of its claimants; more than one is a forgery. */
  readonly #hashes = new Map<string, Set<string>>();
  readonly #unlisted: UnlistedPods;
  /** How often each UID, or hash, is held. */
  readonly #holds = new Map<string, number>();
  readonly #waiters = new Map<string, Set<Waiter>>();
  readonly #listeners = new Set<PodListener>();
  readonly #lookup: PodLookup | undefined;
  readonly #stopSource: () => void;
  readonly #closed = new AbortController();
  #conflicts = 0;

  constructor(options: PodIndexOptions) {
    this.#options = options;
    this.#lookup = options.lookup === undefined ? undefined : new PodLookup(options.lookup);
    this.#unlisted = new UnlistedPods(options.clock, {
      keepMs: options.unlistedMs ?? UNLISTED_MS,
      isHeld: (pod) => this.#isHeld(pod),
      canExpire: () => options.source.synced && options.source.failure === undefined,
      onRemoved: (pod) => this.#emit('removed', pod),
    });
    this.#stopSource = options.source.onChange((kind, pod) => (kind === 'removed' ? this.#depart(pod) : this.#take(pod)));
    for (const pod of options.source.items()) this.#take(pod);
  }

  /** True once the source has told everything: what is not found then is not there. */
  get synced(): boolean {
    return this.#options.source.synced;
  }

  get lastContact(): number | undefined {
    return this.#options.source.lastContact;
  }

  /** How often a hash was asked for that two pods claim. */
  get conflicts(): number {
    return this.#conflicts;
  }

  get size(): number {
    return this.#pods.size;
  }

  /** The pods that the source lists. */
  listed(): Iterable<Pod> {
    return this.#pods.values();
  }

  /** All pods that are known, departed ones included. */
  *all(): Generator<Pod, void, undefined> {
    yield* this.#pods.values();
    yield* this.#unlisted.all();
  }

  /** Pods that are known although the source does not list them: departed ones, and those that only the lookup has told of. */
  get unlisted(): number {
    return this.#unlisted.size;
  }

  /** The pod with this UID in its cgroup path, departed ones included; undefined when none, or two static pods, claim it. */
  find(uid: string): Pod | undefined {
    const pod = this.#pods.get(uid);
    if (pod !== undefined) return pod;
    const uids = [...(this.#hashes.get(uid) ?? [])];
    const claimants = uids.map((claimant) => this.#pods.get(claimant)).filter((one) => one !== undefined);
    if (claimants.length > 1) return this.#refuse(uid, claimants);
    return claimants[0] ?? this.#unlisted.find(uid);
  }

  /**
   * Waits at most `timeoutMs` for the source to tell of the pod, then asks the lookup once. Undefined: there is none, for sure.
   *
   * @throws KubernetesError `unavailable` when nobody can tell, or the signal's reason.
   */
  waitFor(uid: string, timeoutMs: number, signal?: AbortSignal): Promise<Pod | undefined> {
    return this.#wait(uid, () => true, timeoutMs, signal);
  }

  /**
   * Like `waitFor`, until a status of the pod names the container too. A pod whose container is still not named after all of that
   * is returned without it.
   */
  async waitForContainer(
    uid: string,
    containerId: string,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<PodAndContainer | undefined> {
    const pod = await this.#wait(uid, (one) => containerById(one, containerId) !== undefined, timeoutMs, signal);
    return pod === undefined ? undefined : { pod, container: containerById(pod, containerId) };
  }

  /**
   * A process of the pod with this UID in its cgroup path is known to be there: however long the source does not list the pod, it
   * stays known. Returns the way to let go, after which its time begins.
   */
  hold(uid: string): () => void {
    this.#holds.set(uid, (this.#holds.get(uid) ?? 0) + 1);
    let isHeld = true;
    return () => {
      if (isHeld) this.#letGo(uid);
      isHeld = false;
    };
  }

  /** Forgets a pod that the source does not list: the last of its processes has ended. Does nothing to one that it lists. */
  release(uid: string): void {
    this.#unlisted.release(uid);
  }

  /** Calls `listener` for each change from now on. Returns the way to stop. */
  onChange(listener: PodListener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Ends all waiting. The source is its owner's to close. */
  close(): void {
    const reason = new KubernetesError('stopped', 'the pod index was closed');
    this.#stopSource();
    this.#closed.abort(reason);
    this.#lookup?.close(reason);
    this.#unlisted.close();
  }

  #take(pod: Pod): void {
    const before = this.#pods.get(pod.uid) ?? this.#unlisted.take(pod.uid);
    this.#pods.set(pod.uid, pod);
    if (before?.configHash !== pod.configHash) this.#unclaim(before);
    if (pod.configHash !== undefined) this.#claim(pod.configHash, pod.uid);
    this.#answer(pod.uid);
    if (pod.configHash !== undefined) this.#answer(pod.configHash);
    this.#emit(before === undefined ? 'added' : 'changed', pod);
  }

  #depart(pod: Pod): void {
    const before = this.#pods.get(pod.uid);
    if (before === undefined) return;
    this.#pods.delete(pod.uid);
    this.#unclaim(before);
    this.#unlisted.add(pod);
    this.#emit('departed', pod);
  }

  #keepUnlisted(pod: Pod): void {
    if (this.#pods.has(pod.uid)) return;
    this.#unlisted.add(pod);
    this.#emit('added', pod);
  }

  #letGo(uid: string): void {
    const left = (this.#holds.get(uid) ?? 1) - 1;
    if (left > 0) return void this.#holds.set(uid, left);
    this.#holds.delete(uid);
    this.#unlisted.renew(uid);
  }

  #isHeld({ uid, configHash }: Pod): boolean {
    if (this.#holds.has(uid)) return true;
    // A mirror that was made anew stands for the static pod: its predecessors are not needed.
    return configHash !== undefined && this.#holds.has(configHash) && !this.#hashes.has(configHash);
  }

  #claim(hash: string, uid: string): void {
    const claimants = this.#hashes.get(hash) ?? new Set();
    this.#hashes.set(hash, claimants.add(uid));
  }

  #unclaim(pod: Pod | undefined): void {
    if (pod?.configHash === undefined) return;
    const claimants = this.#hashes.get(pod.configHash);
    claimants?.delete(pod.uid);
    if (claimants?.size === 0) this.#hashes.delete(pod.configHash);
  }

  #refuse(hash: string, claimants: readonly Pod[]): undefined {
    this.#conflicts += 1;
    this.#options.onConflict?.(hash, claimants);
  }

  async #wait(uid: string, isEnough: Waiter['isEnough'], timeoutMs: number, signal?: AbortSignal): Promise<Pod | undefined> {
    const known = this.find(uid);
    if (known !== undefined && isEnough(known)) return known;
    const either = signal === undefined ? this.#closed.signal : AbortSignal.any([signal, this.#closed.signal]);
    const told = await this.#told(uid, isEnough, timeoutMs, either);
    if (told !== undefined) return told;
    return this.#ask(uid, isEnough, either);
  }

  /** The pod as soon as the source has told enough of it, or undefined after `timeoutMs`. */
  #told(uid: string, isEnough: Waiter['isEnough'], timeoutMs: number, signal: AbortSignal): Promise<Pod | undefined> {
    return new Promise((resolve, reject) => {
      const stopSeeking = this.#options.source.seek?.();
      const end = (): void => {
        stopSeeking?.();
        alarm.cancel();
        signal.removeEventListener('abort', abort);
        this.#forget(uid, waiter);
      };
      const abort = (): void => (end(), reject(signal.reason));
      const waiter: Waiter = { isEnough, resolve: (pod) => (end(), resolve(pod)) };
      const alarm: Alarm = this.#options.clock.after(timeoutMs, () => (end(), resolve(undefined)));
      if (signal.aborted) return abort();
      signal.addEventListener('abort', abort, { once: true });
      this.#waiters.set(uid, (this.#waiters.get(uid) ?? new Set()).add(waiter));
    });
  }

  #forget(uid: string, waiter: Waiter): void {
    const waiters = this.#waiters.get(uid);
    waiters?.delete(waiter);
    if (waiters?.size === 0) this.#waiters.delete(uid);
  }

  #answer(uid: string): void {
    const waiters = this.#waiters.get(uid);
    if (waiters === undefined) return;
    const pod = this.find(uid);
    if (pod !== undefined) for (const waiter of [...waiters]) if (waiter.isEnough(pod)) waiter.resolve(pod);
  }

  async #ask(uid: string, isEnough: Waiter['isEnough'], signal: AbortSignal): Promise<Pod | undefined> {
    const isContested = (this.#hashes.get(uid)?.size ?? 0) > 1;
    if (isContested) return undefined;
    const asked = await this.#asked(uid, signal);
    // Meanwhile the source may have told more than the lookup knows.
    const known = this.find(uid);
    const best = [known, asked].find((pod) => pod !== undefined && isEnough(pod)) ?? known ?? asked;
    if (known === undefined && asked !== undefined) this.#keepUnlisted(asked);
    if (best === undefined && this.#lookup === undefined && !this.synced) throw notSynced(uid);
    return best;
  }

  /** What the lookup says; its failure counts only where the source has told nothing of the pod. */
  async #asked(uid: string, signal: AbortSignal): Promise<Pod | undefined> {
    if (this.#lookup === undefined) return undefined;
    try {
      const pods = await this.#bounded(this.#lookup.pods(), signal);
      // Somebody answers again: the source may be in the middle of a wait.
      this.#options.source.nudge();
      const claimants = pods.filter((pod) => pod.uid === uid || pod.configHash === uid);
      const exact = claimants.find((pod) => pod.uid === uid);
      return exact ?? (claimants.length > 1 ? this.#refuse(uid, claimants) : claimants[0]);
    } catch (error) {
      if (signal.aborted || this.find(uid) === undefined) throw error;
      return undefined;
    }
  }

  #bounded<R>(answer: Promise<R>, signal: AbortSignal): Promise<R> {
    const { clock, lookupMs = LOOKUP_MS } = this.#options;
    return new Promise((resolve, reject) => {
      const abort = (): void => reject(signal.reason);
      const late = (): Error => new KubernetesError('timed_out', `the pods of this node were not told within ${lookupMs} ms`);
      const alarm = clock.after(lookupMs, () => reject(late()));
      if (signal.aborted) abort();
      signal.addEventListener('abort', abort, { once: true });
      answer.then(resolve, reject).finally(() => {
        alarm.cancel();
        signal.removeEventListener('abort', abort);
      });
    });
  }

  #emit(change: PodChange, pod: Pod): void {
    for (const listener of [...this.#listeners]) listener(change, pod);
  }
}

function notSynced(uid: string): KubernetesError {
  return new KubernetesError('unavailable', `pod ${uid} is not known, but the list of this node's pods is not complete yet`);
}
