import { once } from 'node:events';
import net from 'node:net';
import { HpackDecoder } from '../../src/http2/hpack.ts';
import {
  Flag, FRAME_HEADER_BYTES, FrameType, MAX_FRAME_BYTES, PREFACE, readFrameHeader, Setting, settingsFrame, type FrameHeader,
} from '../../src/http2/frames.ts';
import { data, frame, grpcMessage, grpcRequest, headers, SETTINGS_ACK, WireEncoder, type Field } from './http2-wire.ts';

/** What an attacker was told, in numbers. */
export interface Heard {
  /** By grpc-status and grpc-message: `14 too many calls`; by `http <status>` where there is no grpc-status. */
  readonly endings: Record<string, number>;
  /** DATA frames with content. */
  messages: number;
  /** RST_STREAM and GOAWAY, by error code. */
  readonly resets: Record<string, number>;
  readonly goaways: Record<string, number>;
  bytes: number;
}

export interface OpenOptions {
  /** True: SETTINGS_INITIAL_WINDOW_SIZE is 0, so that whatever is answered stays with the server. Default: windows as wide as can be. */
  readonly zeroWindow?: boolean;
  /** False: nothing is ever read from the socket. Default true. */
  readonly reads?: boolean;
}

export const FETCH_JWT = '/SpiffeWorkloadAPI/FetchJWTSVID';
export const VALIDATE_JWT = '/SpiffeWorkloadAPI/ValidateJWTSVID';
export const FETCH_X509 = '/SpiffeWorkloadAPI/FetchX509SVID';
export const HEALTH_CHECK = '/grpc.health.v1.Health/Check';
export const HEALTH_WATCH = '/grpc.health.v1.Health/Watch';
export const REFLECT = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';

/** The largest flow-control window (RFC 9113 §6.9.1), and by how much a connection's can be widened to it. */
const WIDEST = 0x7fff_ffff;
const WIDENING = WIDEST - 65_535;

const CONNECT_TRIES = 1_000;

export function newHeard(): Heard {
  return { endings: {}, messages: 0, resets: {}, goaways: {}, bytes: 0 };
}

/** An HTTP/2 client without manners: it sends what it is told to, whatever the server says, and counts what it hears. */
export class HostileConnection {
  readonly socket: net.Socket;
  readonly heard: Heard;
  readonly #decoder = new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize: 1 << 20 });
  #rest: Buffer = Buffer.alloc(0);
  #nextStream = 1;
  #sawSettings = false;
  #changed = Promise.withResolvers<void>();

