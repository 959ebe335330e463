import { sleep, type Clock } from '../clock.ts';
import type { Random } from '../random.ts';

const FIRST_MS = 200;
const LONGEST_MS = 5_000;
/** An overloaded server may ask for more patience than the longest wait, but not for any amount of it. */
const LONGEST_ASKED_MS = 30_000;

/** Growing waits, half of each random so that a cluster's agents do not come back together. A nudge ends the wait under way. */
export class BackOff {
  readonly #clock: Clock;
  readonly #random: Random;
  #failures = 0;
  #wake: AbortController | undefined;

  constructor(clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  /** Failures in a row. */
  get failures(): number {
    return this.#failures;
  }

  reset(): void {
    this.#failures = 0;
  }

  /** Waits after a failure: from 200 ms, doubled each time, at most 5 s; or what the server asked for, at most 30 s. */
  async failed(signal: AbortSignal, askedMs = 0): Promise<void> {
    const full = Math.min(FIRST_MS * 2 ** Math.min(this.#failures, 10), LONGEST_MS);
    this.#failures += 1;
    await this.rest(Math.max(full * (0.5 + 0.5 * this.#random.fraction()), Math.min(askedMs, LONGEST_ASKED_MS)), signal);
  }

  /** Waits `ms`, or until nudged. Rejects with the signal's reason. */
  async rest(ms: number, signal: AbortSignal): Promise<void> {
    const wake = new AbortController();
    this.#wake = wake;
    try {
      await sleep(this.#clock, ms, AbortSignal.any([signal, wake.signal]));
    } catch (error) {
      if (signal.aborted || !wake.signal.aborted) throw error;
    } finally {
      this.#wake = undefined;
    }
  }

  /** Ends the wait under way, if there is one. */
  nudge(): void {
    this.#wake?.abort();
  }
}
