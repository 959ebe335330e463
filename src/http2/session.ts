import type { Socket } from 'node:net';
import type { Clock } from '../clock.ts';
import { isSignetError } from '../errors.ts';
import { Calm } from './calm.ts';
import { ConnectionFault, StreamFault } from './fault.ts';
import { FrameScanner, type FrameTaker } from './frame-scanner.ts';
import {
  Code, DEFAULT_HEADER_TABLE_BYTES, DEFAULT_WINDOW_BYTES, Flag, FrameType, frameOf, goawayFrame, LARGEST_WINDOW_BYTES, resetFrame, Setting,
  settingsFrame, windowUpdateFrame,
} from './frames.ts';
import { Gather } from './gather.ts';
import { HeaderBlockAssembler, type HeaderBlock } from './header-block.ts';
import { HpackDecoder, type HeaderField } from './hpack.ts';
import { Outbox } from './outbox.ts';
import { checkGoaway, checkPing, checkPriority, checkReset, readData, readSettings, readWindowUpdate } from './payloads.ts';
import { checkTrailers, readRequestHead, type RequestHead } from './request-head.ts';
import { StoppedStreams } from './stopped-streams.ts';
import { RequestStream, type RequestReader, type StreamHost } from './stream.ts';
import type { WholeAnswer } from './whole-answer.ts';

export interface SessionLimits {
  /** Announced as SETTINGS_MAX_CONCURRENT_STREAMS. */
  readonly concurrentStreams: number;
  /** Announced as SETTINGS_MAX_HEADER_LIST_SIZE, and the bound of one header block on the wire. */
  readonly headerBytes: number;
}

/** Whom a session tells what happens on its connection. */
export interface SessionUser {
  /** A request has begun. It may be answered at once; undefined: whatever comes of it is not wanted. */
  request(stream: RequestStream, head: RequestHead): RequestReader | undefined;
  /** The connection could not go on and is being closed. */
  fault(fault: ConnectionFault): void;
  /** Takes room for bytes that are kept in memory for this connection; false when there is not enough. Negative gives back. */
  hold(bytes: number, isAnswer?: boolean): boolean;
}

/** While so much waits for the peer to read, nothing more is read from it. */
const HIGH_WATER_BYTES = 65_536;

/** A window is given back when so much of it is used. */
const GIVE_BACK_BYTES = DEFAULT_WINDOW_BYTES >> 1;

/** What frames that bring nothing forward cost (see calm.ts): looking at one, and ending a stream without an answer. */
const FRAME_COST = 1;
const RESET_COST = 4;

const SETTINGS_ACK = frameOf(FrameType.settings, Flag.ack, 0, Buffer.alloc(0));

/**
 * The server's side of one HTTP/2 connection without TLS (RFC 9113), for small requests. It keeps of a client no more than a frame, a
 * header block and what `SessionUser.hold` allows; it reads no further while its answers are not read.
 */
export class Session implements StreamHost, FrameTaker {
  sendWindow = DEFAULT_WINDOW_BYTES;
  readonly #socket: Socket;
  readonly #limits: SessionLimits;
  readonly #user: SessionUser;
  readonly #outbox: Outbox;
  readonly #calm: Calm;
  readonly #scanner = new FrameScanner(this);
  readonly #blocks: HeaderBlockAssembler;
  readonly #decoder: HpackDecoder;
  readonly #streams = new Map<number, RequestStream>();
  readonly #blocked = new Set<RequestStream>();
  readonly #stopped = new StoppedStreams();
  /** Streams that have been answered, but whose answers the kernel has not taken. */
  #answered: RequestStream[] = [];
  /** What has come and could not be looked at: the beginning of a frame, or more while the peer has to read. */
  readonly #rest = new Gather();
  #sawAck = false;
  #isParsing = false;
  /** Nothing more is read until the peer has read. */
  #isWaiting = false;
  /** Nothing more is read until it is this connection's turn. */
  #isDeferred = false;
  /** The client has made its table smaller than HPACK has it at first, and has not been told that it is not used (RFC 7541 §4.2). */
  #owesResize = false;
  #hasResized = false;
  #isOver = false;
  #lastStream = 0;
  #initialWindow = DEFAULT_WINDOW_BYTES;
  #receiveWindow = DEFAULT_WINDOW_BYTES;
  #bodies = 0;
  #queued = 0;
  #held = 0;

