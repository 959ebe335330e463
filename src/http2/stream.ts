import { Flag, FRAME_HEADER_BYTES, frameOf, FrameType, MAX_FRAME_BYTES, writeFrameHeader } from './frames.ts';
import type { WholeAnswer } from './whole-answer.ts';

/** Who takes what comes of one request. */
export interface RequestReader {
  /** A piece of the body, which is good during the call only. `isLast`: `end` follows within it. */
  data(chunk: Buffer, isLast: boolean): void;
  /** The request is complete. */
  end(): void;
  /**
   * Nothing more is said or heard on this stream: its answer has been taken by the kernel, or it was reset, or the connection is
   * closed. Told once.
   */
  closed(): void;
}

/** What a stream needs of its connection. */
export interface StreamHost {
  /** Bytes that the connection's flow-control window has room for; taken by what is written. */
  sendWindow: number;
  /** Takes room for an answer that waits for a window to open; false when there is not enough. */
  queue(bytes: number): boolean;
  /** So many bytes of what waited were sent, or are not to be sent any more. */
  unqueue(bytes: number): void;
  write(bytes: Buffer): void;
  writeAnswer(answer: WholeAnswer, streamId: number): void;
  /** A message was written: what its reader says to it is paid for. */
  earn(): void;
  /** What is to be sent in this turn of the event loop has been written. */
  sent(): void;
  /** True when the next field block must say that the client's table is not used (RFC 7541 §4.2); `takeResize` says that it does. */
  readonly owesResize: boolean;
  takeResize(): boolean;
  /** The stream waits for its window or the connection's. */
  block(stream: RequestStream): void;
  /** The answer has been written to its end. */
  answered(stream: RequestStream): void;
  /** Resets the stream. */
  reset(stream: RequestStream, code: number): void;
  /** Takes room for what the reader of a request keeps in memory; false when there is not enough. Negative gives back. */
  keep(bytes: number): boolean;
}

/** A dynamic table size update to 0 (RFC 7541 §6.3). */
const TABLE_UNUSED = Buffer.of(0x20);

interface Piece {
  readonly type: number;
  readonly bytes: Buffer;
  at: number;
  readonly end: boolean;
  readonly done: (() => void) | undefined;
}

/** One request and its answer (RFC 9113 §5). What may not be sent yet waits here, in order. */
export class RequestStream {
  readonly id: number;
  readonly #host: StreamHost;
  #reader: RequestReader | undefined;
  /** No more comes from the client. */
  remoteEnded = false;
  /** No more is said, or heard, on this stream. */
  isOver = false;
  sendWindow: number;
  receiveWindow: number;
  /** Bytes of body that came, and what they must come to. */
  bodyBytes = 0;
  contentLength: number | undefined;
  #pieces: Piece[] | undefined;
  #isEnding = false;
  #isClosed = false;
  #kept = 0;

  constructor(id: number, host: StreamHost, sendWindow: number, receiveWindow: number) {
    this.id = id;
    this.#host = host;
    this.sendWindow = sendWindow;
    this.receiveWindow = receiveWindow;
  }

  get reader(): RequestReader | undefined {
    return this.#reader;
  }

