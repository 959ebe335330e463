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
  headerTableSize: 1, enablePush: 2, maxConcurrentStreams: 3, initialWindowSize: 4, maxFrameSize: 5, maxHeaderListSize: 6,
} as const;

/** RFC 9113 §7. */
export const Code = {
  noError: 0, protocolError: 1, internalError: 2, flowControlError: 3, streamClosed: 5, frameSizeError: 6, refusedStream: 7,
  cancel: 8, compressionError: 9, enhanceYourCalm: 11,
} as const;
export type Code = (typeof Code)[keyof typeof Code];

export const FRAME_HEADER_BYTES = 9;

/** The largest payload that a peer may send while SETTINGS_MAX_FRAME_SIZE is not announced (RFC 9113 §4.2), and that is sent here. */
export const MAX_FRAME_BYTES = 16_384;

/** What SETTINGS_HEADER_TABLE_SIZE is while it is not announced (RFC 9113 §6.5.2). */
export const DEFAULT_HEADER_TABLE_BYTES = 4_096;

/** What a flow-control window is at first (RFC 9113 §6.9.2). */
export const DEFAULT_WINDOW_BYTES = 65_535;

/** No flow-control window grows beyond it (RFC 9113 §6.9.1). */
export const LARGEST_WINDOW_BYTES = 0x7fffffff;

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
    streamId: readStreamId(bytes, at + 5),
  };
}

/** The highest bit is reserved and must be ignored (RFC 9113 §4.1). */
export function readStreamId(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) & 0x7fffffff;
}

export function writeFrameHeader(out: Buffer, at: number, header: FrameHeader): number {
  out.writeUIntBE(header.length, at, 3);
  out.writeUInt8(header.type, at + 3);
  out.writeUInt8(header.flags, at + 4);
  return out.writeUInt32BE(header.streamId, at + 5);
}

/** One frame with its payload. */
export function frameOf(type: number, flags: number, streamId: number, payload: Buffer): Buffer {
  const out = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  payload.copy(out, writeFrameHeader(out, 0, { length: payload.length, type, flags, streamId }));
  return out;
}

/** A SETTINGS frame with the given pairs of identifier and value (RFC 9113 §6.5.1). */
export function settingsFrame(settings: readonly (readonly [id: number, value: number])[]): Buffer {
  const payload = Buffer.alloc(settings.length * 6);
  let at = 0;
  for (const [id, value] of settings) at = payload.writeUInt32BE(value, payload.writeUInt16BE(id, at));
  return frameOf(FrameType.settings, 0, 0, payload);
}

/** RST_STREAM (RFC 9113 §6.4). */
export function resetFrame(streamId: number, code: number): Buffer {
  return frameOf(FrameType.rstStream, 0, streamId, uint32(code));
}

/** WINDOW_UPDATE; stream 0 is the connection (RFC 9113 §6.9). */
export function windowUpdateFrame(streamId: number, increment: number): Buffer {
  return frameOf(FrameType.windowUpdate, 0, streamId, uint32(increment));
}

/** GOAWAY, with a text for whoever reads the peer's log (RFC 9113 §6.8). */
export function goawayFrame(lastStreamId: number, code: number, text: string): Buffer {
  return frameOf(FrameType.goaway, 0, 0, Buffer.concat([uint32(lastStreamId), uint32(code), Buffer.from(text, 'latin1')]));
}

function uint32(value: number): Buffer {
  const out = Buffer.allocUnsafe(4);
  out.writeUInt32BE(value, 0);
  return out;
}
