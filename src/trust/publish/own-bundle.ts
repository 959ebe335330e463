import type { Clock } from '../../clock.ts';
import type { TrustBundle } from '../../spiffe/bundle.ts';
import { endOf, publicBundle, rootId, NOTHING, type PublicBundle } from './documents.ts';

/** The bundle of the own trust domain; a TrustStore is one. */
export interface OwnBundle {
  own(): TrustBundle;
  /** Calls `listener` after each change. Returns the way to stop. */
  onChange(listener: () => void): () => void;
}

/** After which an agent that has just started, or just begun to publish, knows what there is to know. */
export const SETTLING_MS = 300_000;
/** How long, and for how much, is remembered what has left the own bundle. */
const REMEMBERED_MS = 86_400_000;
const MOST_REMEMBERED = 4_096;

/**
 * What this agent knows of the bundle, and what it has seen leaving it. Others may know more: the files of a CA reach the nodes
 * one after the other, and an agent that has just started hears of other nodes' keys later. So what this one has never had is
 * kept for a while where it is published, and what it has seen leave is not.
 */
export class OwnKnowledge {
  readonly #clock: Clock;
  readonly #startedAt: number;
  readonly #left = new Map<string, number>();
  #bundle: PublicBundle;
  #rootsSince: number;

  constructor(bundle: TrustBundle, clock: Clock) {
    this.#clock = clock;
    this.#bundle = publicBundle(bundle);
    this.#startedAt = clock.monotonic();
    this.#rootsSince = this.#startedAt;
  }

  get bundle(): PublicBundle {
    return this.#bundle;
  }

  /** Takes the bundle as it is now. */
  learn(bundle: TrustBundle): void {
    const [before, now] = [this.#bundle, this.#clock.monotonic()];
    this.#bundle = publicBundle(bundle);
    const ids = idsOf(this.#bundle);
    for (const id of idsOf(before)) if (!ids.has(id)) this.#left.set(id, now);
    for (const id of ids) this.#left.delete(id);
    this.#forget(now);
    const { roots } = this.#bundle;
    const isSame = before.roots.length === roots.length && before.roots.every((der, index) => roots[index]?.equals(der));
    if (!isSame) this.#rootsSince = now;
  }

  /**
   * What of `published` must stay although it is not in the own bundle, for one who publishes since `since` (monotonic). `until`:
   * when to look again, undefined when nothing stays.
   */
  keep(published: PublicBundle, since: number): { readonly kept: PublicBundle; readonly until: number | undefined } {
    const [ids, now] = [idsOf(this.#bundle), this.#clock.monotonic()];
    const rootsUntil = Math.max(since, this.#rootsSince) + SETTLING_MS;
    const keysUntil = Math.max(since, this.#startedAt) + SETTLING_MS;
    const isUnknown = (id: string): boolean => !ids.has(id) && !this.#left.has(id);
    const isAlive = (der: Buffer): boolean => (endOf(der) ?? 0) > this.#clock.now();
    const roots = now < rootsUntil ? published.roots.filter((der) => isUnknown(rootId(der)) && isAlive(der)) : [];
    const jwtKeys = now < keysUntil ? published.jwtKeys.filter(({ kid }) => isUnknown(kid)) : [];
    if (roots.length === 0 && jwtKeys.length === 0) return { kept: NOTHING, until: undefined };
    return { kept: { roots, jwtKeys }, until: roots.length > 0 ? rootsUntil : keysUntil };
  }

  /** In the order in which it left. */
  #forget(now: number): void {
    for (const [id, at] of this.#left) {
      if (this.#left.size <= MOST_REMEMBERED && now - at < REMEMBERED_MS) return;
      this.#left.delete(id);
    }
  }
}

/** A SHA-256 in hexadecimal is never the `kid` of another kind of thing. */
function idsOf({ roots, jwtKeys }: PublicBundle): Set<string> {
  return new Set([...roots.map(rootId), ...jwtKeys.map(({ kid }) => kid)]);
}
