import type { Alarm, Clock } from '../clock.ts';
import type { EventBus } from '../events.ts';
import { entryKey, type Entry } from '../spiffe/entry.ts';
import type { Selector } from '../spiffe/selector.ts';

interface Held {
  readonly entry: Entry;
  /**
   * Set once the entry is gone from the configuration: from then on it is not believed any more. On the monotonic clock, so that
   * no step of wall time makes a withdrawal early or late.
   */
  readonly withdrawnAt: number | undefined;
}

export interface EntryRegistryOptions {
  /** How long an entry that is gone goes on to count: a manifest that is applied again is no withdrawal. */
  readonly withdrawalDelayMs: number;
}

/** The static entries: which callers own which identities. */
export class EntryRegistry {
  readonly #options: EntryRegistryOptions;
  readonly #clock: Clock;
  readonly #events: EventBus;
  readonly #listeners = new Set<() => void>();
  #held = new Map<string, Held>();
  #ordered: readonly Entry[] = [];
  #alarm: Alarm | undefined;

  constructor(entries: readonly Entry[], options: EntryRegistryOptions, clock: Clock, events: EventBus) {
    this.#options = options;
    this.#clock = clock;
    this.#events = events;
    for (const entry of entries) this.#held.set(entryKey(entry), { entry, withdrawnAt: undefined });
    this.#ordered = order(entries);
  }

  /** The entries whose selectors are all among `selectors`; the first is the default identity (Workload API §8, WA-74). */
  match(selectors: readonly Selector[]): readonly Entry[] {
    const owned = new Set(selectors);
    const seen = new Set<string>();
    return this.#ordered.filter((entry) => {
      if (!entry.selectors.every((selector) => owned.has(selector))) return false;
      // Two ways to one identity are one identity: the first counts.
      const identity = `${entry.id}\n${entry.hint}`;
      return !seen.has(identity) && seen.add(identity);
    });
  }

  /** Takes `entries` for all there are. New ones and new versions count at once, missing ones after the delay. */
  replace(entries: readonly Entry[]): void {
    const next = new Map<string, Held>();
    for (const entry of entries) next.set(entryKey(entry), { entry, withdrawnAt: undefined });
    const withdrawnAt = this.#clock.monotonic() + this.#options.withdrawalDelayMs;
    for (const [key, held] of this.#held) {
      if (!next.has(key)) next.set(key, { entry: held.entry, withdrawnAt: held.withdrawnAt ?? withdrawnAt });
    }
    this.#held = next;
    this.#settle();
  }

  /** Calls `listener` after each change. Returns the way to stop. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  close(): void {
    this.#alarm?.cancel();
  }

  /** Drops what was withdrawn long enough ago, tells the change and waits for the next one to drop. */
  #settle(): void {
    const now = this.#clock.monotonic();
    let next = Infinity;
    for (const [key, { withdrawnAt }] of this.#held) {
      if (withdrawnAt === undefined) continue;
      if (withdrawnAt <= now) this.#held.delete(key);
      else next = Math.min(next, withdrawnAt);
    }
    this.#alarm?.cancel();
    this.#alarm = Number.isFinite(next) ? this.#clock.after(next - now, () => this.#settle()) : undefined;
    this.#ordered = order([...this.#held.values()].map(({ entry }) => entry));
    this.#events.publish('entriesChanged', { count: this.#ordered.length });
    for (const listener of [...this.#listeners]) listener();
  }
}

/** By priority, then by the bytes of the ID, so that the order is the same after every restart. */
function order(entries: readonly Entry[]): readonly Entry[] {
  return [...entries].sort((a, b) => b.priority - a.priority || compareBytes(a.id, b.id) || compareBytes(entryKey(a), entryKey(b)));
}

function compareBytes(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
