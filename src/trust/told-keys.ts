import type { PublishedJwtKey } from './key-set.ts';

/** What verifiers take in one set. */
const MOST_KEYS = 8;

/**
 * What was published and has not ended. A key that leaves before its end was given up, perhaps because it was stolen: it is told once
 * more, as ended, so that nobody keeps it as one that has merely vanished.
 */
export class ToldKeys {
  readonly #told = new Map<string, PublishedJwtKey>();

  /** Those of `keys` that live, and at most as many as verifiers take: those that live longest. */
  live(keys: readonly PublishedJwtKey[], now: number): readonly PublishedJwtKey[] {
    const live = keys.filter(({ notAfter }) => notAfter > now);
    return live.length <= MOST_KEYS ? live : live.toSorted((a, b) => b.notAfter - a.notAfter).slice(0, MOST_KEYS);
  }

  /** `live`, and as ended what was given up. */
  withGivenUp(live: readonly PublishedJwtKey[], now: number): readonly PublishedJwtKey[] {
    for (const [kid, { notAfter }] of this.#told) if (notAfter <= now) this.#told.delete(kid);
    const gone = [...this.#told.values()].filter(({ kid }) => !live.some((key) => key.kid === kid));
    return [...live, ...gone.map((key) => ({ ...key, notAfter: 0 }))].slice(0, MOST_KEYS);
  }

  /** These are published from now on. The latest end that was ever told is the one that others may still go by. */
  note(live: readonly PublishedJwtKey[]): void {
    for (const key of live) if ((this.#told.get(key.kid)?.notAfter ?? 0) < key.notAfter) this.#told.set(key.kid, key);
  }
}
