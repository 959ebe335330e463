import type { Clock } from '../clock.ts';

/** How long one owner's connections may be busy in one turn of the event loop while others wait, in milliseconds. */
const SLICE_MS = 2;

/**
 * Shares the event loop among owners: whoever has used up the slice of a turn goes on in the next one, after all others have been looked
 * at. So what one owner asks for delays another by the slices of those who are busy, not by all that they ask for.
 */
export class Turns {
  readonly #clock: Clock;
  readonly #spent = new Map<string, number>();
  /** What waits for the next turn, by owner; each in its order, and the owners in turn. */
  readonly #waiting = new Map<string, (() => void)[]>();
  readonly #endTurn = (): void => this.#nextTurn();
  #running: string | undefined;
  #since = 0;
  #isScheduled = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Begins work for `owner`, which lasts until the next one begins; false when its slice of this turn is used up. */
  begin(owner: string): boolean {
    this.#charge();
    this.#schedule();
    this.#running = owner;
    return (this.#spent.get(owner) ?? 0) < SLICE_MS && !this.#waiting.has(owner);
  }

  /** Calls `work` in a later turn, after what waits already for `owner`. */
  later(owner: string, work: () => void): void {
    const queue = this.#waiting.get(owner);
    if (queue === undefined) this.#waiting.set(owner, [work]);
    else queue.push(work);
    this.#schedule();
  }

  #charge(): void {
    const now = this.#clock.monotonic();
    if (this.#running !== undefined) this.#spent.set(this.#running, (this.#spent.get(this.#running) ?? 0) + now - this.#since);
    this.#since = now;
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(this.#endTurn);
  }

  #nextTurn(): void {
    this.#charge();
    this.#running = undefined;
    this.#spent.clear();
    this.#runSome([...this.#waiting.keys()], 0);
  }

  /** One piece of work, then all that follows from it, and then the next one: of the same owner until its slice is used up. */
  #runSome(owners: readonly string[], at: number): void {
    this.#charge();
    let next = at;
    while (next < owners.length && this.#isDone(owners[next]!)) next += 1;
    const owner = owners[next];
    if (owner === undefined) {
      this.#running = undefined;
      this.#isScheduled = false;
      if (this.#waiting.size > 0) this.#schedule();
      return;
    }
    this.#running = owner;
    try {
      this.#take(owner)?.();
    } finally {
      // Promises that are settled by now are followed up before the next tick.
      queueMicrotask(() => process.nextTick(() => this.#runSome(owners, next)));
    }
  }

  #isDone(owner: string): boolean {
    return !this.#waiting.has(owner) || (this.#spent.get(owner) ?? 0) >= SLICE_MS;
  }

  #take(owner: string): (() => void) | undefined {
    const queue = this.#waiting.get(owner);
    const work = queue?.shift();
    if (queue?.length === 0) this.#waiting.delete(owner);
    return work;
  }
}
