import type { Alarm, Clock } from '../clock.ts';
import type { Pod } from './pod.ts';

/** Many times what one node runs; the oldest goes first. */
const MOST_UNLISTED = 2_048;

interface Unlisted {
  readonly pod: Pod;
  /** Monotonic milliseconds. */
  readonly until: number;
}

/** Pods that the source does not list any more, or not yet, while their processes run; bounded in time and number. */
export class UnlistedPods {
  readonly #clock: Clock;
  readonly #keepMs: number;
  readonly #onRemoved: (pod: Pod) => void;
  /** Oldest first. */
  readonly #pods = new Map<string, Unlisted>();
  #alarm: Alarm | undefined;

  constructor(clock: Clock, keepMs: number, onRemoved: (pod: Pod) => void) {
    this.#clock = clock;
    this.#keepMs = keepMs;
    this.#onRemoved = onRemoved;
  }

  get size(): number {
    return this.#pods.size;
  }

  *all(): Generator<Pod, void, undefined> {
    for (const { pod } of this.#pods.values()) yield pod;
  }

  add(pod: Pod): void {
    this.#pods.delete(pod.uid);
    this.#pods.set(pod.uid, { pod, until: this.#clock.monotonic() + this.#keepMs });
    if (this.#pods.size > MOST_UNLISTED) this.#removeOldest();
    this.#arm();
  }

  /** By UID, or by the hash of a static pod when only one pod has it. */
  find(uid: string): Pod | undefined {
    const exact = this.#pods.get(uid);
    if (exact !== undefined) return exact.pod;
    const claimants = [...this.#pods.values()].filter(({ pod }) => pod.configHash === uid);
    return claimants.length === 1 ? claimants[0]?.pod : undefined;
  }

  /** Takes a pod out that is listed. */
  take(uid: string): Pod | undefined {
    const found = this.#pods.get(uid)?.pod;
    this.#pods.delete(uid);
    return found;
  }

  /** By UID or hash. */
  release(uid: string): void {
    const found = this.find(uid);
    if (found !== undefined) this.#remove(found);
  }

  close(): void {
    this.#alarm?.cancel();
    this.#alarm = undefined;
  }

  #remove(pod: Pod): void {
    if (this.#pods.delete(pod.uid)) this.#onRemoved(pod);
  }

  #removeOldest(): void {
    const [oldest] = this.#pods.values();
    if (oldest !== undefined) this.#remove(oldest.pod);
  }

  #arm(): void {
    const [oldest] = this.#pods.values();
    if (oldest === undefined || this.#alarm !== undefined) return;
    this.#alarm = this.#clock.after(Math.max(oldest.until - this.#clock.monotonic(), 0), () => {
      this.#alarm = undefined;
      this.#expire();
      this.#arm();
    });
  }

  #expire(): void {
    const now = this.#clock.monotonic();
    for (const { pod, until } of [...this.#pods.values()]) if (until <= now) this.#remove(pod);
  }
}
