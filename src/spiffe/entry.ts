import type { SpiffeId } from './id.ts';
import type { Selector } from './selector.ts';

/** Which callers own which identity: every caller that has all of `selectors`. */
export interface Entry {
  readonly id: SpiffeId;
  /** At least one; an entry applies when all are among the caller's. */
  readonly selectors: readonly Selector[];
  /** Lifetime of the X.509-SVID in milliseconds; undefined: the agent's. */
  readonly x509TtlMs: number | undefined;
  /** Lifetime of JWT-SVIDs in milliseconds; undefined: the agent's. */
  readonly jwtTtlMs: number | undefined;
  readonly dnsNames: readonly string[];
  /** Told to the workload so that it can choose among several identities; at most 1024 bytes (Workload API §5.2.1). */
  readonly hint: string;
  /** The highest comes first; the first identity is the caller's default one (Workload API §8). */
  readonly priority: number;
}

/** Two entries with one key are versions of each other: the same callers, the same ID. */
export function entryKey(entry: Entry): string {
  return [entry.id, ...[...entry.selectors].sort()].join('\n');
}