  set reader(reader: RequestReader | undefined) {
    this.#reader = reader;
    if (this.#isClosed) reader?.closed();
  }

  /** Tells the reader, once, that nothing more comes. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#reader?.closed();
  }

  /** False once the answer has been begun to its end, or the stream is over: then nothing can be sent any more. */
  get isWritable(): boolean {
    return !this.#isEnding && !this.isOver;
  }

  /** Sends an encoded list of fields: the answer's head, or with `end` its trailers or all of it. At most 16,384 bytes. */
  sendFields(block: Buffer, end: boolean): void {
    if (!this.isWritable) return;
    this.#isEnding = end;
    this.#send({ type: FrameType.headers, bytes: block, at: 0, end, done: undefined });
  }

  /**
   * Sends bytes of the body. `done` is called when the last of them has been handed to the socket. False when they would have to wait and
   * there is no room for them: nothing is sent then.
   */
  sendData(bytes: Buffer, done?: () => void): boolean {
    if (!this.isWritable) return true;
    if (!this.#host.queue(bytes.length)) return false;
    this.#sendQueued(bytes, done);
    this.#host.sent();
    return true;
  }

  /** The same as head, body and trailers one after the other, in one write where the windows have room. False as `sendData`. */
  sendWhole(answer: WholeAnswer): boolean {
    if (!this.isWritable) return true;
    const { bodyBytes } = answer;
    const fits = this.#pieces === undefined && bodyBytes <= this.sendWindow && bodyBytes <= this.#host.sendWindow;
    if (!fits || !answer.isOneFrame || this.#host.owesResize) return this.#sendInPieces(answer);
    this.#host.earn();
    this.#isEnding = true;
    this.sendWindow -= bodyBytes;
    this.#host.sendWindow -= bodyBytes;
    this.#host.writeAnswer(answer, this.id);
    this.#host.answered(this);
    return true;
  }

  reset(code: number): void {
    if (!this.isOver) this.#host.reset(this, code);
  }

  /**
   * Takes room for what the reader keeps of the request; false when there is not enough. Negative gives back; what is left is given back
   * when the stream is over.
   */
  keep(bytes: number): boolean {
    if (this.isOver) return true;
    if (!this.#host.keep(bytes)) return false;
    this.#kept += bytes;
    return true;
  }

  /** Sends what the windows have room for now. */
  pump(): void {
    while (this.#pieces !== undefined && !this.isOver) {
      const [piece] = this.#pieces;
      if (piece === undefined || !this.#advance(piece)) return;
      this.#pieces.shift();
      if (this.#pieces.length === 0) this.#pieces = undefined;
      piece.done?.();
      if (piece.end) this.#host.answered(this);
    }
  }

  /** Lets go of everything. `reader.closed` is the connection's to tell. */
  finish(): void {
    if (this.isOver) return;
    this.isOver = true;
    for (const piece of this.#pieces ?? []) if (piece.type === FrameType.data) this.#host.unqueue(piece.bytes.length - piece.at);
    this.#pieces = undefined;
    if (this.#kept !== 0) this.#host.keep(-this.#kept);
    this.#kept = 0;
  }

  #sendInPieces({ head, body, trailers }: WholeAnswer): boolean {
    if (!this.#host.queue(body.length)) return false;
    this.sendFields(head, false);
    this.#sendQueued(body, undefined);
    this.sendFields(trailers, true);
    this.#host.sent();
    return true;
  }

  #sendQueued(bytes: Buffer, done: (() => void) | undefined): void {
    this.#host.earn();
    this.#send({ type: FrameType.data, bytes, at: 0, end: false, done });
  }

  #send(piece: Piece): void {
    if (this.#pieces !== undefined) return void this.#pieces.push(piece);
    this.#pieces = [piece];
    this.pump();
  }

  /** True when all of `piece` has been written. */
  #advance(piece: Piece): boolean {
    if (piece.type === FrameType.headers) {
      const flags = Flag.endHeaders | (piece.end ? Flag.endStream : 0);
      const block = this.#host.takeResize() ? Buffer.concat([TABLE_UNUSED, piece.bytes]) : piece.bytes;
      this.#host.write(frameOf(FrameType.headers, flags, this.id, block));
      return true;
    }
    while (piece.at < piece.bytes.length) {
      const length = Math.min(piece.bytes.length - piece.at, MAX_FRAME_BYTES, this.sendWindow, this.#host.sendWindow);
      if (length <= 0) {
        this.#host.block(this);
        return false;
      }
      const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES);
      writeFrameHeader(header, 0, { length, type: FrameType.data, flags: 0, streamId: this.id });
      this.#host.write(header);
      this.#host.write(piece.bytes.subarray(piece.at, piece.at + length));
      piece.at += length;
      this.sendWindow -= length;
      this.#host.sendWindow -= length;
      this.#host.unqueue(length);
    }
    return true;
  }
}
