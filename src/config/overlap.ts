import type { SpiffeId } from '../spiffe/id.ts';
import type { Selector } from '../spiffe/selector.ts';

/** Who owns what by one entry. */
export interface Ownership {
  /** Its place in the list of entries. */
  readonly index: number;
  readonly id: SpiffeId | undefined;
  readonly hint: string;
  /** Not empty. */
  readonly selectors: ReadonlySet<Selector>;
}

/** For each entry that has the ID and the set of selectors of an earlier one: its index, and that of the first such. */
export function repeatedEntries(entries: readonly Ownership[]): ReadonlyMap<number, number> {
  const first = new Map<string, number>();
  const repeated = new Map<number, number>();
  for (const { index, id, selectors } of entries) {
    if (id === undefined) continue;
    const key = JSON.stringify([id, ...[...selectors].sort()]);
    const earlier = first.get(key);
    if (earlier === undefined) first.set(key, index);
    else repeated.set(index, earlier);
  }
  return repeated;
}

/**
 * For each entry that shares a non-empty hint with an earlier one although every caller of one of the two is a caller of the
 * other (WA-23): its index, and that of the first such. Two sets of selectors of which neither contains the other may still meet
 * in one caller; that shows only when it comes.
 */
export function hintClashes(entries: readonly Ownership[]): ReadonlyMap<number, number> {
  const clashes = new Map<number, number>();
  for (const [hint, group] of Map.groupBy(entries, (entry) => entry.hint)) {
    if (hint === '' || group.length === 1) continue;
    const holders = holdersOf(group);
    for (const entry of group) {
      for (const other of narrowerThan(entry, holders)) {
        const [earlier, later] = [Math.min(entry.index, other.index), Math.max(entry.index, other.index)];
        clashes.set(later, Math.min(clashes.get(later) ?? Infinity, earlier));
      }
    }
  }
  return clashes;
}

function holdersOf(group: readonly Ownership[]): Map<Selector, Ownership[]> {
  const holders = new Map<Selector, Ownership[]>();
  for (const entry of group) {
    for (const selector of entry.selectors) {
      const list = holders.get(selector);
      if (list === undefined) holders.set(selector, [entry]);
      else list.push(entry);
    }
  }
  return holders;
}

/** The others that have all selectors of `entry`. Only holders of its rarest one are looked at: large files stay fast. */
function narrowerThan(entry: Ownership, holders: ReadonlyMap<Selector, readonly Ownership[]>): Ownership[] {
  let fewest: readonly Ownership[] | undefined;
  for (const selector of entry.selectors) {
    const list = holders.get(selector) ?? [];
    if (fewest === undefined || list.length < fewest.length) fewest = list;
  }
  const own = [...entry.selectors];
  return (fewest ?? []).filter((other) => other !== entry && own.every((selector) => other.selectors.has(selector)));
}
