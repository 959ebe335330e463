export interface WritePlanLimits {
  /** Without a change of what is to be written, default 10,000 ms. */
  readonly quietMs: number;
  /** From the first difference, whatever still changes and whoever is late, default 90,000 ms. */
  readonly latestMs: number;
  /** Between two writes to one object, default 30,000 ms. */
  readonly intervalMs: number;
}

export const DEFAULT_WRITE_LIMITS: WritePlanLimits = { quietMs: 10_000, latestMs: 90_000, intervalMs: 30_000 };

interface Difference {
  readonly text: string;
  readonly since: number;
  readonly changedAt: number;
}

interface Attempt {
  readonly text: string;
  readonly at: number;
  /** How often the same has been written in a row. */
  readonly times: number;
}

/** Where the same has to be written again and again, someone else writes too, or the write is refused. */
const LONGEST_INTERVAL_MS = 1_800_000;

/** When to write what to which object, so that a change that concerns all nodes costs one write. Times are monotonic. */
export class WritePlan {
  readonly #limits: WritePlanLimits;
  readonly #differences = new Map<string, Difference>();
  readonly #attempts = new Map<string, Attempt>();

  constructor(limits: WritePlanLimits) {
    this.#limits = limits;
  }

  /** Objects that are not as they should be. */
  get pending(): number {
    return this.#differences.size;
  }

  isRight(key: string): void {
    this.#differences.delete(key);
  }

  /**
   * `text` should be there and is not. True when it is to be written now.
   *
   * @param isLate whether some node has yet to tell; it is waited for a while.
   */
  isDue(key: string, text: string, isLate: boolean, now: number): boolean {
    const before = this.#differences.get(key);
    const difference = before?.text === text ? before : { text, since: before?.since ?? now, changedAt: now };
    this.#differences.set(key, difference);
    const { quietMs, latestMs } = this.#limits;
    const isQuiet = !isLate && now - difference.changedAt >= quietMs;
    return (isQuiet || now - difference.since >= latestMs) && now >= this.#notBefore(key, text);
  }

  /** Returns how often the same has been written in a row. */
  wrote(key: string, text: string, now: number): number {
    const before = this.#attempts.get(key);
    const times = before?.text === text ? before.times + 1 : 1;
    this.#attempts.set(key, { text, at: now, times });
    this.#differences.delete(key);
    return times;
  }

  retain(keys: ReadonlySet<string>): void {
    for (const map of [this.#differences, this.#attempts]) for (const key of map.keys()) if (!keys.has(key)) map.delete(key);
  }

  #notBefore(key: string, text: string): number {
    const attempt = this.#attempts.get(key);
    if (attempt === undefined) return -Infinity;
    const { intervalMs } = this.#limits;
    const factor = attempt.text === text ? 2 ** Math.min(attempt.times - 1, 10) : 1;
    return attempt.at + Math.min(intervalMs * factor, LONGEST_INTERVAL_MS);
  }
}
