import type { Clock } from '../clock.ts';
import { ConnectionFault } from './fault.ts';
import { Code } from './frames.ts';

/** Frames that bring nothing forward: so many at once, and so many a second. */
const MOST = 1_000;
const PER_SECOND = 1_000;

/** For each message that was written: clients answer with window updates and pings. */
const EARNED = 8;

/** How much a connection may ask that brings nothing forward. What it cannot pay for ends it (RFC 9113 §10.5). */
export class Calm {
  readonly #clock: Clock;
  #left = MOST;
  #since: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#since = clock.monotonic();
  }

  earn(): void {
    this.#left = Math.min(this.#left + EARNED, MOST);
  }

  /** @throws {ConnectionFault} ENHANCE_YOUR_CALM */
  spend(cost: number): void {
    this.#left -= cost;
    if (this.#left >= 0) return;
    // The time is looked at only now: most connections never come here.
    const now = this.#clock.monotonic();
    this.#left = Math.min(this.#left + ((now - this.#since) / 1000) * PER_SECOND, MOST);
    this.#since = now;
    if (this.#left < 0) throw new ConnectionFault(Code.enhanceYourCalm, 'too many frames that bring nothing forward (RFC 9113 §10.5)');
  }
}
