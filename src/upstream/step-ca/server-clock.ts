import type { Clock } from '../../clock.ts';
import type { Log } from '../../log.ts';

/** A smaller difference is that of whole seconds and of the way. */
const NOTEWORTHY_MS = 5_000;

/** What the clock of the server says, from the Date of its answers (RFC 9110 §6.6.1). */
export class ServerClock {
  readonly #clock: Clock;
  readonly #log: Log;
  /** How much the server is ahead, in milliseconds. */
  #aheadMs = 0;
  #told: string | undefined;

  constructor(clock: Clock, log: Log) {
    this.#clock = clock;
    this.#log = log;
  }

  /** Notes the Date of an answer that has just come. */
  note(date: string | undefined): void {
    const at = Date.parse(date ?? '');
    if (Number.isNaN(at)) return;
    const now = this.#clock.now();
    // Somewhere in the second that is written.
    this.#aheadMs = now < at ? at - now : Math.min(0, at + 999 - now);
    if (this.describe() === undefined) this.#told = undefined;
  }

  /** Milliseconds since the Unix epoch. */
  now(): number {
    return this.#clock.now() + this.#aheadMs;
  }

  /** What is wrong with the own clock, if anything. */
  describe(): string | undefined {
    if (Math.abs(this.#aheadMs) < NOTEWORTHY_MS) return undefined;
    return `the clock of this machine is ${Math.round(Math.abs(this.#aheadMs) / 1000)} s ${this.#aheadMs > 0 ? 'behind' : 'ahead of'} that of step-ca`;
  }

  /** Says so in the log, once until it is over. */
  tell(): void {
    const lag = this.describe();
    if (lag === undefined || this.#told !== undefined) return;
    this.#told = lag;
    const reason = `${lag}, which has refused a token for it; one by its own clock is taken. What to do: set the clock of this machine right`;
    this.#log.warn({ event: 'upstream.warning', reason }, 'step-ca has signed a node CA, with a warning');
  }
}
