import { Gather } from '../http2/gather.ts';
import { CallFault, Status } from './status.ts';

/** A flag and the length (gRPC over HTTP/2, Length-Prefixed-Message). */
export const PREFIX_BYTES = 5;

/** True when `chunk` is one whole message that is neither compressed nor too long, as nearly every request is. */
export function isOneMessage(chunk: Buffer, maxBytes: number): boolean {
  return chunk.length >= PREFIX_BYTES && chunk[0] === 0 && chunk.length - PREFIX_BYTES <= maxBytes && chunk.readUInt32BE(1) === chunk.length - PREFIX_BYTES;
}

/** Takes a request body apart into its messages, and keeps no more of it than one unfinished message. */
export class MessageReader {
  readonly #maxBytes: number;
  readonly #unfinished = new Gather();

  /** `maxBytes`: the longest message. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** What is kept in memory because its message is not complete, in bytes; 0 when there is none. */
  get bytes(): number {
    return this.#unfinished.cost;
  }

  /** Forgets what it keeps. */
  clear(): void {
    this.#unfinished.clear();
  }

  /**
   * The messages that are complete with `chunk`, good as long as it is.
   *
   * @throws {CallFault} a message is too long, or compressed.
   */
  *read(chunk: Buffer): Generator<Buffer, void, undefined> {
    let at = 0;
    if (this.#unfinished.length > 0) {
      at = this.#fill(chunk);
      const kept = this.#unfinished.view;
      if (kept.length < this.#needed(kept, 0)) return;
      this.#unfinished.clear();
      yield kept.subarray(PREFIX_BYTES);
    }
    while (at < chunk.length) {
      const end = at + this.#needed(chunk, at);
      if (end > chunk.length || chunk.length - at < PREFIX_BYTES) return this.#unfinished.add(chunk.subarray(at));
      yield chunk.subarray(at + PREFIX_BYTES, end);
      at = end;
    }
  }

  /** Takes of `chunk` what the unfinished message lacks: first of its prefix, which tells how long it is. Gives how much that was. */
  #fill(chunk: Buffer): number {
    let at = 0;
    for (;;) {
      const missing = this.#needed(this.#unfinished.view, 0) - this.#unfinished.length;
      if (missing === 0 || at === chunk.length) return at;
      const end = Math.min(at + missing, chunk.length);
      this.#unfinished.add(chunk.subarray(at, end));
      at = end;
    }
  }

  /** How many bytes the message at `at` has with its prefix, or the prefix while it is not complete. */
  #needed(bytes: Buffer, at: number): number {
    const compressed = bytes[at];
    if (compressed === 1) throw new CallFault(Status.unimplemented, 'compressed requests are not supported');
    if (compressed !== 0) throw new CallFault(Status.internal, 'the request is not a gRPC message');
    if (bytes.length - at < PREFIX_BYTES) return PREFIX_BYTES;
    const length = bytes.readUInt32BE(at + 1);
    if (length > this.#maxBytes) throw new CallFault(Status.resourceExhausted, `Received message larger than max (${length} vs. ${this.#maxBytes})`);
    return PREFIX_BYTES + length;
  }
}
