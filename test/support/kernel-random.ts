/** A seeded generator: prints its seed, which SIGNET_SEED sets again. */
export class SeededRandom {
  readonly seed: number;
  #state: number;

  constructor(log: (line: string) => void) {
    this.seed = Number(process.env['SIGNET_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
    this.#state = this.seed >>> 0;
    log(`SIGNET_SEED=${this.seed}`);
  }

  /** An integer in [0, limit). Mulberry32. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let x = this.#state;
    x = Math.imul(x ^ (x >>> 15), x | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return Math.floor((((x ^ (x >>> 14)) >>> 0) / 2 ** 32) * limit);
  }

  pick<T>(items: readonly [T, ...T[]]): T {
    return items[this.below(items.length)] ?? items[0];
  }

  /** `length` characters of `alphabet`. */
  text(alphabet: string, length: number): string {
    return Array.from({ length }, () => alphabet[this.below(alphabet.length)]).join('');
  }

  /** `text` with one to four characters replaced, removed or added. */
  mutate(text: string): string {
    let result = text;
    for (let i = this.below(4); i >= 0; i--) {
      const at = this.below(result.length + 1);
      const added = this.below(3) === 0 ? '' : String.fromCharCode(this.below(this.below(8) === 0 ? 0x3000 : 128));
      result = result.slice(0, at) + added + result.slice(at + this.below(2));
    }
    return result;
  }
}
