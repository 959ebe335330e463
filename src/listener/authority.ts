import type net from 'node:net';
import { Duplex } from 'node:stream';

import { encodeLiterals, HpackDecoder, type HeaderField } from './hpack.ts';
import {
  DEFAULT_HEADER_TABLE_BYTES, FRAME_HEADER_BYTES, HeaderBlockAssembler, isHeaderFrame, PREFACE, readFrameHeader, writeHeaderBlock,
  type HeaderBlock,
} from './http2-frames.ts';

const LOCAL_AUTHORITY = 'localhost';

const REG_NAME = /^(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+(?::[0-9]{1,5})?$/;
const IP_LITERAL = /^\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?$/;

/** Longer than a percent-encoded Unix socket path (108 bytes) can be. */
const MAX_AUTHORITY_LENGTH = 512;

/**
 * True for the part of RFC 3986 §3.2 that Node's HTTP/2 server (nghttp2) takes for certain: a name or an IP literal, with or
 * without a port. A path, a URI with a scheme, user information and the empty string are not.
 */
export function isPlainAuthority(value: string): boolean {
  return value.length <= MAX_AUTHORITY_LENGTH && (REG_NAME.test(value) || IP_LITERAL.test(value));
}

function valuesOf(fields: readonly HeaderField[], name: string): string[] {
  return fields.filter((field) => field.name === name).map((field) => field.value);
}

/** True when Node's HTTP/2 server accepts this request's `:authority` and `host`, so that nothing need be rewritten. */
export function hasPlainAuthority(fields: readonly HeaderField[]): boolean {
  const [authority, ...others] = valuesOf(fields, ':authority');
  if (authority === undefined || others.length > 0 || !isPlainAuthority(authority)) return false;
  const hosts = valuesOf(fields, 'host');
  return hosts.length === 0 || (hosts.length === 1 && hosts[0] !== '');
}

/** `host` may go only where its going hides no mistake: once, and after the last pseudo-header (RFC 9113 §8.3). */
function mayDropHost(fields: readonly HeaderField[]): boolean {
  const first = fields.findIndex((field) => field.name === 'host');
  const last = fields.findLastIndex((field) => field.name === 'host');
  return first === last && first > fields.findLastIndex((field) => field.name.startsWith(':'));
}

/**
 * The same request with `:authority: localhost` and without `host`. Whatever else is wrong stays wrong, for the HTTP/2 server to
 * judge: order, duplicates and names are kept. Trailers, which have no `:method`, get no `:authority`.
 */
export function withLocalAuthority(fields: readonly HeaderField[]): HeaderField[] {
  const own = { name: ':authority', value: LOCAL_AUTHORITY, sensitive: false };
  const out = fields.map((field) => (field.name === ':authority' ? own : field));
  if (!fields.some((field) => field.name === ':method')) return out;
  if (!out.includes(own)) out.unshift(own);
  return mayDropHost(out) ? out.filter((field) => field.name !== 'host') : out;
}

/** Rewrites `:authority` in the bytes that a client sends, its preface included. For one connection. */
export class AuthorityRewriter {
  readonly #blocks: HeaderBlockAssembler;
  readonly #decoder: HpackDecoder;
  /** Bytes that pass as they are before the next frame header. */
  #passing = PREFACE.length;
  #rest: Buffer = Buffer.alloc(0);

  /** `maxHeaderBytes`: of one header list, and of one header block on the wire. At most 131,072: nghttp2 takes no more frames. */
  constructor(maxHeaderBytes: number) {
    this.#blocks = new HeaderBlockAssembler(maxHeaderBytes);
    this.#decoder = new HpackDecoder({ maxTableSize: DEFAULT_HEADER_TABLE_BYTES, maxHeaderListSize: maxHeaderBytes });
  }

  /**
   * What `chunk` becomes, piece by piece, so that the reader decides how much is in memory: a few bytes may stand for a large
   * header list. Must be drained before the next call. Only header blocks wait until they are whole; all else passes as it comes.
   * @throws {SignetError} `malformed_http2`, `limit_exceeded`: the connection cannot go on.
   */
  *rewrite(chunk: Buffer): Generator<Buffer, void, undefined> {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let from = 0;
    let at = 0;
    while (at < bytes.length) {
      if (this.#passing > 0) {
        const count = Math.min(this.#passing, bytes.length - at);
        this.#passing -= count;
        at += count;
        continue;
      }
      const header = readFrameHeader(bytes, at);
      if (header === undefined) break;
      this.#blocks.check(header);
      const end = at + FRAME_HEADER_BYTES + header.length;
      if (!isHeaderFrame(header)) {
        this.#passing = end - at;
        continue;
      }
      if (end > bytes.length) break;
      if (at > from) yield bytes.subarray(from, at);
      const block = this.#blocks.take(header, bytes.subarray(at + FRAME_HEADER_BYTES, end));
      at = from = end;
      if (block !== undefined) yield this.#rewriteBlock(block);
    }
    if (at > from) yield bytes.subarray(from, at);
    // A copy, because a slice would keep the whole chunk alive.
    this.#rest = Buffer.from(bytes.subarray(at));
  }

  #rewriteBlock(block: HeaderBlock): Buffer {
    const fields = withLocalAuthority(this.#decoder.decode(block.fragment));
    return writeHeaderBlock({ ...block, fragment: encodeLiterals(fields) });
  }
}

/** A client's connection as the HTTP/2 server shall see it: what the client sends is rewritten, what it gets passes untouched. */
export class AuthorityRewritingStream extends Duplex {
  readonly #socket: net.Socket;
  readonly #rewriter: AuthorityRewriter;
  #pieces: Iterator<Buffer, void, undefined>;
  #wanted = false;
  #pumping = false;
  #ended = false;

  /** `head`: what has been read from `socket` already, from the preface on. `socket` belongs to this stream from now on. */
  constructor(socket: net.Socket, head: Buffer, maxHeaderBytes: number) {
    super({ allowHalfOpen: true });
    this.#socket = socket;
    this.#rewriter = new AuthorityRewriter(maxHeaderBytes);
    this.#pieces = this.#rewriter.rewrite(head);
    socket.on('readable', () => this.#pump());
    socket.on('end', () => this.#end());
    socket.on('error', (error) => this.destroy(error));
    socket.on('close', () => this.#closed());
  }

  override _read(): void {
    this.#wanted = true;
    this.#pump();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#socket.write(chunk, done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    this.#socket.cork();
    chunks.forEach(({ chunk }, at) => this.#socket.write(chunk, at === chunks.length - 1 ? done : undefined));
    this.#socket.uncork();
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }

  /** Hands on pieces for as long as they are wanted. Reads from the socket only when the last chunk is used up. */
  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      while (this.#wanted && this.#handOn());
    } catch (error) {
      this.destroy(error instanceof Error ? error : new Error(String(error)));
    } finally {
      this.#pumping = false;
    }
  }

  /** One piece, or one chunk read; false when there is neither. */
  #handOn(): boolean {
    const next = this.#pieces.next();
    if (next.done !== true) {
      this.#wanted = false;
      if (this.push(next.value)) this.#wanted = true;
      return true;
    }
    const chunk: Buffer | null = this.#socket.read();
    if (chunk !== null) this.#pieces = this.#rewriter.rewrite(chunk);
    else if (this.#ended) this.#wanted = this.push(null);
    return chunk !== null;
  }

  #end(): void {
    this.#ended = true;
    this.#pump();
  }

  #closed(): void {
    // After an orderly end there may still be something to read.
    if (this.#ended && !this.readableEnded) this.once('end', () => this.destroy());
    else this.destroy();
  }
}
