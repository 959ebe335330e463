import type { Alarm, Clock } from '../clock.ts';

export interface KeyPropagationOptions {
  /** Between the write of a key and its first token, in milliseconds. */
  readonly propagationMs: number;
  /** A key that cannot be published signs nevertheless after this time, in milliseconds. */
  readonly patienceMs: number;
  /** True when everybody has had the time to hear of a key before this process began. */
  readonly wasKnownBefore: (kid: string) => boolean;
  readonly clock: Clock;
}

/** Which keys other nodes have had the time to hear of, and who waits for that. */
export class KeyPropagation {
  readonly #options: KeyPropagationOptions;
  /** By `kid`, in monotonic milliseconds: since when a key is wanted, and since when it is published. */
  readonly #wantedSince = new Map<string, number>();
  readonly #publishedSince = new Map<string, number>();
  readonly #waiting = new Map<string, PromiseWithResolvers<void>>();
  #alarm: Alarm | undefined;
  #isClosed = false;

  constructor(options: KeyPropagationOptions) {
    this.#options = options;
  }

  /** These are all the keys there are; the time of a new one begins. */
  want(kids: ReadonlySet<string>): void {
    for (const map of [this.#wantedSince, this.#publishedSince]) {
      for (const kid of map.keys()) if (!kids.has(kid) && !this.#waiting.has(kid)) map.delete(kid);
    }
    for (const kid of kids) this.#begin(this.#wantedSince, kid);
  }

  /** The cluster has these keys now. */
  published(kids: Iterable<string>): void {
    for (const kid of kids) this.#begin(this.#publishedSince, kid);
    this.#look();
  }

  isPublished(kid: string): boolean {
    const { wasKnownBefore, propagationMs } = this.#options;
    return wasKnownBefore(kid) || this.#isPast(this.#publishedSince, kid, propagationMs);
  }

  isReady(kid: string): boolean {
    return this.isPublished(kid) || this.#isPast(this.#wantedSince, kid, this.#options.patienceMs);
  }

  /** Resolves when `isReady(kid)`, at once when it is; also when closed. */
  ready(kid: string): Promise<void> {
    if (this.#isClosed || this.isReady(kid)) return Promise.resolve();
    this.#begin(this.#wantedSince, kid);
    const waiting = this.#waiting.get(kid) ?? Promise.withResolvers<void>();
    this.#waiting.set(kid, waiting);
    this.#look();
    return waiting.promise;
  }

  close(): void {
    this.#isClosed = true;
    this.#alarm?.cancel();
    for (const { resolve } of this.#waiting.values()) resolve();
    this.#waiting.clear();
  }

  #begin(since: Map<string, number>, kid: string): void {
    if (!since.has(kid)) since.set(kid, this.#options.clock.monotonic());
  }

  #isPast(since: ReadonlyMap<string, number>, kid: string, ms: number): boolean {
    const begun = since.get(kid);
    return begun !== undefined && this.#options.clock.monotonic() - begun >= ms;
  }

  /** Lets go whoever need not wait any more, and rings when the next need not. */
  #look(): void {
    this.#alarm?.cancel();
    for (const [kid, { resolve }] of [...this.#waiting]) if (this.isReady(kid) && this.#waiting.delete(kid)) resolve();
    if (this.#isClosed || this.#waiting.size === 0) return;
    const { clock, propagationMs, patienceMs } = this.#options;
    const ends = [...this.#waiting.keys()].flatMap((kid) => [
      (this.#publishedSince.get(kid) ?? Infinity) + propagationMs,
      (this.#wantedSince.get(kid) ?? Infinity) + patienceMs,
    ]);
    this.#alarm = clock.after(Math.max(Math.min(...ends) - clock.monotonic(), 1), () => this.#look());
  }
}
