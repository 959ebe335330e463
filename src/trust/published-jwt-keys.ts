import type { Clock } from '../clock.ts';

/** A key that signs tokens. Times are milliseconds since the Unix epoch. */
export interface SigningJwtKey {
  readonly kid: string;
  readonly notAfter: number;
  /** From when on it signs, unless a later one does. */
  readonly activatesAt: number;
  /** Since when it must not sign any more; absent while it may. */
  readonly taintedAt?: number;
}

/** The keys of this node. */
export interface JwtSigningKeys<K extends SigningJwtKey> {
  /** Resolves at once when there is a key; else when the one that is being made is there, or could not be made. */
  ready(): Promise<void>;
  /** The one that is to sign now. @throws SignetError `authority_unavailable` when there is none. */
  jwtKey(): K;
  /** All that have not ended. */
  jwtKeys(): readonly K[];
}

/** Which keys other nodes know. */
export interface Publication {
  isPublished(kid: string): boolean;
  isReady(kid: string): boolean;
  ready(kid: string): Promise<void>;
}

/** A key with less left than this makes tokens that are of no use to anybody. */
const SHORTEST_LIFE_MS = 10_000;

/**
 * The keys of this node without those that other nodes cannot know yet: a new key signs once it is published, and until then the one
 * before it goes on. Only where there is none, at the very first start, does anybody wait, and not for ever.
 */
export class PublishedJwtKeys<K extends SigningJwtKey> {
  readonly #keys: JwtSigningKeys<K>;
  readonly #publication: Publication;
  readonly #clock: Clock;

  constructor(keys: JwtSigningKeys<K>, publication: Publication, clock: Clock) {
    this.#keys = keys;
    this.#publication = publication;
    this.#clock = clock;
  }

  /** Resolves when `jwtKey` gives a key that may sign, or there is none. */
  async ready(): Promise<void> {
    await this.#keys.ready();
    const key = this.#wanted();
    if (key === undefined || this.#published(key) !== undefined) return;
    await this.#publication.ready(key.kid);
  }

  /** @throws SignetError `authority_unavailable` when there is none. */
  jwtKey(): K {
    const key = this.#keys.jwtKey();
    return this.#published(key) ?? key;
  }

  #wanted(): K | undefined {
    try {
      return this.#keys.jwtKey();
    } catch {
      // Whoever signs hears why.
      return undefined;
    }
  }

  #published(key: K): K | undefined {
    if (this.#publication.isPublished(key.kid)) return key;
    const now = this.#clock.now();
    const isGood = (one: K): boolean => one.taintedAt === undefined && one.activatesAt <= now && one.notAfter - now >= SHORTEST_LIFE_MS;
    const others = this.#keys.jwtKeys().filter((one) => isGood(one) && this.#publication.isPublished(one.kid));
    return others.sort((a, b) => b.activatesAt - a.activatesAt)[0];
  }
}
