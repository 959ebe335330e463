import type { Alarm, Clock } from '../clock.ts';
import type { Pod } from './pod.ts';

/** Many times what one node runs; the oldest goes first. */
const MOST_UNLISTED = 2_048;

export interface UnlistedOptions {
  /** How long a pod is kept that nobody holds. */
  readonly keepMs: number;
  /** True for a pod that is in use: neither time nor number ends it. */
  readonly isHeld: (pod: Pod) => boolean;
  /** False while nobody can tell that a pod is listed after all: then time ends nothing. */
  readonly canExpire: () => boolean;
  readonly onRemoved: (pod: Pod) => void;
}

interface Unlisted {
  readonly pod: Pod;
  /** Monotonic milliseconds. */
  readonly until: number;
}

/** Pods that the source does not list any more, or not yet, while their processes run; bounded in time and number. */
export class UnlistedPods {
  readonly #clock: Clock;
  readonly #options: UnlistedOptions;
  /** Oldest first. */
  readonly #pods = new Map<string, Unlisted>();
  #alarm: Alarm | undefined;

  constructor(clock: Clock, options: UnlistedOptions) {
    this.#clock = clock;
    this.#options = options;
  }

  get size(): number {
    return this.#pods.size;
  }

  *all(): Generator<Pod, void, undefined> {
    for (const { pod } of this.#pods.values()) yield pod;
  }

  add(pod: Pod): void {
    this.#put(pod);
    this.#removeExcess();
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

  /** The time of the pods with this UID or hash begins anew. */
  renew(uid: string): void {
    for (const { pod } of [...this.#pods.values()]) if (pod.uid === uid || pod.configHash === uid) this.#put(pod);
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

  #put(pod: Pod): void {
    this.#pods.delete(pod.uid);
    this.#pods.set(pod.uid, { pod, until: this.#clock.monotonic() + this.#options.keepMs });
  }

  #remove(pod: Pod): void {
    if (this.#pods.delete(pod.uid)) this.#options.onRemoved(pod);
  }

  /** The newest one stays, whatever the others are: somebody has just asked for it, or told of it. */
  #removeExcess(): void {
    let excess = this.#pods.size - MOST_UNLISTED;
    if (excess <= 0) return;
    for (const { pod } of [...this.#pods.values()].slice(0, -1)) {
      if (excess === 0) return;
      if (this.#options.isHeld(pod)) continue;
      this.#remove(pod);
      excess -= 1;
    }
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
    const { canExpire, isHeld } = this.#options;
    const now = this.#clock.monotonic();
    const isSure = canExpire();
    for (const { pod, until } of [...this.#pods.values()]) {
      if (until > now) continue;
      if (isSure && !isHeld(pod)) this.#remove(pod);
      else this.#put(pod);
    }
  }
}
