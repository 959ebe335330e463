import type { Socket } from 'node:net';
import { Gather } from './gather.ts';
import type { WholeAnswer } from './whole-answer.ts';

/** More than is written before the peer has to read (see session.ts), and an answer beyond it. */
const SHARED_BYTES = 96 * 1_024;

/**
 * What one connection is answered while its requests are read is put together in here: a buffer for each answer would be most of what the
 * garbage collector has to do. It is another's again when the kernel has taken what was written of it, which it has nearly always at once.
 */
let shared = Buffer.allocUnsafeSlow(SHARED_BYTES);

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
  #isCollecting = false;
  /** Bytes of `shared` that are this connection's, while it collects. */
  #collected = 0;

  /** `onFlushed` is called when something was written, and again when the kernel has taken it. */
  constructor(socket: Socket, onFlushed: () => void) {
    this.#socket = socket;
    this.#onFlushed = onFlushed;
  }

  /** Bytes that are not written yet. */
  get bytes(): number {
    return this.#bytes + this.#collected + this.#waiting.length;
  }

  /** Bytes that the kernel has not taken, written or not, as they are in memory. */
  get unsent(): number {
    return this.#bytes + this.#collected + this.#waiting.cost + (this.#socket.destroyed ? 0 : this.#socket.writableLength);
  }

  /** Until `flush` this connection is the only one that is written to: nothing of what is added needs a buffer of its own. */
  collect(): void {
    this.#isCollecting = true;
  }

  add(bytes: Buffer): void {
    if (this.#isCollecting && this.#collected + bytes.length <= shared.length && this.#parts.length === 0) {
      bytes.copy(shared, this.#collected);
      this.#collected += bytes.length;
      return;
    }
    this.#spill();
    this.#parts.push(bytes);
    this.#bytes += bytes.length;
  }

  /** The frames of `answer` for a stream. */
  addAnswer(answer: WholeAnswer, streamId: number): void {
    const { length } = answer;
    if (this.#isCollecting && this.#collected + length <= shared.length && this.#parts.length === 0) {
      answer.writeFrames(shared, this.#collected, streamId);
      this.#collected += length;
      return;
    }
    const frames = Buffer.allocUnsafe(length);
    answer.writeFrames(frames, 0, streamId);
    this.add(frames);
  }

  /** Writes when the present turn of the event loop is over. */
  flushSoon(): void {
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    process.nextTick(this.#flushBound);
  }

  flush(): void {
    this.#isFlushing = false;
    this.#isCollecting = false;
    if (this.bytes === 0) return;
    if (!this.#socket.writable) return this.clear();
    if (this.#socket.writableLength > 0) this.#wait();
    else this.#write();
    this.#onFlushed();
  }

  /** Forgets what is not written. */
  clear(): void {
    this.#parts = [];
    this.#bytes = 0;
    this.#collected = 0;
    this.#waiting.clear();
  }

  /** Makes a part of what was collected. */
  #spill(): void {
    if (this.#collected === 0) return;
    this.#parts.push(Buffer.from(shared.subarray(0, this.#collected)));
    this.#bytes += this.#collected;
    this.#collected = 0;
  }

  #wait(): void {
    this.#spill();
    for (const part of this.#parts) this.#waiting.add(part);
    this.#parts = [];
    this.#bytes = 0;
  }

  #write(): void {
    if (this.#collected > 0 && this.#waiting.length === 0) return this.#writeShared();
    if (this.#waiting.length > 0) this.#wait();
    const [first] = this.#parts;
    const bytes = first === undefined ? this.#waiting.view : this.#parts.length === 1 ? first : Buffer.concat(this.#parts, this.#bytes);
    this.clear();
    this.#socket.write(bytes, this.#takenBound);
  }

  #writeShared(): void {
    const bytes = shared.subarray(0, this.#collected);
    this.#collected = 0;
    this.#socket.write(bytes, this.#takenBound);
    // The kernel has not taken all of it: it stays with whoever writes it.
    if (this.#socket.writableLength > 0) shared = Buffer.allocUnsafeSlow(SHARED_BYTES);
  }

  #taken(): void {
    if (this.bytes > 0 && this.#socket.writableLength === 0) this.flush();
    else this.#onFlushed();
  }
}
