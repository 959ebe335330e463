import type { JwtAuthority } from '../spiffe/bundle.ts';
import type { PublishedJwtKey } from './key-set.ts';

/** A key as somebody publishes it, or has published it. Times are milliseconds since the Unix epoch. */
export interface HeldKey {
  readonly key: PublishedJwtKey;
  /** The node that has published it first. */
  readonly node: string;
  /** DER of the root that it was verified with. */
  readonly root: Buffer;
  /** Since when it is not published any more; undefined while it is. */
  readonly vanishedAt: number | undefined;
}

/** What one object publishes. */
export interface HeldFrom {
  readonly node: string;
  readonly root: Buffer;
  readonly keys: readonly PublishedJwtKey[];
}

/** What one object says of a key, or has said. */
interface Claim {
  readonly root: Buffer;
  readonly notAfter: number;
  readonly vanishedAt: number | undefined;
}

interface Holding {
  readonly authority: JwtAuthority;
  readonly node: string;
  readonly claims: Map<string, Claim>;
}

/** Keys of one node, those that have vanished included. A node that has rotated by hand several times in a day has fewer. */
const MOST_PER_NODE = 32;
/** Keys of all nodes: ten for each of 200. */
const MOST_IN_ALL = 2_048;
/** Claims what was kept from before a restart. No object has this name. */
const MEMORY = '';

/**
 * The JWT keys of other agents. Each is held by the objects that publish it, and after that for as long as a token that was signed
 * before may live. Of several ends the latest counts, so that nobody can end another's key by publishing it too; but whoever
 * publishes a key can bring the own word on it to an end at any time, as it must for a key that was stolen.
 */
export class HeldKeys {
  readonly #retentionMs: number;
  readonly #keys = new Map<string, Holding>();

  constructor(retentionMs: number) {
    this.#retentionMs = retentionMs;
  }

  get size(): number {
    return this.#keys.size;
  }

  /** How many are kept although nobody publishes them any more. */
  get vanished(): number {
    return [...this.#keys.values()].filter((held) => vanishedAtOf(held) !== undefined).length;
  }

  /** By `kid`, so that the order never depends on what came first. */
  keys(): readonly HeldKey[] {
    const all = [...this.#keys.values()].sort((a, b) => (a.authority.kid < b.authority.kid ? -1 : 1));
    return all.flatMap(({ authority, node, claims }) => {
      const [claim] = [...claims.values()].sort((a, b) => this.#endOf(b) - this.#endOf(a));
      if (claim === undefined) return [];
      return [{ key: { ...authority, notAfter: claim.notAfter }, node, root: claim.root, vanishedAt: claim.vanishedAt }];
    });
  }

  /** Takes `from.keys` for all that `holder` publishes. Returns how many there was no room for. */
  hold(holder: string, from: HeldFrom, now: number): number {
    const kids = new Set(from.keys.map(({ kid }) => kid));
    for (const [kid, { claims }] of this.#keys) if (!kids.has(kid)) release(claims, holder, now);
    let refused = 0;
    for (const { notAfter, ...authority } of from.keys) {
      const held = this.#keys.get(authority.kid) ?? this.#add(authority, from.node, notAfter > now);
      // A node's word of now counts, and not what it said before the restart.
      if (held?.node === from.node) held.claims.delete(MEMORY);
      held?.claims.set(holder, { root: from.root, notAfter, vanishedAt: undefined });
      if (held === undefined && notAfter > now) refused += 1;
    }
    return refused;
  }

  /** Puts back what was kept before a restart. It counts as published until `endMemory`. */
  restore(kept: readonly HeldKey[]): void {
    for (const { key, node, root, vanishedAt } of kept.slice(0, MOST_IN_ALL)) {
      const { notAfter, ...authority } = key;
      this.#keys.set(key.kid, { authority, node, claims: new Map([[MEMORY, { root, notAfter, vanishedAt }]]) });
    }
  }

  /** All that is published is known now: the rest of what was put back has vanished. */
  endMemory(now: number): void {
    this.letGo(MEMORY, now);
  }

  /** `holder` publishes nothing any more. */
  letGo(holder: string, now: number): void {
    for (const { claims } of this.#keys.values()) release(claims, holder, now);
  }

  /** Takes away what has ended, and what was verified with roots that are not believed any more. */
  prune(roots: readonly Buffer[], now: number): void {
    for (const [kid, { claims }] of this.#keys) {
      for (const [holder, claim] of claims) {
        const isBelieved = roots.some((root) => root.equals(claim.root));
        if (!isBelieved || this.#endOf(claim) <= now) claims.delete(holder);
      }
      if (claims.size === 0) this.#keys.delete(kid);
    }
  }

  /** The next end of anything; Infinity when there is none. */
  nextEnd(): number {
    return Math.min(...[...this.#keys.values()].flatMap(({ claims }) => [...claims.values()].map((claim) => this.#endOf(claim))));
  }

  #endOf({ notAfter, vanishedAt = Infinity }: Claim): number {
    return Math.min(notAfter, vanishedAt + this.#retentionMs);
  }

  #add(authority: JwtAuthority, node: string, isLive: boolean): Holding | undefined {
    if (!isLive || !this.#makeRoom(node)) return undefined;
    const held: Holding = { authority, node, claims: new Map() };
    this.#keys.set(authority.kid, held);
    return held;
  }

  /** A node that has too many loses the one that vanished first; nobody else does. */
  #makeRoom(node: string): boolean {
    const own = [...this.#keys.values()].filter((held) => held.node === node);
    if (own.length < MOST_PER_NODE && this.#keys.size < MOST_IN_ALL) return true;
    const vanished = own.filter((held) => vanishedAtOf(held) !== undefined);
    const [oldest] = vanished.sort((a, b) => (vanishedAtOf(a) ?? 0) - (vanishedAtOf(b) ?? 0));
    return oldest !== undefined && this.#keys.delete(oldest.authority.kid);
  }
}

function release(claims: Map<string, Claim>, holder: string, now: number): void {
  const claim = claims.get(holder);
  if (claim !== undefined) claims.set(holder, { ...claim, vanishedAt: claim.vanishedAt ?? now });
}

/** When the last one who published it went; undefined while somebody does. */
function vanishedAtOf({ claims }: Holding): number | undefined {
  const all = [...claims.values()].map(({ vanishedAt }) => vanishedAt);
  return all.includes(undefined) ? undefined : Math.max(...all.filter((one) => one !== undefined));
}
