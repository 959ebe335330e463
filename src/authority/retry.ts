import type { Random } from '../random.ts';

/** First after a second, at last every minute; half of each wait is random, so that nodes do not come back together. */
const FIRST_MS = 1_000;
const LAST_MS = 60_000;

/** How long to wait after each failure in a row. */
export class Retry {
  readonly #random: Random;
  #failures = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Counts a failure; returns the milliseconds until the next attempt. */
  failed(): number {
    const full = Math.min(FIRST_MS * 2 ** Math.min(this.#failures, 10), LAST_MS);
    this.#failures += 1;
    return full * (0.5 + 0.5 * this.#random.fraction());
  }

  reset(): void {
    this.#failures = 0;
  }
}
