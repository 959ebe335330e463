import type net from 'node:net';
import type { Duplex } from 'node:stream';

import type { Alarm, Clock } from '../clock.ts';
import { SignetError } from '../errors.ts';
import { AuthorityRewritingStream, hasPlainAuthority } from './authority.ts';
import { HpackDecoder, type HeaderField } from './hpack.ts';
import {
  DEFAULT_HEADER_TABLE_BYTES, Flag, FRAME_HEADER_BYTES, FrameType, HeaderBlockAssembler, isHeaderFrame, malformed, PREFACE,
  readFrameHeader, Setting, settingsFrame, type FrameHeader,
} from './http2-frames.ts';

export interface PreludeOptions {
  readonly clock: Clock;
  /** From the call until the first request's header block is complete. */
  readonly timeoutMs: number;
  /** How much may be read before that. 131,072 is above anything that a client has a reason to send. */
  readonly maxBytes: number;
  /** Announced as SETTINGS_MAX_CONCURRENT_STREAMS. */
  readonly maxConcurrentStreams: number;
  /** Announced as SETTINGS_MAX_HEADER_LIST_SIZE, and the bound of each header block that is rewritten. At most 131,072. */
  readonly maxHeaderBytes: number;
}

export interface OpenedConnection {
  /**
   * For `http2Server.emit('connection', stream)` or grpc-js's `injectConnection(stream)`. The session must not be destroyed in
   * the 'session' event itself: Node then reads what was put back into the socket for a session that is no more, and throws.
   */
  readonly stream: net.Socket | Duplex;
  readonly rewritten: boolean;
}

export type PreludeLimits = Pick<PreludeOptions, 'maxBytes' | 'maxHeaderBytes'>;

const TLS_HANDSHAKE = 0x16;

function describe(bytes: Buffer): string {
  if (bytes[0] === TLS_HANDSHAKE) return 'a TLS handshake';
  return /^[A-Z]{2,20} /.test(bytes.toString('latin1', 0, 32)) ? 'an HTTP/1.1 request' : 'other bytes';
}

/** Reads what a client says first, up to its ACK of the server's SETTINGS and its first header block. Knows no socket. */
export class PreludeReader {
  readonly #limits: PreludeLimits;
  readonly #blocks: HeaderBlockAssembler;
  #buffer: Buffer = Buffer.alloc(0);
  #length = 0;
  #at = 0;
  #sawSettings = false;
  #ackAt: number | undefined;
  #request: HeaderField[] | undefined;

  constructor(limits: PreludeLimits) {
    this.#limits = limits;
    this.#blocks = new HeaderBlockAssembler(limits.maxHeaderBytes);
  }

  /** The fields of the first header block, once it has come. */
  get request(): readonly HeaderField[] | undefined {
    return this.#request;
  }

  /** The client has opened HTTP/2 as it should, and has not begun a request. */
  get isIdle(): boolean {
    return this.#ackAt !== undefined && this.#request === undefined && this.#at === this.#length;
  }

