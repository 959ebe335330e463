/** What a buffer of its own costs beyond its bytes, about. */
const OVERHEAD_BYTES = 128;

const SMALLEST_BYTES = 64;

const NOTHING = Buffer.alloc(0);

/** A copy that keeps nothing else alive. Node's small buffers are slices of 64 KiB, each of which lives as long as the last of them. */
export function ownCopy(bytes: Buffer): Buffer {
  const out = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(out);
  return out;
}

/** Bytes that wait for what is to come after them. They are copied a few times at most, in however many pieces they come. */
export class Gather {
  #bytes = NOTHING;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** What it keeps in memory, in bytes. */
  get cost(): number {
    return this.#bytes.length === 0 ? 0 : this.#bytes.length + OVERHEAD_BYTES;
  }

  /** All of it; good until something is added or taken away. */
  get view(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  add(bytes: Buffer): void {
    const length = this.#length + bytes.length;
    if (length > this.#bytes.length) this.#move(Math.max(length, this.#bytes.length * 2, SMALLEST_BYTES), 0);
    bytes.copy(this.#bytes, this.#length);
    this.#length = length;
  }

  /** Takes the first `count` bytes away. */
  drop(count: number): void {
    if (count === 0) return;
    if (count === this.#length) return this.clear();
    const left = this.#length - count;
    if (left * 4 < this.#bytes.length) this.#move(left, count);
    else this.#bytes.copy(this.#bytes, 0, count, this.#length);
    this.#length = left;
  }

  clear(): void {
    this.#bytes = NOTHING;
    this.#length = 0;
  }

  #move(size: number, from: number): void {
    const bytes = Buffer.allocUnsafeSlow(size);
    this.#bytes.copy(bytes, 0, from, this.#length);
    this.#bytes = bytes;
  }
}
