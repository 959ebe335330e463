import type { Socket } from 'node:net';
import { Gather } from './gather.ts';

/** What is written to one socket: what comes in one turn goes out in one write, and never two writes wait for the kernel. */
export class Outbox {
  readonly #socket: Socket;
  readonly #onFlushed: () => void;
  readonly #flushBound = (): void => this.flush();
  readonly #takenBound = (): void => this.#taken();
  /** What comes while a write waits: in one buffer, because each small one costs more than its bytes. */
  readonly #waiting = new Gather();
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
    return this.#bytes + this.#waiting.length;
  }

  /** Bytes that the kernel has not taken, written or not, as they are in memory. */
  get unsent(): number {
    return this.#bytes + this.#waiting.cost + (this.#socket.destroyed ? 0 : this.#socket.writableLength);
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
    if (this.#parts.length === 0 && this.#waiting.length === 0) return;
    if (!this.#socket.writable) return this.clear();
    if (this.#socket.writableLength > 0) this.#wait();
    else this.#write();
    this.#onFlushed();
  }

  /** Forgets what is not written. */
  clear(): void {
    this.#parts = [];
    this.#bytes = 0;
    this.#waiting.clear();
  }

  #wait(): void {
    for (const part of this.#parts) this.#waiting.add(part);
    this.#parts = [];
    this.#bytes = 0;
  }

  #write(): void {
    if (this.#waiting.length > 0) this.#wait();
    const [first] = this.#parts;
    const bytes = first === undefined ? this.#waiting.view : this.#parts.length === 1 ? first : Buffer.concat(this.#parts, this.#bytes);
    this.clear();
    this.#socket.write(bytes, this.#takenBound);
  }

  #taken(): void {
    if (this.bytes > 0 && this.#socket.writableLength === 0) this.flush();
    else this.#onFlushed();
  }
}
