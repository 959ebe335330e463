/** What a bounded map writes down about a value. */
export interface Used {
  /** Since the last time that something had to go. */
  isUsed: boolean;
  /** It is in the map no more. */
  isGone: boolean;
}

/**
 * A map of at most `capacity` values. When one too many is put in, one goes that was not used since the last time: the oldest of
 * those ("second chance"). A hit is a look-up and a flag: a list in the order of use would be written to each time.
 */
export class Recent<T extends Used> {
  readonly #capacity: number;
  readonly #values = new Map<string, T>();

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** The value under `key`, made if missing. */
  of(key: string, make: () => T): T {
    const known = this.#values.get(key);
    if (known !== undefined) {
      known.isUsed = true;
      return known;
    }
    if (this.#values.size >= this.#capacity) this.#evict();
    const made = make();
    this.#values.set(key, made);
    return made;
  }

  /** The value under `key`, without its counting as used. */
  peek(key: string): T | undefined {
    return this.#values.get(key);
  }

  values(): Iterable<T> {
    return this.#values.values();
  }

  clear(): void {
    for (const value of this.#values.values()) value.isGone = true;
    this.#values.clear();
  }

  /** Ends within two rounds: the first one clears every flag. */
  #evict(): void {
    for (const [key, value] of this.#values) {
      this.#values.delete(key);
      if (!value.isUsed) {
        value.isGone = true;
        return;
      }
      // Put in again it comes last, and this loop comes to it once more.
      value.isUsed = false;
      this.#values.set(key, value);
    }
  }
}
