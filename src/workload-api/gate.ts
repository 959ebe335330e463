import type { Clock } from '../clock.ts';

/** Something that is not there yet. Those who need it wait, for a bounded time. */
export class Gate<T> {
  readonly #clock: Clock;
  readonly #waiters = new Set<(value: T | undefined) => void>();
  #value: T | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get value(): T | undefined {
    return this.#value;
  }

  open(value: T): void {
    this.#value = value;
    for (const waiter of this.#waiters) waiter(value);
    this.#waiters.clear();
  }

  /** The value, or undefined when it has not come within `timeoutMs`. */
  wait(timeoutMs: number): Promise<T | undefined> {
    if (this.#value !== undefined) return Promise.resolve(this.#value);
    return new Promise((resolve) => {
      const answer = (value: T | undefined): void => {
        alarm.cancel();
        this.#waiters.delete(answer);
        resolve(value);
      };
      const alarm = this.#clock.after(timeoutMs, () => answer(undefined));
      this.#waiters.add(answer);
    });
  }
}
