import { SignetError } from '../errors.ts';

/** What a client sends first (RFC 9113 §3.4). */
export const PREFACE: Buffer = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

/** RFC 9113 §6. */
export const FrameType = {
  data: 0, headers: 1, priority: 2, rstStream: 3, settings: 4, pushPromise: 5, ping: 6, goaway: 7, windowUpdate: 8,
  continuation: 9,
} as const;

/** RFC 9113 §6. ACK is the same bit as END_STREAM. */
export const Flag = { endStream: 0x1, ack: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const;

/** RFC 9113 §6.5.2. */
export const Setting = {
  headerTableSize: 1, maxConcurrentStreams: 3, initialWindowSize: 4, maxFrameSize: 5, maxHeaderListSize: 6,
} as const;

export const FRAME_HEADER_BYTES = 9;

/** The largest payload that a peer may send while SETTINGS_MAX_FRAME_SIZE is not announced (RFC 9113 §4.2). */
export const MAX_FRAME_BYTES = 16_384;

/** What SETTINGS_HEADER_TABLE_SIZE is while it is not announced (RFC 9113 §6.5.2). */
export const DEFAULT_HEADER_TABLE_BYTES = 4_096;

/** nghttp2's own bound; beyond it a header block is a flood of frames and not a large request. */
const MAX_CONTINUATIONS = 8;

const PRIORITY_BYTES = 5;

export interface FrameHeader {
  /** Bytes of payload. */
  readonly length: number;
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
}

/** The frame header at `at`, or undefined while fewer than nine bytes are there. */
export function readFrameHeader(bytes: Buffer, at: number): FrameHeader | undefined {
  if (bytes.length - at < FRAME_HEADER_BYTES) return undefined;
  return {
    length: bytes.readUIntBE(at, 3),
    type: bytes.readUInt8(at + 3),
    flags: bytes.readUInt8(at + 4),
    // The highest bit is reserved and must be ignored (RFC 9113 §4.1).
    streamId: bytes.readUInt32BE(at + 5) & 0x7fffffff,
  };
}

export function writeFrameHeader(out: Buffer, at: number, header: FrameHeader): number {
  out.writeUIntBE(header.length, at, 3);
  out.writeUInt8(header.type, at + 3);
  out.writeUInt8(header.flags, at + 4);
  return out.writeUInt32BE(header.streamId, at + 5);
}

/** A SETTINGS frame with the given pairs of identifier and value (RFC 9113 §6.5.1). */
export function settingsFrame(settings: readonly (readonly [id: number, value: number])[]): Buffer {
  const length = settings.length * 6;
  const out = Buffer.alloc(FRAME_HEADER_BYTES + length);
  let at = writeFrameHeader(out, 0, { length, type: FrameType.settings, flags: 0, streamId: 0 });
  for (const [id, value] of settings) at = out.writeUInt32BE(value, out.writeUInt16BE(id, at));
  return out;
}

/** A HEADERS frame and its CONTINUATIONs, put together, without padding. */
export interface HeaderBlock {
  readonly streamId: number;
  /** END_STREAM, PRIORITY and whatever else the HEADERS frame had; never PADDED or END_HEADERS. */
  readonly flags: number;
  /** The five bytes of stream dependency and weight, or none. */
  readonly priority: Buffer;
  readonly fragment: Buffer;
}

/** `block` in frames: one HEADERS and as many CONTINUATIONs as the largest frame size makes necessary. */
export function writeHeaderBlock(block: HeaderBlock): Buffer {
  const { streamId, flags, priority, fragment } = block;
  const total = priority.length + fragment.length;
  const frames = Math.max(1, Math.ceil(total / MAX_FRAME_BYTES));
  const out = Buffer.allocUnsafe(total + frames * FRAME_HEADER_BYTES);
  let taken = 0;
  for (let frame = 0, at = 0; frame < frames; frame++) {
    const last = frame === frames - 1 ? Flag.endHeaders : 0;
    const first = frame === 0;
    const room = first ? MAX_FRAME_BYTES - priority.length : MAX_FRAME_BYTES;
    const part = fragment.subarray(taken, taken + room);
    const length = part.length + (first ? priority.length : 0);
    const type = first ? FrameType.headers : FrameType.continuation;
    at = writeFrameHeader(out, at, { length, type, flags: (first ? flags : 0) | last, streamId });
    if (first) at += priority.copy(out, at);
    at += part.copy(out, at);
    taken += part.length;
  }
  return out;
}

export function malformed(what: string): SignetError {
  return new SignetError('malformed_http2', what);
}

export function isHeaderFrame(header: FrameHeader): boolean {
  return header.type === FrameType.headers || header.type === FrameType.continuation;
}

function readHeadersPayload(header: FrameHeader, payload: Buffer): HeaderBlock {
  const padded = (header.flags & Flag.padded) !== 0;
  const prioritised = (header.flags & Flag.priority) !== 0;
  const start = padded ? 1 : 0;
  const fieldsStart = start + (prioritised ? PRIORITY_BYTES : 0);
  if (payload.length < fieldsStart) {
    throw malformed(`HEADERS of ${payload.length} bytes, too short for its flags (RFC 9113 §6.2)`);
  }
  const end = payload.length - (padded ? payload.readUInt8(0) : 0);
  if (end < fieldsStart) throw malformed('HEADERS with more padding than payload (RFC 9113 §6.2)');
  return {
    streamId: header.streamId,
    flags: header.flags & ~(Flag.padded | Flag.endHeaders),
    priority: payload.subarray(start, fieldsStart),
    fragment: payload.subarray(fieldsStart, end),
  };
}

/** Puts HEADERS and CONTINUATION frames together, bounded in frames and bytes, and sees that nothing comes between them. */
export class HeaderBlockAssembler {
  readonly #maxBytes: number;
  #open: HeaderBlock | undefined;
  #parts: Buffer[] = [];
  #bytes = 0;

  /** `maxBytes`: of one block as it came over the wire. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /**
   * Must see the header of every frame, in order, as soon as it has come.
   * @throws {SignetError} `malformed_http2`: larger than the largest frame, or out of place in or outside a header block.
   */
  check(header: FrameHeader): void {
    const { type, streamId, length } = header;
    if (length > MAX_FRAME_BYTES) {
      throw malformed(`frame of ${length} bytes, at most ${MAX_FRAME_BYTES} are allowed (RFC 9113 §4.2)`);
    }
    if (this.#open === undefined) {
      if (type === FrameType.continuation) throw malformed('CONTINUATION without HEADERS (RFC 9113 §6.10)');
    } else if (type !== FrameType.continuation || streamId !== this.#open.streamId) {
      throw malformed('a frame between HEADERS and its last CONTINUATION (RFC 9113 §6.10)');
    }
  }

  /**
   * Takes a checked HEADERS or CONTINUATION frame; gives the block when this frame was its last.
   * @throws {SignetError} `malformed_http2`: the padding or the length is wrong.
   * @throws {SignetError} `limit_exceeded`: too many bytes or CONTINUATIONs.
   */
  take(header: FrameHeader, payload: Buffer): HeaderBlock | undefined {
    const last = (header.flags & Flag.endHeaders) !== 0;
    // What must wait is copied, because a slice would keep the whole chunk alive.
    const own = last ? payload : Buffer.from(payload);
    const block = (this.#open ??= readHeadersPayload(header, own));
    const part = header.type === FrameType.headers ? block.fragment : own;
    this.#parts.push(part);
    this.#bytes += part.length;
    if (this.#bytes > this.#maxBytes) {
      throw new SignetError('limit_exceeded', `header block of more than ${this.#maxBytes} bytes`);
    }
    if (this.#parts.length > MAX_CONTINUATIONS + 1) {
      throw new SignetError('limit_exceeded', `header block in more than ${MAX_CONTINUATIONS} CONTINUATION frames`);
    }
    if (!last) return undefined;
    const fragment = this.#parts.length === 1 ? part : Buffer.concat(this.#parts);
    this.#open = undefined;
    this.#parts = [];
    this.#bytes = 0;
    return { ...block, fragment };
  }
}
