import type { Alarm, Clock } from '../clock.ts';

/** How often it is asked what was done meanwhile. */
const LOOK_MS = 5_000;

/** Connections and calls between two looks. Less is quiet: then a pause of some 40 ms is noticed least. */
const QUIET = 250;

/** Connections and calls that are worth it. */
const MUCH = 500;

/** Node's `gc`, there with --expose-gc. */
type CollectGarbage = (options: { readonly type: 'major'; readonly execution: 'sync'; readonly flavor: 'last-resort' }) => void;

export interface GiveBackOptions {
  readonly clock: Clock;
  /** Connections and calls so far. */
  readonly done: () => number;
  /** See `Kernel.trimMemory`. */
  readonly trimMemory: () => void;
  readonly collectGarbage?: CollectGarbage | undefined;
}

/**
 * Gives memory back once it is quiet after the start or after a burst. V8 has no reason to look for garbage while nobody allocates, and
 * malloc keeps what the compilers of V8 have used: without it an agent keeps for ever what one storm took.
 */
export class GiveBack {
  readonly #options: GiveBackOptions;
  #alarm: Alarm | undefined;
  #seen: number;
  /** What was done since memory was given back. The start has done much. */
  #since = MUCH;

  constructor(options: GiveBackOptions) {
    this.#options = options;
    this.#seen = options.done();
    this.#arm();
  }

  close(): void {
    this.#alarm?.cancel();
  }

  #arm(): void {
    this.#alarm = this.#options.clock.after(LOOK_MS, () => this.#look());
  }

  #look(): void {
    this.#arm();
    const done = this.#options.done();
    const meanwhile = done - this.#seen;
    this.#seen = done;
    this.#since += meanwhile;
    if (meanwhile >= QUIET || this.#since < MUCH) return;
    this.#since = 0;
    this.#options.collectGarbage?.({ type: 'major', execution: 'sync', flavor: 'last-resort' });
    this.#options.trimMemory();
  }
}

/** What --expose-gc has put among the globals; undefined without it. */
export function exposedGc(): CollectGarbage | undefined {
  const gc: unknown = Reflect.get(globalThis, 'gc');
  return typeof gc === 'function' ? (gc as CollectGarbage) : undefined;
}
