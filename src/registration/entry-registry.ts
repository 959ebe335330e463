import type { Clock } from '../clock.ts';
import type { EventBus } from '../events.ts';
import { entryKey, type Entry } from '../spiffe/entry.ts';
import { podUidOf, podUidSelector, type Selector } from '../spiffe/selector.ts';
import type { Rule } from './rules/rule.ts';
import { configRules } from './rules/rules.ts';
import { HeldEntries, type HoldOptions } from './held-entries.ts';

/** The static entries: which callers own which identities. */
export class EntryRegistry {
  readonly #events: EventBus;
  readonly #listeners = new Set<() => void>();
  readonly #held: HeldEntries;
  /** What an entry is for each pod that it applies to. */
  readonly #bound = new WeakMap<Entry, Map<Selector, Entry>>();
  #given: readonly Entry[];
  #ordered: readonly Entry[] = [];

  constructor(entries: readonly Entry[], options: HoldOptions, clock: Clock, events: EventBus) {
    this.#given = entries;
    this.#events = events;
    this.#held = new HeldEntries(options, clock, () => this.#changed());
    this.#held.replace(entries);
    this.#ordered = order(this.#held.all);
  }

  /** How many entries count, those that are being withdrawn included. */
  get size(): number {
    return this.#ordered.length;
  }

  /** The entries as rules, for explanations. */
  get allRules(): readonly Rule[] {
    return configRules(this.#given);
  }

  /**
   * The entries whose selectors are all among `selectors`; the first is the default identity (Workload API §8, WA-74). For a caller
   * in a pod they are the pod's own, so that two pods never share a key, and entries by Unix facts alone do not count: inside a
   * container everybody can be any user.
   */
  match(selectors: readonly Selector[]): readonly Entry[] {
    const owned = new Set(selectors);
    const pod = podUidOf(selectors);
    const matching = this.#ordered.filter((entry) => entry.selectors.every((selector) => owned.has(selector)));
    const own = pod === undefined ? matching : matching.filter(isForContainers).map((entry) => this.#bind(entry, podUidSelector(pod)));
    return distinctIdentities(own);
  }

  /** Takes `entries` for all there are. New ones and new versions count at once, missing ones after the delay. */
  replace(entries: readonly Entry[]): void {
    this.#given = entries;
    if (this.#held.replace(entries)) this.#changed();
  }

  /** Calls `listener` after each change. Returns the way to stop. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Forgets what the entries were for a pod that is gone. */
  release(podUid: string): void {
    for (const entry of this.#ordered) this.#bound.get(entry)?.delete(podUidSelector(podUid));
  }

  close(): void {
    this.#held.close();
  }

  #bind(entry: Entry, pod: Selector): Entry {
    if (entry.selectors.includes(pod)) return entry;
    const pods = this.#bound.get(entry) ?? new Map<Selector, Entry>();
    this.#bound.set(entry, pods);
    const bound = pods.get(pod) ?? { ...entry, selectors: [...entry.selectors, pod] };
    pods.set(pod, bound);
    return bound;
  }

  #changed(): void {
    this.#ordered = order(this.#held.all);
    this.#events.publish('entriesChanged', { count: this.#ordered.length });
    for (const listener of [...this.#listeners]) listener();
  }
}

/** True for an entry that can apply inside a container: not one by Unix facts alone. */
export function isForContainers(entry: Entry): boolean {
  return entry.selectors.some((selector) => !selector.startsWith('unix:'));
}

/** Two ways to one identity are one identity: the first counts. */
export function distinctIdentities(entries: readonly Entry[]): readonly Entry[] {
  const seen = new Set<string>();
  return entries.filter((entry) => {
    const identity = `${entry.id}\n${entry.hint}`;
    return !seen.has(identity) && seen.add(identity);
  });
}

/** By priority, then by the bytes of the ID, so that the order is the same after every restart. */
function order(entries: readonly Entry[]): readonly Entry[] {
  return [...entries].sort((a, b) => b.priority - a.priority || compareBytes(a.id, b.id) || compareBytes(entryKey(a), entryKey(b)));
}

function compareBytes(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
