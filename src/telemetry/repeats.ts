import type { Alarm, Clock } from '../clock.ts';

/** What is the same within this time is told once. */
export const REPEAT_MS = 10_000;
/** What is remembered at most; more than that is told each time. */
const MOST_KEYS = 4_096;

interface Remembered<T> {
  readonly fact: T;
  count: number;
  readonly alarm: Alarm;
}

/** Tells what is new from what happens again, and sums the latter up. */
export class Repeats<T> {
  readonly #clock: Clock;
  readonly #onSum: (fact: T, count: number) => void;
  readonly #known = new Map<string, Remembered<T>>();

  /** @param onSum is told at the end of the time how often the fact happened again, if it did. */
  constructor(clock: Clock, onSum: (fact: T, count: number) => void) {
    this.#clock = clock;
    this.#onSum = onSum;
  }

  /** False for what is remembered; it is counted. */
  isFirst(key: string): boolean {
    const known = this.#known.get(key);
    if (known === undefined) return true;
    known.count += 1;
    return false;
  }

  remember(key: string, fact: T): void {
    if (this.#known.size >= MOST_KEYS) return;
    this.#known.set(key, { fact, count: 0, alarm: this.#clock.after(REPEAT_MS, () => this.#forget(key)) });
  }

  /** Sums up what is remembered. */
  close(): void {
    for (const [key, { alarm }] of [...this.#known]) {
      alarm.cancel();
      this.#forget(key);
    }
  }

  #forget(key: string): void {
    const known = this.#known.get(key);
    this.#known.delete(key);
    if (known !== undefined && known.count > 0) this.#onSum(known.fact, known.count);
  }
}
