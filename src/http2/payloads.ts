import { ConnectionFault, StreamFault } from './fault.ts';
import { Code, DEFAULT_HEADER_TABLE_BYTES, Flag, LARGEST_WINDOW_BYTES, MAX_FRAME_BYTES, readStreamId, Setting } from './frames.ts';

/** What a frame says, checked for its form (RFC 9113 §6): each throws ConnectionFault or StreamFault, naming the rule. */

/** DATA without its padding. */
export function readData(flags: number, payload: Buffer): Buffer {
  if ((flags & Flag.padded) === 0) return payload;
  const padding = payload[0];
  if (padding === undefined) throw new ConnectionFault(Code.frameSizeError, 'DATA with PADDED and no length of it (RFC 9113 §6.1)');
  if (padding >= payload.length) throw new ConnectionFault(Code.protocolError, 'DATA with more padding than payload (RFC 9113 §6.1)');
  return payload.subarray(1, payload.length - padding);
}

export function checkPriority(streamId: number, payload: Buffer): void {
  if (streamId === 0) throw new ConnectionFault(Code.protocolError, 'PRIORITY on stream 0 (RFC 9113 §6.3)');
  if (payload.length !== 5) throw new StreamFault(Code.frameSizeError, 'PRIORITY that is not 5 bytes long (RFC 9113 §6.3)');
  if (readStreamId(payload, 0) === streamId) throw new StreamFault(Code.protocolError, 'a stream that depends on itself (RFC 7540 §5.3.1)');
}

export function checkReset(payload: Buffer): void {
  if (payload.length !== 4) throw new ConnectionFault(Code.frameSizeError, 'RST_STREAM that is not 4 bytes long (RFC 9113 §6.4)');
}

/** What a server of small requests needs to know of a client's settings. */
export interface PeerSettings {
  /** SETTINGS_INITIAL_WINDOW_SIZE as the frame says it last; undefined where it does not. */
  readonly initialWindow: number | undefined;
  /** The client's HPACK table has been made smaller than it is at first. */
  readonly hasSmallTable: boolean;
}

/** SETTINGS; undefined for an ACK. */
export function readSettings(flags: number, streamId: number, payload: Buffer): PeerSettings | undefined {
  if (streamId !== 0) throw new ConnectionFault(Code.protocolError, 'SETTINGS on a stream (RFC 9113 §6.5)');
  if ((flags & Flag.ack) !== 0) {
    if (payload.length > 0) throw new ConnectionFault(Code.frameSizeError, 'SETTINGS with ACK and a payload (RFC 9113 §6.5)');
    return undefined;
  }
  if (payload.length % 6 !== 0) throw new ConnectionFault(Code.frameSizeError, 'SETTINGS whose length is not a multiple of 6 (RFC 9113 §6.5)');
  let initialWindow: number | undefined;
  let hasSmallTable = false;
  for (let at = 0; at < payload.length; at += 6) {
    const [id, value] = [payload.readUInt16BE(at), payload.readUInt32BE(at + 2)];
    checkSetting(id, value);
    if (id === Setting.initialWindowSize) initialWindow = value;
    if (id === Setting.headerTableSize && value < DEFAULT_HEADER_TABLE_BYTES) hasSmallTable = true;
  }
  return { initialWindow, hasSmallTable };
}

function checkSetting(id: number, value: number): void {
  if (id === Setting.enablePush && value > 1) throw new ConnectionFault(Code.protocolError, 'SETTINGS_ENABLE_PUSH is neither 0 nor 1 (RFC 9113 §6.5.2)');
  if (id === Setting.maxFrameSize && (value < MAX_FRAME_BYTES || value > 0xffffff)) {
    throw new ConnectionFault(Code.protocolError, 'SETTINGS_MAX_FRAME_SIZE is out of its range (RFC 9113 §6.5.2)');
  }
  if (id === Setting.initialWindowSize && value > LARGEST_WINDOW_BYTES) {
    throw new ConnectionFault(Code.flowControlError, 'SETTINGS_INITIAL_WINDOW_SIZE is too large (RFC 9113 §6.5.2)');
  }
}

export function checkPing(streamId: number, payload: Buffer): void {
  if (streamId !== 0) throw new ConnectionFault(Code.protocolError, 'PING on a stream (RFC 9113 §6.7)');
  if (payload.length !== 8) throw new ConnectionFault(Code.frameSizeError, 'PING that is not 8 bytes long (RFC 9113 §6.7)');
}

export function checkGoaway(streamId: number, payload: Buffer): void {
  if (streamId !== 0) throw new ConnectionFault(Code.protocolError, 'GOAWAY on a stream (RFC 9113 §6.8)');
  if (payload.length < 8) throw new ConnectionFault(Code.frameSizeError, 'GOAWAY of less than 8 bytes (RFC 9113 §6.8)');
}

/** By how much a window grows; 0, which is not allowed, is the fault of the connection or the stream, and told later. */
export function readWindowUpdate(payload: Buffer): number {
  if (payload.length !== 4) throw new ConnectionFault(Code.frameSizeError, 'WINDOW_UPDATE that is not 4 bytes long (RFC 9113 §6.9)');
  return readStreamId(payload, 0);
}
