import type { Alarm, Clock } from '../clock.ts';

/** Something to ask an upstream for. */
export interface Work<T> {
  /** Asks once. It may be called again after a failure, and must end when `signal` is aborted. */
  do(signal: AbortSignal): Promise<T>;
  /** When what this replaces ends, in milliseconds since the Unix epoch; absent when there is nothing that goes on meanwhile. */
  readonly heldUntil?: number;
  /** How long it may wait in all, in milliseconds. */
  readonly waitMs?: number;
  /** Whoever asks with the same key while it is under way shares its outcome. Default: nobody does. */
  readonly key?: string;
}

interface Asker {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** One piece of work with everybody who waits for it. */
export class Item {
  readonly work: Work<unknown>;
  /** The lowest goes first. */
  readonly rank: number;
  /** Aborted as soon as nobody waits any more. */
  readonly abandoned = new AbortController();
  readonly #askers = new Set<Asker>();
  readonly #alarm: Alarm;
  attempts = 0;
  /** Not before then, on the monotonic clock. */
  readyAt = 0;
  /** Its time is over: it is not tried again. */
  isLate = false;
  /** The failure of the last attempt. */
  failure: unknown;

  constructor(work: Work<unknown>, rank: number, clock: Clock, waitMs: number, onLate: (item: Item) => void) {
    this.work = work;
    this.rank = rank;
    this.#alarm = clock.after(waitMs, () => {
      this.isLate = true;
      onLate(this);
    });
  }

  /** Whether anybody waits for it. */
  get isWanted(): boolean {
    return this.#askers.size > 0;
  }

  /** Waits for the outcome, or until `signal` is aborted. `onEmpty` is called when nobody waits any more. */
  join(signal: AbortSignal, onEmpty: () => void): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#askers.delete(asker);
        reject(signal.reason);
        if (this.#askers.size > 0) return;
        this.#alarm.cancel();
        this.abandoned.abort(signal.reason);
        onEmpty();
      };
      const done = (): void => signal.removeEventListener('abort', leave);
      const asker: Asker = { resolve: (value) => (done(), resolve(value)), reject: (error) => (done(), reject(error)) };
      this.#askers.add(asker);
      signal.addEventListener('abort', leave, { once: true });
    });
  }

  resolve(value: unknown): void {
    for (const asker of this.#end()) asker.resolve(value);
  }

  reject(error: unknown): void {
    for (const asker of this.#end()) asker.reject(error);
  }

  #end(): Asker[] {
    this.#alarm.cancel();
    const askers = [...this.#askers];
    this.#askers.clear();
    return askers;
  }
}

/** What waits, the lowest rank first; of equals the one that has failed less often, then the one that came first. */
export class GuardQueue {
  readonly #items = new Set<Item>();

  get size(): number {
    return this.#items.size;
  }

  add(item: Item): void {
    this.#items.add(item);
  }

  delete(item: Item): boolean {
    return this.#items.delete(item);
  }

  /** The next one that is ready, or when one will be: Infinity when nothing waits. */
  next(monotonic: number): Item | number {
    let [best, soonest]: [Item | undefined, number] = [undefined, Infinity];
    for (const item of this.#items) {
      soonest = Math.min(soonest, item.readyAt);
      if (item.readyAt <= monotonic && (best === undefined || isBefore(item, best))) best = item;
    }
    return best ?? soonest;
  }

  /** The one that can wait longest. */
  last(): Item | undefined {
    let last: Item | undefined;
    for (const item of this.#items) if (last === undefined || !isBefore(item, last)) last = item;
    return last;
  }

  /** What has failed before is like new again. */
  forgive(): void {
    for (const item of this.#items) Object.assign(item, { readyAt: 0, attempts: 0 });
  }

  drain(): Item[] {
    const items = [...this.#items];
    this.#items.clear();
    return items;
  }
}

/** One request that the upstream chokes on must not be the only one that is ever tried, so that failures come before the rank. */
function isBefore(one: Item, other: Item): boolean {
  return one.attempts === other.attempts ? one.rank < other.rank : one.attempts < other.attempts;
}
