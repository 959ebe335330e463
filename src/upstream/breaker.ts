import type { Clock } from '../clock.ts';
import type { Random } from '../random.ts';

export interface BreakerOptions {
  /** Failures in a row that open it. */
  readonly failures: number;
  /** Time between two probes while it is open, in milliseconds; up to a quarter less. */
  readonly probeMs: number;
  /** A longer pause that the upstream asks for is cut to this, in milliseconds. */
  readonly longestPauseMs: number;
}

/** `open`: nothing is asked. `half_open`: one request is under way, and its outcome decides. */
export type BreakerState = 'closed' | 'open' | 'half_open';

/** Part of a pause that is random, so that nodes do not come back together. */
const JITTER = 1 / 4;

/** Stops asking an upstream that fails, and finds out with one request at a time when it is back. */
export class Breaker {
  readonly #options: BreakerOptions;
  readonly #clock: Clock;
  readonly #random: Random;
  #state: BreakerState = 'closed';
  #failures = 0;
  #openedAt = 0;
  #probeAt = 0;
  /** Until when the upstream itself has asked for quiet. */
  #quietUntil = 0;

  constructor(options: BreakerOptions, clock: Clock, random: Random) {
    this.#options = options;
    this.#clock = clock;
    this.#random = random;
  }

  get state(): BreakerState {
    return this.#state;
  }

  /** How long it has not been closed, in milliseconds. */
  get openForMs(): number {
    return this.#state === 'closed' ? 0 : this.#clock.monotonic() - this.#openedAt;
  }

  /** Milliseconds until something may be asked: 0 now, Infinity while a probe is under way. */
  waitMs(): number {
    if (this.#state === 'closed') return 0;
    return this.#state === 'half_open' ? Infinity : Math.max(this.#probeAt - this.#clock.monotonic(), 0);
  }

  /** Something is asked. True when it is the probe. */
  begin(): boolean {
    if (this.#state !== 'open') return false;
    this.#state = 'half_open';
    return true;
  }

  /** True when it closes by it. What was asked before it opened proves nothing about now. */
  answered(isProbe: boolean): boolean {
    if (this.#state !== 'closed' && !isProbe) return false;
    const closes = this.#state !== 'closed';
    this.#state = 'closed';
    this.#failures = 0;
    return closes;
  }

  failed(isProbe: boolean, retryAfterMs: number | undefined): void {
    this.#failures += 1;
    this.#obey(retryAfterMs);
    const isTooMany = this.#failures >= this.#options.failures || retryAfterMs !== undefined;
    if (isProbe) this.#open();
    else if (isTooMany) this.trip();
    this.#probeAt = Math.max(this.#probeAt, this.#quietUntil);
  }

  /** Opens, if it is closed. */
  trip(): void {
    if (this.#state !== 'closed') return;
    this.#openedAt = this.#clock.monotonic();
    this.#open();
  }

  /** The probe was given up without an outcome: the next one may follow at once. */
  gaveUp(isProbe: boolean): void {
    if (isProbe && this.#state === 'half_open') this.#state = 'open';
  }

  /** There is a sign that the upstream is back: the next probe need not wait, unless the upstream has asked for quiet. */
  wake(): void {
    this.#probeAt = this.#quietUntil;
  }

  #open(): void {
    this.#state = 'open';
    this.#probeAt = this.#clock.monotonic() + this.#options.probeMs * (1 - JITTER * this.#random.fraction());
  }

  #obey(retryAfterMs: number | undefined): void {
    if (retryAfterMs === undefined) return;
    const pause = Math.min(retryAfterMs, this.#options.longestPauseMs) * (1 + JITTER * this.#random.fraction());
    this.#quietUntil = Math.max(this.#quietUntil, this.#clock.monotonic() + pause);
  }
}
