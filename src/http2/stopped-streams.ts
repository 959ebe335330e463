/** Of one connection; more than may be open at once. */
const MOST = 1_024;

/** What it costs to remember one of them, about. */
const BYTES = 40;

/** Streams that were ended here before their client had ended them: what is on its way for them is nobody's mistake (RFC 9113 §5.1). */
export class StoppedStreams {
  /** Oldest first. */
  readonly #ids = new Set<number>();

  /** What it keeps in memory, in bytes. */
  get cost(): number {
    return this.#ids.size * BYTES;
  }

  add(streamId: number): void {
    this.#ids.add(streamId);
    const [oldest] = this.#ids.size > MOST ? this.#ids : [];
    if (oldest !== undefined) this.#ids.delete(oldest);
  }

  /** True when a frame for `streamId` was sent before its client could know that the stream had ended. `isLast`: none follows. */
  excuses(streamId: number, isLast: boolean): boolean {
    return isLast ? this.#ids.delete(streamId) : this.#ids.has(streamId);
  }

  /** The client knows. */
  delete(streamId: number): void {
    this.#ids.delete(streamId);
  }

  clear(): void {
    this.#ids.clear();
  }
}
