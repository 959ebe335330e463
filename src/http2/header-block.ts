import { ConnectionFault } from './fault.ts';
import { Code, Flag, type FrameHeader } from './frames.ts';
import { Gather } from './gather.ts';

/** A HEADERS frame and its CONTINUATIONs, put together, without padding and priority. */
export interface HeaderBlock {
  readonly streamId: number;
  readonly endStream: boolean;
  /** The stream that this one was made to depend on (RFC 9113 §5.3.1), if that was said. */
  readonly dependency: number | undefined;
  readonly fragment: Buffer;
}

/** Beyond it a header block is a flood of frames and not a large request. */
const MAX_CONTINUATIONS = 8;

const PRIORITY_BYTES = 5;

const NOTHING = Buffer.alloc(0);

/** Puts HEADERS and CONTINUATION frames together, bounded in frames and bytes. */
export class HeaderBlockAssembler {
  readonly #maxBytes: number;
  readonly #fragment = new Gather();
  #open: HeaderBlock | undefined;
  #continuations = 0;

  /** `maxBytes`: of one block as it came over the wire. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** The stream whose block is not complete: nothing but its CONTINUATION may come. 0 when there is none. */
  get openStream(): number {
    return this.#open?.streamId ?? 0;
  }

  /** What is kept in memory until the block is complete, in bytes. */
  get bytes(): number {
    return this.#fragment.cost;
  }

  /**
   * Takes the HEADERS or CONTINUATION whose turn it is; gives the block when this frame was its last.
   *
   * @throws {ConnectionFault} the padding or the length is wrong; too many bytes or CONTINUATIONs.
   */
  take(header: Pick<FrameHeader, 'flags' | 'streamId'>, payload: Buffer): HeaderBlock | undefined {
    const last = (header.flags & Flag.endHeaders) !== 0;
    if (this.#open === undefined && last) {
      const block = readHeaders(header, payload);
      this.#check(block.fragment.length);
      return block;
    }
    if (this.#open === undefined) {
      const first = readHeaders(header, payload);
      this.#add(first.fragment);
      // Its fragment is in the caller's memory, and has been copied.
      this.#open = { ...first, fragment: NOTHING };
      return undefined;
    }
    this.#continuations += 1;
    if (this.#continuations > MAX_CONTINUATIONS) {
      throw new ConnectionFault(Code.enhanceYourCalm, `header block in more than ${MAX_CONTINUATIONS} CONTINUATION frames`);
    }
    this.#add(payload);
    if (!last) return undefined;
    const block = { ...this.#open, fragment: this.#fragment.view };
    this.#open = undefined;
    this.#continuations = 0;
    this.#fragment.clear();
    return block;
  }

  #add(bytes: Buffer): void {
    this.#check(this.#fragment.length + bytes.length);
    this.#fragment.add(bytes);
  }

  #check(bytes: number): void {
    if (bytes > this.#maxBytes) throw new ConnectionFault(Code.enhanceYourCalm, `header block of more than ${this.#maxBytes} bytes`);
  }
}

function readHeaders(header: Pick<FrameHeader, 'flags' | 'streamId'>, payload: Buffer): HeaderBlock {
  const { flags, streamId } = header;
  const endStream = (flags & Flag.endStream) !== 0;
  if ((flags & (Flag.padded | Flag.priority)) === 0) return { streamId, endStream, dependency: undefined, fragment: payload };
  const start = (flags & Flag.padded) === 0 ? 0 : 1;
  const hasPriority = (flags & Flag.priority) !== 0;
  const fieldsStart = start + (hasPriority ? PRIORITY_BYTES : 0);
  if (payload.length < fieldsStart) {
    throw new ConnectionFault(Code.frameSizeError, `HEADERS of ${payload.length} bytes, too short for its flags (RFC 9113 §6.2)`);
  }
  const end = payload.length - (start === 0 ? 0 : payload.readUInt8(0));
  if (end < fieldsStart) throw new ConnectionFault(Code.protocolError, 'HEADERS with more padding than payload (RFC 9113 §6.2)');
  const dependency = hasPriority ? payload.readUInt32BE(start) & 0x7fffffff : undefined;
  return { streamId, endStream, dependency, fragment: payload.subarray(fieldsStart, end) };
}
