import type { Alarm, Clock } from '../clock.ts';
import { KubernetesError } from './api-error.ts';

/** One moment on both clocks, in milliseconds. */
export interface Moment {
  readonly monotonic: number;
  readonly wall: number;
}

/**
 * Until when a holder may believe that it is one. Both clocks count: a monotonic one may stand still while a machine sleeps, a
 * wall clock may be set back.
 */
export class Deadline {
  readonly #clock: Clock;
  readonly #ms: number;
  readonly #reason: string;
  readonly #over = new AbortController();
  #alarms: Alarm[] = [];

  constructor(clock: Clock, ms: number, reason: string) {
    this.#clock = clock;
    this.#ms = ms;
    this.#reason = reason;
  }

  get signal(): AbortSignal {
    return this.#over.signal;
  }

  /** Counts anew from the moment at which a renewal was sent. */
  extend(from: Moment): void {
    this.cancel();
    const end = (): void => this.#over.abort(new KubernetesError('timed_out', this.#reason));
    const leftMs = from.monotonic + this.#ms - this.#clock.monotonic();
    this.#alarms = [this.#clock.after(Math.max(leftMs, 0), end), this.#clock.at(from.wall + this.#ms, end)];
  }

  cancel(): void {
    for (const alarm of this.#alarms) alarm.cancel();
  }
}
