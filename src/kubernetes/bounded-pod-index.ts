import { SignetError } from '../errors.ts';
import { PodIndex, type PodAndContainer, type PodChange, type PodIndexOptions, type PodListener } from './pod-index.ts';
import type { Pod } from './pod.ts';

export interface BoundedPodIndexOptions extends PodIndexOptions {
  /** Is told once of each pod that is too large to be kept. */
  readonly onOversized?: (pod: Pod) => void;
}

/**
 * An index in which a pod that is too large to be kept is known, but cannot be found: it has no labels and owners to judge it by, so
 * its callers are refused, and nobody else's. To listeners it is one that was removed, and a new one when it is small enough again.
 */
export class BoundedPodIndex extends PodIndex {
  readonly #oversized = new Map<string, Pod>();
  readonly #waited = new Map<string, number>();
  readonly #told = new Set<PodListener>();
  readonly #onOversized: (pod: Pod) => void;

  constructor(options: BoundedPodIndexOptions) {
    super(options);
    this.#onOversized = (pod) => options.onOversized?.(pod);
    for (const pod of super.all()) this.#note(pod);
    super.onChange((change, pod) => this.#changed(change, pod));
  }

  /** Pods that are too large to be kept. */
  get oversized(): number {
    return this.#oversized.size;
  }

  override *listed(): Generator<Pod, void, undefined> {
    for (const pod of super.listed()) if (pod.oversized === undefined) yield pod;
  }

  override *all(): Generator<Pod, void, undefined> {
    for (const pod of super.all()) if (pod.oversized === undefined) yield pod;
  }

  override find(uid: string): Pod | undefined {
    const pod = super.find(uid);
    return pod?.oversized === undefined ? pod : undefined;
  }

  /** As `PodIndex` does. @throws also SignetError `caller_unknown` for a pod that is too large to be kept. */
  override async waitFor(uid: string, timeoutMs: number, signal?: AbortSignal): Promise<Pod | undefined> {
    return this.#waiting(uid, async () => assertKept(await super.waitFor(uid, timeoutMs, signal)));
  }

  override async waitForContainer(uid: string, containerId: string, timeoutMs: number, signal?: AbortSignal): Promise<PodAndContainer | undefined> {
    return this.#waiting(uid, async () => {
      const found = await super.waitForContainer(uid, containerId, timeoutMs, signal);
      assertKept(found?.pod);
      return found;
    });
  }

  /** True when `pods` has everyone that somebody waits for. */
  hasAllAwaited(pods: readonly Pod[]): boolean {
    const there = new Set(pods.flatMap(({ uid, configHash }) => [uid, configHash]));
    return [...this.#waited.keys()].every((uid) => there.has(uid));
  }

  override onChange(listener: PodListener): () => void {
    this.#told.add(listener);
    return () => void this.#told.delete(listener);
  }

  async #waiting<R>(uid: string, wait: () => Promise<R>): Promise<R> {
    assertKept(this.#oversized.get(uid));
    this.#waited.set(uid, (this.#waited.get(uid) ?? 0) + 1);
    try {
      return await wait();
    } finally {
      const left = (this.#waited.get(uid) ?? 1) - 1;
      if (left > 0) this.#waited.set(uid, left);
      else this.#waited.delete(uid);
    }
  }

  #changed(change: PodChange, pod: Pod): void {
    const wasOversized = this.#oversized.has(pod.uid);
    if (change === 'removed') this.#oversized.delete(pod.uid);
    else this.#note(pod);
    const isOversized = this.#oversized.has(pod.uid);
    if (isOversized && wasOversized) return;
    if (isOversized && change !== 'added') this.#tell('removed', pod);
    // Whoever looks for it from now on finds nothing, or finds it again.
    this.#tell(isOversized || (wasOversized && change === 'changed') ? 'added' : change, pod);
  }

  #note(pod: Pod): void {
    const isNew = pod.oversized !== undefined && !this.#oversized.has(pod.uid);
    if (pod.oversized === undefined) this.#oversized.delete(pod.uid);
    else this.#oversized.set(pod.uid, pod);
    if (isNew) this.#onOversized(pod);
  }

  #tell(change: PodChange, pod: Pod): void {
    for (const listener of [...this.#told]) listener(change, pod);
  }
}

function assertKept(pod: Pod | undefined): Pod | undefined {
  if (pod?.oversized === undefined) return pod;
  const what = `labels, annotations, owners and containers of pod ${pod.namespace}/${pod.name} come to ${pod.oversized} bytes`;
  throw new SignetError('caller_unknown', `the ${what}: that is more than is kept of a pod, so nothing is said of its processes`);
}