  /**
   * Takes what has come; true when that was enough.
   * @throws {SignetError} `malformed_http2` or `limit_exceeded`.
   */
  feed(chunk: Buffer): boolean {
    this.#append(chunk);
    this.#scan();
    if (this.#ackAt !== undefined && this.#request !== undefined) return true;
    if (this.#length > this.#limits.maxBytes) {
      throw new SignetError('limit_exceeded', `more than ${this.#limits.maxBytes} bytes before the first request was complete`);
    }
    return false;
  }

  /** All that came, in order, but for the one ACK, which the HTTP/2 server would not expect. */
  take(): Buffer {
    const ackAt = this.#ackAt ?? this.#length;
    return Buffer.concat([this.#buffer.subarray(0, ackAt), this.#buffer.subarray(ackAt + FRAME_HEADER_BYTES, this.#length)]);
  }

  #append(chunk: Buffer): void {
    const length = this.#length + chunk.length;
    if (length > this.#buffer.length) {
      // Doubled, so that a client that sends single bytes costs no more than one that does not.
      const larger = Buffer.allocUnsafeSlow(Math.max(length, this.#buffer.length * 2));
      this.#buffer.copy(larger, 0, 0, this.#length);
      this.#buffer = larger;
    }
    chunk.copy(this.#buffer, this.#length);
    this.#length = length;
  }

  #scan(): void {
    const bytes = this.#buffer.subarray(0, this.#length);
    if (this.#at === 0 && !this.#readPreface(bytes)) return;
    for (let header = readFrameHeader(bytes, this.#at); header !== undefined; header = readFrameHeader(bytes, this.#at)) {
      this.#blocks.check(header);
      const start = this.#at + FRAME_HEADER_BYTES;
      const end = start + header.length;
      if (!this.#sawSettings) this.#expectSettings(header);
      if (end > bytes.length) return;
      this.#readFrame(header, bytes.subarray(start, end));
      this.#at = end;
    }
  }

  #readPreface(bytes: Buffer): boolean {
    const length = Math.min(bytes.length, PREFACE.length);
    if (PREFACE.compare(bytes, 0, length, 0, length) !== 0) {
      throw malformed(`begins with ${describe(bytes)}, expected the HTTP/2 connection preface (RFC 9113 §3.4)`);
    }
    if (length < PREFACE.length) return false;
    this.#at = PREFACE.length;
    return true;
  }

  #expectSettings(header: FrameHeader): void {
    if (header.type !== FrameType.settings || (header.flags & Flag.ack) !== 0 || header.streamId !== 0) {
      throw malformed('the first frame is not SETTINGS (RFC 9113 §3.4)');
    }
    this.#sawSettings = true;
  }

  #readFrame(header: FrameHeader, payload: Buffer): void {
    if (isHeaderFrame(header)) {
      const block = this.#blocks.take(header, payload);
      if (block !== undefined) this.#request ??= this.#decode(block.fragment);
    } else if (header.type === FrameType.settings && (header.flags & Flag.ack) !== 0) {
      if (header.length > 0 || header.streamId !== 0) {
        throw malformed('SETTINGS with ACK and a payload or a stream (RFC 9113 §6.5)');
      }
      this.#ackAt ??= this.#at;
    }
  }

  #decode(fragment: Buffer): HeaderField[] {
    const limits = { maxTableSize: DEFAULT_HEADER_TABLE_BYTES, maxHeaderListSize: this.#limits.maxHeaderBytes };
    return new HpackDecoder(limits).decode(fragment);
  }
}

/** An 'error' that nobody listens for would end the process; 'close' follows it and says enough. */
function ignore(): void {}

/** One connection on its way to the HTTP/2 server. */
class Opening {
  readonly #socket: net.Socket;
  readonly #options: PreludeOptions;
  readonly #reader: PreludeReader;
  readonly #outcome = Promise.withResolvers<OpenedConnection>();
  readonly #alarm: Alarm;

  constructor(socket: net.Socket, options: PreludeOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#reader = new PreludeReader(options);
    this.#alarm = options.clock.after(options.timeoutMs, this.#late);
  }

  start(): Promise<OpenedConnection> {
    const socket = this.#socket;
    socket.on('error', ignore);
    if (socket.destroyed || socket.readableEnded) {
      this.#gone();
    } else {
      socket.on('readable', this.#read).on('end', this.#gone).on('close', this.#gone);
      const { maxConcurrentStreams, maxHeaderBytes } = this.#options;
      socket.write(settingsFrame([
        [Setting.maxConcurrentStreams, maxConcurrentStreams],
        [Setting.maxHeaderListSize, maxHeaderBytes],
      ]));
    }
    return this.#outcome.promise;
  }

  readonly #read = (): void => {
    try {
      if (!this.#readEnough()) return;
    } catch (error) {
      return this.#fail(error);
    }
    this.#stop();
    this.#outcome.resolve(this.#handOver());
  };

  #readEnough(): boolean {
    for (;;) {
      const chunk: Buffer | null = this.#socket.read();
      if (chunk === null) return false;
      if (this.#reader.feed(chunk)) return true;
    }
  }

  #handOver(): OpenedConnection {
    const head = this.#reader.take();
    const rewritten = !hasPlainAuthority(this.#reader.request ?? []);
    if (!rewritten) {
      this.#socket.unshift(head);
      return { stream: this.#socket, rewritten };
    }
    const stream = new AuthorityRewritingStream(this.#socket, head, this.#options.maxHeaderBytes);
    stream.on('error', ignore);
    return { stream, rewritten };
  }

  readonly #gone = (): void => {
    this.#fail(new SignetError('caller_gone', 'the client closed the connection before its first request'));
  };

  readonly #late = (): void => {
    // Some clients connect at once and make their call after a back-off: they come again, and nothing is wrong with them.
    if (this.#reader.isIdle) return this.#fail(new SignetError('caller_gone', 'the client has opened HTTP/2 and made no call in time'));
    this.#fail(new SignetError('timed_out', `no complete HTTP/2 request within ${this.#options.timeoutMs} ms`));
  };

  #fail(error: unknown): void {
    this.#stop();
    this.#socket.destroy();
    this.#outcome.reject(error);
  }

  #stop(): void {
    this.#alarm.cancel();
    this.#socket.off('readable', this.#read).off('end', this.#gone).off('close', this.#gone);
  }
}

/**
 * Makes a client's connection acceptable to Node's HTTP/2 server, which resets, before any JavaScript runs, a request whose
 * `:authority` is a path or is missing, as some gRPC clients send on a Unix socket.
 *
 * Sends the server's SETTINGS, because clients wait for them (RFC 9113 §3.4), and reads until the client's preface, SETTINGS,
 * ACK and first header block have come. When that request's authority is good the socket itself is handed over, untouched for
 * the rest of its life; else a stream around it that rewrites every header block.
 *
 * The HTTP/2 server behind it must leave SETTINGS_HEADER_TABLE_SIZE and SETTINGS_MAX_FRAME_SIZE at their defaults and must be
 * given the same `maxConcurrentStreams` and `maxHeaderListSize`: here they are only announced.
 *
 * Rejects, with the socket destroyed, with a SignetError: `timed_out` (the deadline, for whoever has begun something), `limit_exceeded` (bytes before the first
 * request, or its header block), `malformed_http2` (what), `caller_gone` (the client closed).
 */
export function openHttp2(socket: net.Socket, options: PreludeOptions): Promise<OpenedConnection> {
  return new Opening(socket, options).start();
}
