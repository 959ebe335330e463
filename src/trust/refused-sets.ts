import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';

/** An object that is refused is told again only after this time, and only so many are told in it. */
const TELL_MS = 600_000;
const MOST_TOLD = 20;
const LONGEST_REASON = 300;

/** Says which key sets are not believed: whoever writes objects must not be able to fill the log. */
export class RefusedSets {
  readonly #clock: Clock;
  readonly #log: Log | undefined;
  readonly #told = new Map<string, number>();

  constructor(clock: Clock, log?: Log) {
    this.#clock = clock;
    this.#log = log;
  }

  tell(name: string, reason: string): void {
    const now = this.#clock.monotonic();
    for (const [other, since] of this.#told) if (now - since >= TELL_MS) this.#told.delete(other);
    if (this.#told.has(name) || this.#told.size >= MOST_TOLD) return;
    this.#told.set(name, now);
    const fields = { event: 'jwt_keys.refused', reason: `${name}: ${reason}`.slice(0, LONGEST_REASON) };
    this.#log?.warn(fields, 'JWT keys that an object of the cluster publishes are not believed');
  }
}
