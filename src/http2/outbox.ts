import type { Socket } from 'node:net';

/** What is written to one socket: what comes in one turn goes out in one write. */
export class Outbox {
  readonly #socket: Socket;
  readonly #onFlushed: () => void;
  readonly #flushBound = (): void => this.flush();
  #parts: Buffer[] = [];
  #bytes = 0;
  #isFlushing = false;

  /** `onFlushed` is called when something was written, and again when the kernel has taken it. */
  constructor(socket: Socket, onFlushed: () => void) {
    this.#socket = socket;
    this.#onFlushed = onFlushed;
  }

  /** Bytes that are not written yet. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Bytes that the kernel has not taken: written or not. */
  get unsent(): number {
    return this.#bytes + (this.#socket.destroyed ? 0 : this.#socket.writableLength);
  }

  add(bytes: Buffer): void {
    this.#parts.push(bytes);
    this.#bytes += bytes.length;
  }

  /** Writes when the present turn of the event loop is over. */
  flushSoon(): void {
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    process.nextTick(this.#flushBound);
  }

  flush(): void {
    this.#isFlushing = false;
    const parts = this.#parts;
    const [first] = parts;
    if (first === undefined) return;
    this.#parts = [];
    const total = this.#bytes;
    this.#bytes = 0;
    if (!this.#socket.writable) return;
    this.#socket.write(parts.length === 1 ? first : Buffer.concat(parts, total), this.#onFlushed);
    this.#onFlushed();
  }
}
