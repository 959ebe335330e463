import { CallFault, Status } from './status.ts';

const PREFIX_BYTES = 5;
const MOST_PARTS = 64;

/** Takes a request body apart into its messages, and keeps no more of it than one unfinished message. */
export class MessageReader {
  readonly #maxBytes: number;
  #unfinished: Buffer[] = [];
  #bytes = 0;

  /** `maxBytes`: the longest message. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Bytes that are kept because their message is not complete. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * The messages that are complete with `chunk`, good as long as it is.
   *
   * @throws {CallFault} a message is too long, or compressed.
   */
  *read(chunk: Buffer): Generator<Buffer, void, undefined> {
    let bytes = chunk;
    if (this.#bytes > 0) {
      this.#unfinished.push(chunk);
      this.#bytes += chunk.length;
      if (this.#bytes < this.#needed()) return this.#keep(chunk);
      bytes = Buffer.concat(this.#unfinished);
      this.#unfinished = [];
      this.#bytes = 0;
    }
    let at = 0;
    while (bytes.length - at >= PREFIX_BYTES) {
      const end = at + PREFIX_BYTES + this.#lengthAt(bytes, at);
      if (end > bytes.length) break;
      yield bytes.subarray(at + PREFIX_BYTES, end);
      at = end;
    }
    if (at < bytes.length) {
      this.#unfinished = [Buffer.from(bytes.subarray(at))];
      this.#bytes = bytes.length - at;
    }
  }

  #keep(chunk: Buffer): void {
    this.#unfinished[this.#unfinished.length - 1] = Buffer.from(chunk);
    // Each buffer costs more than a few bytes of content.
    if (this.#unfinished.length > MOST_PARTS) this.#unfinished = [Buffer.concat(this.#unfinished)];
  }

  /** How many bytes the unfinished message and its prefix have. */
  #needed(): number {
    if (this.#bytes < PREFIX_BYTES) return PREFIX_BYTES;
    const [first] = this.#unfinished;
    if (first === undefined || first.length < PREFIX_BYTES) {
      this.#unfinished = [Buffer.concat(this.#unfinished)];
      return this.#needed();
    }
    return PREFIX_BYTES + this.#lengthAt(first, 0);
  }

  #lengthAt(bytes: Buffer, at: number): number {
    const compressed = bytes[at]!;
    if (compressed === 1) throw new CallFault(Status.unimplemented, 'compressed requests are not supported');
    if (compressed !== 0) throw new CallFault(Status.internal, 'the request is not a gRPC message');
    const length = bytes.readUInt32BE(at + 1);
    if (length > this.#maxBytes) throw new CallFault(Status.resourceExhausted, `Received message larger than max (${length} vs. ${this.#maxBytes})`);
    return length;
  }
}
