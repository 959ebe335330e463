import type { Alarm, Clock } from '../clock.ts';
import { entryKey, type Entry } from '../spiffe/entry.ts';

interface Held<E extends Entry> {
  readonly entry: E;
  /**
   * Set once the entry is gone: from then on it is not believed any more. On the monotonic clock, so that no step of wall time
   * makes a withdrawal early or late.
   */
  readonly withdrawnAt: number | undefined;
}

export interface HoldOptions {
  /** How long an entry that is gone goes on to count: a manifest that is applied again is no withdrawal. */
  readonly withdrawalDelayMs: number;
  /** How many entries that are gone may go on to count; the oldest end at once. Default: no bound. */
  readonly mostWithdrawn?: number;
}

/** Entries of which those that are gone still count for a while. */
export class HeldEntries<E extends Entry = Entry> {
  readonly #delayMs: number;
  readonly #mostWithdrawn: number;
  readonly #clock: Clock;
  readonly #onDropped: () => void;
  #held = new Map<string, Held<E>>();
  #all: readonly E[] = [];
  #alarm: Alarm | undefined;

  /** `onDropped` is called when entries have come to the end of their delay. */
  constructor(options: HoldOptions, clock: Clock, onDropped: () => void) {
    this.#delayMs = options.withdrawalDelayMs;
    this.#mostWithdrawn = options.mostWithdrawn ?? Infinity;
    this.#clock = clock;
    this.#onDropped = onDropped;
  }

  /** In the order in which they were given, those that are gone last. */
  get all(): readonly E[] {
    return this.#all;
  }

  /** Those that were given last, without those that are gone. */
  get current(): readonly E[] {
    return [...this.#held.values()].flatMap(({ entry, withdrawnAt }) => (withdrawnAt === undefined ? [entry] : []));
  }

  /**
   * Takes `entries` for all there are: new ones and new versions count at once, missing ones until the delay is over. One that is
   * equal to what was there stays the same object. True if anything is different now.
   */
  replace(entries: readonly E[]): boolean {
    const before = this.#all;
    const next = new Map<string, Held<E>>();
    for (const entry of entries) {
      const key = entryKey(entry);
      const known = this.#held.get(key)?.entry;
      next.set(key, { entry: known !== undefined && sameEntry(known, entry) ? known : entry, withdrawnAt: undefined });
    }
    const withdrawnAt = this.#clock.monotonic() + this.#delayMs;
    for (const [key, held] of this.#held) {
      if (!next.has(key)) next.set(key, { entry: held.entry, withdrawnAt: held.withdrawnAt ?? withdrawnAt });
    }
    this.#held = next;
    this.#dropExcess();
    this.#settle();
    return before.length !== this.#all.length || before.some((entry, index) => entry !== this.#all[index]);
  }

  close(): void {
    this.#alarm?.cancel();
  }

  /** Newly withdrawn entries come before those that were withdrawn earlier, so that the oldest are the last. */
  #dropExcess(): void {
    const withdrawn = [...this.#held].filter(([, held]) => held.withdrawnAt !== undefined);
    for (const [key] of withdrawn.slice(Math.min(this.#mostWithdrawn, withdrawn.length))) this.#held.delete(key);
  }

  /** Drops what was withdrawn long enough ago and waits for the next one to drop. */
  #settle(): void {
    const now = this.#clock.monotonic();
    let next = Infinity;
    for (const [key, { withdrawnAt }] of this.#held) {
      if (withdrawnAt === undefined) continue;
      if (withdrawnAt <= now) this.#held.delete(key);
      else next = Math.min(next, withdrawnAt);
    }
    this.#all = [...this.#held.values()].map(({ entry }) => entry);
    this.#alarm?.cancel();
    this.#alarm = Number.isFinite(next) ? this.#clock.after(next - now, () => this.#drop()) : undefined;
  }

  #drop(): void {
    this.#settle();
    this.#onDropped();
  }
}

/** True for two versions of an entry between which nobody could see a difference. */
function sameEntry(a: Entry, b: Entry): boolean {
  return (
    a.x509TtlMs === b.x509TtlMs &&
    a.jwtTtlMs === b.jwtTtlMs &&
    a.hint === b.hint &&
    a.priority === b.priority &&
    a.dnsNames.length === b.dnsNames.length &&
    a.dnsNames.every((name, index) => name === b.dnsNames[index])
  );
}