  /** What comes over `socket` is to be given to `read`. */
  constructor(socket: Socket, limits: SessionLimits, user: SessionUser, clock: Clock) {
    this.#socket = socket;
    this.#limits = limits;
    this.#user = user;
    this.#calm = new Calm(clock);
    this.#blocks = new HeaderBlockAssembler(limits.headerBytes);
    this.#decoder = new HpackDecoder({ maxTableSize: DEFAULT_HEADER_TABLE_BYTES, maxHeaderListSize: limits.headerBytes });
    this.#outbox = new Outbox(socket, () => this.#flushed());
    // A peer that says no more still gets what it was answered.
    socket.once('end', () => this.#outbox.end());
    socket.once('close', () => this.#close());
  }

  /** HTTP/2 has begun as it should, and there has been no request yet. */
  get isIdle(): boolean {
    return this.#sawAck && this.#lastStream === 0 && this.#rest.length === 0 && this.#blocks.openStream === 0;
  }

  /** True once the first request has come. */
  get hasRequests(): boolean {
    return this.#lastStream > 0;
  }

  queue(bytes: number): boolean {
    if (!this.#user.hold(bytes, true)) {
      // What was sent in this turn may have left room.
      this.#giveBack();
      if (!this.#user.hold(bytes, true)) return false;
    }
    this.#held += bytes;
    this.#queued += bytes;
    return true;
  }

  /** The room is given back when it is counted again: what was sent may wait for the kernel. */
  unqueue(bytes: number): void {
    this.#queued -= bytes;
  }

  write(bytes: Buffer): void {
    this.#outbox.add(bytes);
    if (!this.#isParsing) this.#outbox.flushSoon();
  }

  writeAnswer(answer: WholeAnswer, streamId: number): void {
    this.#outbox.addAnswer(answer, streamId);
    if (!this.#isParsing) this.#outbox.flushSoon();
  }

  /** Outside of a read: all the connections of an owner may be written to in one turn, and share the room that is taken until then. */
  sent(): void {
    if (!this.#isParsing) this.#outbox.flush();
  }

  takeResize(): boolean {
    const owed = this.#owesResize;
    this.#owesResize = false;
    return owed;
  }

  get owesResize(): boolean {
    return this.#owesResize;
  }

  block(stream: RequestStream): void {
    this.#blocked.add(stream);
  }

  answered(stream: RequestStream): void {
    // A client that still sends is told to stop, and that nothing is wrong (RFC 9113 §8.1).
    if (!stream.remoteEnded) this.#stop(stream, Code.noError);
    this.#forget(stream);
    this.#answered.push(stream);
  }

  reset(stream: RequestStream, code: number): void {
    this.#stop(stream, code);
    this.#forget(stream);
    stream.close();
  }

  keep(bytes: number): boolean {
    if (!this.#user.hold(bytes)) return false;
    this.#held += bytes;
    this.#bodies += bytes;
    return true;
  }

  earn(): void {
    this.#calm.earn();
  }

  /** Takes what has come. The bytes are good during the call only. */
  read(chunk: Buffer): void {
    if (this.#isOver) return;
    if (this.#rest.length === 0) return this.#parse(chunk);
    this.#rest.add(chunk);
    this.#parse(undefined);
  }

  /** Takes what has come, to be looked at when `goOn` is called. False when that is to be called already, or the connection is over. */
  defer(chunk: Buffer): boolean {
    if (this.#isOver) return false;
    this.#rest.add(chunk);
    this.#account();
    if (this.#isOver || this.#isDeferred) return false;
    this.#isDeferred = true;
    this.#socket.pause();
    return true;
  }

  /** Looks at what was deferred. */
  goOn(): void {
    if (this.#isOver) return;
    this.#isDeferred = false;
    if (!this.#isWaiting) this.#readOn();
  }

  /** `chunk`: undefined for what is left of those before. */
  #parse(chunk: Buffer | undefined): void {
    const bytes = chunk ?? this.#rest.view;
    this.#isParsing = true;
    this.#outbox.collect();
    try {
      const at = this.#scanner.scan(bytes);
      if (this.#isOver) return;
      if (chunk === undefined) this.#rest.drop(at);
      else if (at < bytes.length) this.#rest.add(bytes.subarray(at));
    } catch (error) {
      if (error instanceof ConnectionFault) return this.#fail(error);
      // What came after it is lost, so that nothing that follows can be understood.
      this.#fail(new ConnectionFault(Code.internalError, 'the agent has made a mistake'));
      throw error;
    } finally {
      this.#isParsing = false;
      this.#outbox.flush();
      this.#account();
      this.#pace();
    }
  }

  /** Nothing more is read from a peer that does not read. */
  #pace(): void {
    if (this.#isOver || this.#isWaiting || this.#outbox.unsent < HIGH_WATER_BYTES) return;
    this.#isWaiting = true;
    this.#socket.pause();
  }

  /** The peer has read: what has come meanwhile is looked at, and more is read. */
  #stopWaiting(): void {
    this.#isWaiting = false;
    if (!this.#isDeferred) this.#readOn();
  }

  #readOn(): void {
    if (this.#rest.length > 0) this.#parse(undefined);
    if (!this.#isWaiting && !this.#isOver) this.#socket.resume();
  }

  get openBlock(): number {
    return this.#blocks.openStream;
  }

  opened(): void {
    this.write(settingsFrame([
      [Setting.maxConcurrentStreams, this.#limits.concurrentStreams],
      [Setting.maxHeaderListSize, this.#limits.headerBytes],
    ]));
  }

  frame(type: number, flags: number, streamId: number, payload: Buffer): boolean {
    this.#dispatch(type, flags, streamId, payload);
    return !this.#mustWait() && !this.#isOver;
  }

  /** True when the peer has to read before anything more is done for it. */
  #mustWait(): boolean {
    if (this.#outbox.bytes < HIGH_WATER_BYTES) return false;
    this.#outbox.flush();
    this.#outbox.collect();
    return this.#outbox.unsent >= HIGH_WATER_BYTES;
  }

  #dispatch(type: number, flags: number, streamId: number, payload: Buffer): void {
    try {
      switch (type) {
        case FrameType.data:
          return this.#data(flags, streamId, payload);
        case FrameType.headers:
          return this.#headers(flags, streamId, payload);
        case FrameType.priority:
          return this.#priority(streamId, payload);
        case FrameType.rstStream:
          return this.#resetByPeer(streamId, payload);
        case FrameType.settings:
          return this.#settings(flags, streamId, payload);
        case FrameType.pushPromise:
          throw new ConnectionFault(Code.protocolError, 'PUSH_PROMISE from a client (RFC 9113 §8.4)');
        case FrameType.ping:
          return this.#ping(flags, streamId, payload);
        case FrameType.goaway:
          return this.#goaway(streamId, payload);
        case FrameType.windowUpdate:
          return this.#windowUpdate(streamId, payload);
        case FrameType.continuation:
          return this.#continuation(flags, streamId, payload);
        default:
          // To be ignored (RFC 9113 §5.5).
          return this.#calm.spend(FRAME_COST);
      }
    } catch (error) {
      if (!(error instanceof StreamFault)) throw error;
      this.#refuseStream(streamId, error.code);
    }
  }

  #stop(stream: RequestStream, code: number): void {
    this.write(resetFrame(stream.id, code));
    if (!stream.remoteEnded) this.#stopped.add(stream.id);
  }

  #refuseStream(streamId: number, code: Code): void {
    this.#calm.spend(RESET_COST);
    const stream = this.#streams.get(streamId);
    if (stream !== undefined) return this.reset(stream, code);
    this.write(resetFrame(streamId, code));
    // What belongs to a request that was refused is still on its way.
    if (streamId === this.#lastStream) this.#stopped.add(streamId);
  }

  #headers(flags: number, streamId: number, payload: Buffer): void {
    if ((streamId & 1) === 0) throw new ConnectionFault(Code.protocolError, 'HEADERS on a stream that no client can open (RFC 9113 §5.1.1)');
    const block = this.#blocks.take({ flags, streamId }, payload);
    if (block !== undefined) this.#block(block);
  }

  #continuation(flags: number, streamId: number, payload: Buffer): void {
    if (this.#blocks.openStream === 0) throw new ConnectionFault(Code.protocolError, 'CONTINUATION without HEADERS (RFC 9113 §6.10)');
    const block = this.#blocks.take({ flags, streamId }, payload);
    if (block !== undefined) this.#block(block);
  }

  #block(block: HeaderBlock): void {
    const { streamId } = block;
    const isNew = streamId > this.#lastStream;
    if (isNew) this.#lastStream = streamId;
    // Whatever becomes of the stream: the next block is written with what this one puts into the table (RFC 9113 §4.3).
    const fields = this.#decode(block.fragment);
    if (block.dependency === streamId) throw new StreamFault(Code.protocolError, 'a stream that depends on itself (RFC 7540 §5.3.1)');
    if (isNew) return this.#open(block, fields);
    const stream = this.#streams.get(streamId);
    if (stream === undefined && this.#stopped.excuses(streamId, block.endStream)) return;
    if (stream === undefined) throw new ConnectionFault(Code.streamClosed, 'HEADERS on a closed stream (RFC 9113 §5.1)');
    if (stream.remoteEnded) throw new StreamFault(Code.streamClosed, 'HEADERS after END_STREAM (RFC 9113 §5.1)');
    if (!block.endStream) throw new StreamFault(Code.protocolError, 'trailers that do not end the stream (RFC 9113 §8.1)');
    checkTrailers(fields);
    this.#endOfRequest(stream);
  }

  #decode(fragment: Buffer): HeaderField[] {
    try {
      return this.#decoder.decode(fragment);
    } catch (error) {
      if (isSignetError(error, 'limit_exceeded')) throw new StreamFault(Code.enhanceYourCalm, error.message);
      throw new ConnectionFault(Code.compressionError, error instanceof Error ? error.message : String(error));
    }
  }

  #open({ streamId, endStream }: HeaderBlock, fields: HeaderField[]): void {
    if (this.#streams.size >= this.#limits.concurrentStreams) throw new StreamFault(Code.refusedStream, 'too many streams at once (RFC 9113 §5.1.2)');
    const head = readRequestHead(fields);
    const stream = new RequestStream(streamId, this, this.#initialWindow, DEFAULT_WINDOW_BYTES);
    stream.contentLength = head.contentLength;
    stream.remoteEnded = endStream;
    this.#streams.set(streamId, stream);
    stream.reader = this.#user.request(stream, head);
    if (endStream && !stream.isOver) this.#endOfRequest(stream);
  }

  #endOfRequest(stream: RequestStream): void {
    stream.remoteEnded = true;
    if (stream.contentLength !== undefined && stream.contentLength !== stream.bodyBytes) {
      throw new StreamFault(Code.protocolError, 'the body is not as long as content-length says (RFC 9113 §8.1.1)');
    }
    stream.reader?.end();
  }

  #data(flags: number, streamId: number, payload: Buffer): void {
    const { length } = payload;
    const body = readData(flags, payload);
    this.#receiveWindow -= length;
    if (this.#receiveWindow < 0) throw new ConnectionFault(Code.flowControlError, 'more DATA than the connection has a window for (RFC 9113 §6.9)');
    if (this.#receiveWindow < DEFAULT_WINDOW_BYTES - GIVE_BACK_BYTES) {
      this.write(windowUpdateFrame(0, DEFAULT_WINDOW_BYTES - this.#receiveWindow));
      this.#receiveWindow = DEFAULT_WINDOW_BYTES;
    }
    const stream = this.#streams.get(streamId);
    const isLast = (flags & Flag.endStream) !== 0;
    if (stream === undefined) {
      this.#notIdle(streamId, 'DATA');
      if (this.#stopped.excuses(streamId, isLast)) return this.#calm.spend(FRAME_COST);
      throw new StreamFault(Code.streamClosed, 'DATA on a closed stream (RFC 9113 §5.1)');
    }
    if (stream.remoteEnded) throw new StreamFault(Code.streamClosed, 'DATA after END_STREAM (RFC 9113 §5.1)');
    stream.receiveWindow -= length;
    if (stream.receiveWindow < 0) throw new StreamFault(Code.flowControlError, 'more DATA than the stream has a window for (RFC 9113 §6.9)');
    if (!isLast && stream.receiveWindow < DEFAULT_WINDOW_BYTES - GIVE_BACK_BYTES) {
      this.write(windowUpdateFrame(streamId, DEFAULT_WINDOW_BYTES - stream.receiveWindow));
      stream.receiveWindow = DEFAULT_WINDOW_BYTES;
    }
    stream.bodyBytes += body.length;
    if (body.length > 0) stream.reader?.data(body, isLast);
    else if (!isLast) this.#calm.spend(FRAME_COST);
    if (isLast && !stream.isOver) this.#endOfRequest(stream);
  }

  #priority(streamId: number, payload: Buffer): void {
    this.#calm.spend(FRAME_COST);
    checkPriority(streamId, payload);
  }

  #resetByPeer(streamId: number, payload: Buffer): void {
    this.#calm.spend(RESET_COST);
    checkReset(payload);
    this.#notIdle(streamId, 'RST_STREAM');
    this.#stopped.delete(streamId);
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return;
    this.#forget(stream);
    stream.close();
  }

  #settings(flags: number, streamId: number, payload: Buffer): void {
    this.#calm.spend(FRAME_COST + (payload.length >> 6));
    const settings = readSettings(flags, streamId, payload);
    if (settings === undefined) {
      this.#sawAck = true;
      return;
    }
    if (settings.hasSmallTable && !this.#hasResized) this.#hasResized = this.#owesResize = true;
    this.write(SETTINGS_ACK);
    const before = this.#initialWindow;
    this.#initialWindow = settings.initialWindow ?? before;
    this.#moveWindows(this.#initialWindow - before);
  }

  /** Once for a frame, however often it says another size. */
  #moveWindows(change: number): void {
    if (change === 0) return;
    for (const stream of this.#streams.values()) {
      stream.sendWindow += change;
      if (stream.sendWindow > LARGEST_WINDOW_BYTES) throw new ConnectionFault(Code.flowControlError, 'a stream has too large a window (RFC 9113 §6.9.2)');
    }
    if (change > 0) this.#unblock();
  }

  #ping(flags: number, streamId: number, payload: Buffer): void {
    checkPing(streamId, payload);
    this.#calm.spend(FRAME_COST);
    if ((flags & Flag.ack) === 0) this.write(frameOf(FrameType.ping, Flag.ack, 0, payload));
  }

  /** The client opens no more streams; those that are open go on. */
  #goaway(streamId: number, payload: Buffer): void {
    this.#calm.spend(FRAME_COST);
    checkGoaway(streamId, payload);
  }

  #windowUpdate(streamId: number, payload: Buffer): void {
    const increment = readWindowUpdate(payload);
    this.#calm.spend(FRAME_COST);
    if (streamId === 0) {
      if (increment === 0) throw new ConnectionFault(Code.protocolError, 'WINDOW_UPDATE by nothing (RFC 9113 §6.9)');
      this.sendWindow += increment;
      if (this.sendWindow > LARGEST_WINDOW_BYTES) throw new ConnectionFault(Code.flowControlError, 'the connection has too large a window (RFC 9113 §6.9.1)');
      return this.#unblock();
    }
    this.#notIdle(streamId, 'WINDOW_UPDATE');
    if (increment === 0) throw new StreamFault(Code.protocolError, 'WINDOW_UPDATE by nothing (RFC 9113 §6.9)');
    const stream = this.#streams.get(streamId);
    if (stream === undefined) return;
    stream.sendWindow += increment;
    if (stream.sendWindow > LARGEST_WINDOW_BYTES) throw new StreamFault(Code.flowControlError, 'the stream has too large a window (RFC 9113 §6.9.1)');
    this.#blocked.delete(stream);
    stream.pump();
  }

  #notIdle(streamId: number, what: string): void {
    if (streamId === 0 || streamId > this.#lastStream || (streamId & 1) === 0) {
      throw new ConnectionFault(Code.protocolError, `${what} on a stream that was not opened (RFC 9113 §5.1)`);
    }
  }

  #unblock(): void {
    if (this.sendWindow <= 0) return;
    for (const stream of [...this.#blocked]) {
      this.#blocked.delete(stream);
      stream.pump();
      // The others wait on, in the order in which they came.
      if (this.sendWindow <= 0) return;
    }
  }

  #forget(stream: RequestStream): void {
    this.#streams.delete(stream.id);
    this.#blocked.delete(stream);
    stream.finish();
  }

  /** Something was written, or has been taken by the kernel. */
  #flushed(): void {
    if (this.#isOver) return;
    if (this.#outbox.unsent === 0) this.#taken();
    if (!this.#isParsing) this.#account();
  }

  #taken(): void {
    const answered = this.#answered;
    this.#answered = [];
    for (const stream of answered) stream.close();
    if (this.#isWaiting && !this.#isParsing && !this.#isOver && !this.#socket.destroyed) this.#stopWaiting();
  }

  /** Bytes in memory because of this connection. */
  get #kept(): number {
    return this.#rest.cost + this.#blocks.bytes + this.#bodies + this.#queued + this.#outbox.unsent + this.#stopped.cost;
  }

  #giveBack(): void {
    const kept = this.#kept;
    if (kept >= this.#held) return;
    this.#user.hold(kept - this.#held);
    this.#held = kept;
  }

  /** Takes or gives back room, so that it is what this connection keeps in memory now. */
  #account(): void {
    if (this.#isOver) return;
    const kept = this.#kept;
    if (kept === this.#held) return;
    if (!this.#user.hold(kept - this.#held)) {
      return this.#fail(new ConnectionFault(Code.enhanceYourCalm, 'more bytes of unfinished requests and unread answers than one owner may have'));
    }
    this.#held = kept;
  }

  #fail(fault: ConnectionFault): void {
    if (this.#isOver) return;
    this.#user.fault(fault);
    this.#outbox.add(goawayFrame(this.#lastStream, fault.code, fault.message));
    this.#close();
    this.#outbox.flush();
    // What the kernel has not taken by now would be kept for somebody who does not read.
    this.#socket.destroy();
  }

  #close(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const streams = [...this.#streams.values(), ...this.#answered];
    this.#answered = [];
    this.#streams.clear();
    this.#blocked.clear();
    this.#stopped.clear();
    this.#rest.clear();
    // First all of them let go of what they hold, so that no reader that is told can have another one send.
    for (const stream of streams) stream.finish();
    if (this.#held !== 0) this.#user.hold(-this.#held);
    this.#held = 0;
    for (const stream of streams) stream.close();
  }
}
