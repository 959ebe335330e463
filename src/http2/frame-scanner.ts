import { ConnectionFault } from './fault.ts';
import { Code, Flag, FRAME_HEADER_BYTES, FrameType, MAX_FRAME_BYTES, PREFACE, readStreamId } from './frames.ts';
import { describeOpening } from './opening.ts';

/** Who takes what a scanner finds. */
export interface FrameTaker {
  /** The stream whose header block is not complete: nothing but its CONTINUATION may come. 0 when there is none. */
  readonly openBlock: number;
  /** The client's preface has come. */
  opened(): void;
  /** A whole frame, good during the call only. False when no more is to be read now. */
  frame(type: number, flags: number, streamId: number, payload: Buffer): boolean;
}

/** Finds the preface and the frames in what a client sends (RFC 9113 §3.4, §4). */
export class FrameScanner {
  readonly #taker: FrameTaker;
  #isOpened = false;
  #isFirst = true;

  constructor(taker: FrameTaker) {
    this.#taker = taker;
  }

  /**
   * Hands on all that is whole in `bytes`; gives how many bytes that was.
   *
   * @throws {ConnectionFault} it is no HTTP/2, a frame is too large, or comes where it may not.
   */
  scan(bytes: Buffer): number {
    let at = this.#isOpened ? 0 : this.#open(bytes);
    if (!this.#isOpened) return 0;
    while (bytes.length - at >= FRAME_HEADER_BYTES) {
      const length = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
      const type = bytes[at + 3]!;
      const flags = bytes[at + 4]!;
      const streamId = readStreamId(bytes, at + 5);
      this.#check(length, type, flags, streamId);
      const end = at + FRAME_HEADER_BYTES + length;
      if (end > bytes.length) break;
      this.#isFirst = false;
      const goesOn = this.#taker.frame(type, flags, streamId, bytes.subarray(at + FRAME_HEADER_BYTES, end));
      at = end;
      if (!goesOn) break;
    }
    return at;
  }

  #open(bytes: Buffer): number {
    const length = Math.min(bytes.length, PREFACE.length);
    if (PREFACE.compare(bytes, 0, length, 0, length) !== 0) {
      throw new ConnectionFault(Code.protocolError, `begins with ${describeOpening(bytes)}, expected the HTTP/2 connection preface (RFC 9113 §3.4)`);
    }
    if (length < PREFACE.length) return 0;
    this.#isOpened = true;
    this.#taker.opened();
    return length;
  }

  /** What can be told from the header alone, before the payload has come. */
  #check(length: number, type: number, flags: number, streamId: number): void {
    if (length > MAX_FRAME_BYTES) {
      throw new ConnectionFault(Code.frameSizeError, `frame of ${length} bytes, at most ${MAX_FRAME_BYTES} are allowed (RFC 9113 §4.2)`);
    }
    if (this.#isFirst && (type !== FrameType.settings || (flags & Flag.ack) !== 0 || streamId !== 0)) {
      throw new ConnectionFault(Code.protocolError, 'the first frame is not SETTINGS (RFC 9113 §3.4)');
    }
    const open = this.#taker.openBlock;
    if (open !== 0 && (type !== FrameType.continuation || streamId !== open)) {
      throw new ConnectionFault(Code.protocolError, 'a frame between HEADERS and its last CONTINUATION (RFC 9113 §6.10)');
    }
  }
}
