import type { Clock } from '../clock.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';

export interface UnknownKeyWaitsOptions {
  /** How long a token may wait for its key, default 2,000 ms. */
  readonly timeoutMs?: number;
  /** Tokens of one owner that wait at a time, default 4; a further one is refused at once. */
  readonly perOwner?: number;
  /** The same for all owners, default 64. */
  readonly inAll?: number;
  /** Called when a token begins to wait. */
  readonly onWait?: () => void;
}

/** What is needed of a trust store. */
interface Trust {
  own(): TrustBundle;
  onChange(listener: () => void): () => void;
}

interface Waiter {
  readonly kid: string;
  readonly end: (isKnown: boolean) => void;
}

/**
 * Tokens whose key is not in the bundle yet: another node has signed with a key that this one is just about to hear of. Nobody can
 * hold more than a few by sending tokens with keys that do not exist.
 */
export class UnknownKeyWaits {
  readonly #trust: Trust;
  readonly #clock: Clock;
  readonly #options: Required<UnknownKeyWaitsOptions>;
  readonly #waiters = new Set<Waiter>();
  readonly #perOwner = new Map<string, number>();
  readonly #stop: () => void;
  #isClosed = false;

  constructor(trust: Trust, clock: Clock, options: UnknownKeyWaitsOptions = {}) {
    this.#trust = trust;
    this.#clock = clock;
    this.#options = { timeoutMs: 2_000, perOwner: 4, inAll: 64, onWait: () => undefined, ...options };
    this.#stop = trust.onChange(() => this.#look());
  }

  /** How many wait now. */
  get size(): number {
    return this.#waiters.size;
  }

  /**
   * Resolves with true as soon as the own bundle has a key `kid`, with false when it has not in time. Undefined: too many wait, this
   * one must not. `owner`: who pays for it, as for other limits.
   */
  wait(kid: string, owner: string): Promise<boolean> | undefined {
    const count = this.#perOwner.get(owner) ?? 0;
    if (this.#isClosed || count >= this.#options.perOwner || this.#waiters.size >= this.#options.inAll) return undefined;
    this.#perOwner.set(owner, count + 1);
    return new Promise((resolve) => {
      const end = (isKnown: boolean): void => {
        alarm.cancel();
        this.#waiters.delete(waiter);
        this.#leave(owner);
        resolve(isKnown);
      };
      const waiter: Waiter = { kid, end };
      const alarm = this.#clock.after(this.#options.timeoutMs, () => end(false));
      this.#waiters.add(waiter);
      this.#options.onWait();
      this.#look();
    });
  }

  /** Nobody waits any more, now or later. */
  close(): void {
    this.#isClosed = true;
    this.#stop();
    for (const { end } of [...this.#waiters]) end(false);
  }

  #look(): void {
    if (this.#waiters.size === 0) return;
    const known = new Set(this.#trust.own().jwtAuthorities.map(({ kid }) => kid));
    for (const { kid, end } of [...this.#waiters]) if (known.has(kid)) end(true);
  }

  #leave(owner: string): void {
    const count = (this.#perOwner.get(owner) ?? 1) - 1;
    if (count === 0) this.#perOwner.delete(owner);
    else this.#perOwner.set(owner, count);
  }
}
