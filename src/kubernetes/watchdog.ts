import type { Alarm, Clock } from '../clock.ts';

/** One deadline at a time; setting a new one calls off the old. */
export class Watchdog {
  readonly #clock: Clock;
  readonly #bite: (waited: string) => void;
  #alarm: Alarm | undefined;

  /** @param bite is called with what did not happen, and for how long: `no connection after 5000 ms`. */
  constructor(clock: Clock, bite: (waited: string) => void) {
    this.#clock = clock;
    this.#bite = bite;
  }

  arm(ms: number, what: string): void {
    this.disarm();
    this.#alarm = this.#clock.after(ms, () => this.#bite(`${what} after ${ms} ms`));
  }

  disarm(): void {
    this.#alarm?.cancel();
    this.#alarm = undefined;
  }
}