  private constructor(socket: net.Socket, heard: Heard) {
    this.socket = socket;
    this.heard = heard;
    // The agent closes whom it has had enough of.
    socket.on('error', () => undefined);
    socket.on('close', () => this.#change());
  }

  /** A connected socket that has said nothing. */
  static async connect(path: string, heard: Heard = newHeard()): Promise<HostileConnection> {
    return new HostileConnection(await connectTo(path), heard);
  }

  /** A connection that has begun HTTP/2. */
  static async open(path: string, options: OpenOptions = {}, heard: Heard = newHeard()): Promise<HostileConnection> {
    const connection = await HostileConnection.connect(path, heard);
    if (options.reads !== false) connection.socket.on('data', (chunk: Buffer) => connection.#hear(chunk));
    const widening = Buffer.alloc(4);
    widening.writeUInt32BE(WIDENING);
    const window = options.zeroWindow === true ? 0 : WIDEST;
    await connection.send(PREFACE, settingsFrame([[Setting.initialWindowSize, window]]), SETTINGS_ACK, frame(FrameType.windowUpdate, 0, 0, widening));
    return connection;
  }

  get isOpen(): boolean {
    return !this.socket.destroyed && this.socket.writable;
  }

  /** The next stream's number. */
  stream(): number {
    this.#nextStream += 2;
    return this.#nextStream - 2;
  }

  /** Resolves once the kernel has taken it, or the connection is gone. */
  async send(...parts: readonly Buffer[]): Promise<void> {
    if (!this.isOpen) return;
    const written = Promise.withResolvers<void>();
    this.socket.write(Buffer.concat(parts), () => written.resolve());
    await Promise.race([written.promise, this.closed()]);
  }

  async closed(): Promise<void> {
    while (!this.socket.destroyed) await this.#changed.promise;
  }

  /** Resolves when `holds`, or when the connection is closed; false when neither came within `ms`. */
  async until(holds: () => boolean, ms = 10_000): Promise<boolean> {
    const deadline = performance.now() + ms;
    // What is heard may be shared with other connections.
    while (!holds() && !this.socket.destroyed && performance.now() < deadline) {
      await Promise.race([this.#changed.promise, new Promise((resolve) => setTimeout(resolve, 20))]);
    }
    return holds();
  }

  destroy(): void {
    this.socket.destroy();
  }

  #hear(chunk: Buffer): void {
    this.heard.bytes += chunk.length;
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    for (let header = readFrameHeader(bytes, at); header !== undefined; header = readFrameHeader(bytes, at)) {
      const end = at + FRAME_HEADER_BYTES + header.length;
      if (end > bytes.length) break;
      this.#take(header, bytes.subarray(at + FRAME_HEADER_BYTES, end));
      at = end;
    }
    this.#rest = Buffer.from(bytes.subarray(at));
    this.#change();
  }

  #take(header: FrameHeader, payload: Buffer): void {
    const { heard } = this;
    if (header.type === FrameType.headers) {
      const fields = new Map(this.#decoder.decode(payload).map(({ name, value }) => [name, value]));
      const status = fields.get('grpc-status');
      if (status !== undefined) tally(heard.endings, `${status} ${fields.get('grpc-message') ?? (status === '0' ? 'OK' : '')}`);
      else if ((header.flags & Flag.endStream) !== 0) tally(heard.endings, `http ${fields.get(':status')}`);
    } else if (header.type === FrameType.data && header.length > 0) heard.messages += 1;
    else if (header.type === FrameType.rstStream) tally(heard.resets, String(payload.readUInt32BE(0)));
    else if (header.type === FrameType.goaway) tally(heard.goaways, String(payload.readUInt32BE(4)));
    else if (header.type === FrameType.settings && (header.flags & Flag.ack) === 0) this.#acknowledge();
  }

  /** The first SETTINGS were acknowledged before they came. */
  #acknowledge(): void {
    if (this.#sawSettings) this.socket.write(SETTINGS_ACK);
    this.#sawSettings = true;
  }

  #change(): void {
    const changed = this.#changed;
    this.#changed = Promise.withResolvers();
    changed.resolve();
  }
}

/** The backlog may be full while the agent is busy: a Unix socket says so (EAGAIN), and a stubborn caller comes again. */
async function connectTo(path: string): Promise<net.Socket> {
  for (let tries = 1; ; tries += 1) {
    const socket = net.connect({ path });
    try {
      await once(socket, 'connect');
      return socket;
    } catch (error) {
      if (tries === CONNECT_TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

export function tally(counts: Record<string, number>, key: string, by = 1): void {
  counts[key] = (counts[key] ?? 0) + by;
}

const blocks = new Map<string, Buffer>();

/** The header block of a call with the security header, and `more`. */
export function callBlock(path: string, more: readonly Field[] = [['workload.spiffe.io', 'true']]): Buffer {
  const key = JSON.stringify([path, more]);
  const block = blocks.get(key) ?? new WireEncoder().block([...grpcRequest(path, 'localhost'), ...more]);
  blocks.set(key, block);
  return block;
}

/** A whole call: HEADERS and one message, with END_STREAM unless `halfOpen`. */
export function call(stream: number, path: string, message: Buffer = Buffer.alloc(0), halfOpen = false): Buffer {
  return Buffer.concat([headers(stream, callBlock(path)), body(stream, grpcMessage(message), !halfOpen)]);
}

/** DATA frames, none longer than allowed. */
export function body(stream: number, bytes: Buffer, endStream = true): Buffer {
  const frames: Buffer[] = [];
  for (let at = 0; at === 0 || at < bytes.length; at += MAX_FRAME_BYTES) {
    frames.push(data(stream, bytes.subarray(at, at + MAX_FRAME_BYTES), endStream && at + MAX_FRAME_BYTES >= bytes.length));
  }
  return Buffer.concat(frames);
}

export function reset(stream: number, code = 8): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeUInt32BE(code);
  return frame(FrameType.rstStream, 0, stream, payload);
}

/** A protobuf field of wire type 2. */
export function protoField(number: number, value: Buffer | string): Buffer {
  const bytes = Buffer.from(value);
  const length: number[] = [];
  let rest = bytes.length;
  for (; rest >= 128; rest = Math.floor(rest / 128)) length.push((rest % 128) | 128);
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...length, rest]), bytes]);
}

/** `FetchJWTSVID` for these audiences. */
export function jwtRequest(...audiences: readonly string[]): Buffer {
  return Buffer.concat(audiences.map((audience) => protoField(1, audience)));
}

/** Resolves when `holds`, or after `ms`. */
export async function waitUntil(holds: () => boolean, ms: number): Promise<void> {
  const deadline = performance.now() + ms;
  while (!holds() && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** Resolves when `value` has not changed for half a second, or after ten. */
export async function untilQuiet(value: () => number): Promise<void> {
  const deadline = performance.now() + 10_000;
  for (let before = Number.NaN; before !== value() && performance.now() < deadline; ) {
    before = value();
    await waitUntil(() => value() !== before, 500);
  }
}

/** What an attack is told. */
export interface Target {
  readonly socketPath: string;
  /** How often; each attack has a default. */
  readonly count?: number;
}

/** Calls `work` `count` times, `width` at once. */
export async function inParallel<T>(count: number, width: number, work: (index: number) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let index = next++; index < count; index = next++) results[index] = await work(index);
  };
  await Promise.all(Array.from({ length: Math.min(width, count) }, worker));
  return results;
}
