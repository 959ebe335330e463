import { once } from 'node:events';
import net from 'node:net';

import { HpackDecoder, HUFFMAN_CODE_LENGTHS, STATIC_TABLE } from '../../src/http2/hpack.ts';
import {
  FRAME_HEADER_BYTES, FrameType, Flag, PREFACE, readFrameHeader, writeFrameHeader, type FrameHeader,
} from '../../src/http2/frames.ts';

/** Name and value, one character per octet. */
export type Field = readonly [name: string, value: string];

export interface Frame extends FrameHeader {
  readonly payload: Buffer;
}

const NOTHING = Buffer.alloc(0);

export function frame(type: number, flags: number, streamId: number, payload: Buffer = NOTHING): Buffer {
  const out = Buffer.alloc(FRAME_HEADER_BYTES + payload.length);
  payload.copy(out, writeFrameHeader(out, 0, { length: payload.length, type, flags, streamId }));
  return out;
}

export const CLIENT_SETTINGS: Buffer = frame(FrameType.settings, 0, 0);
export const SETTINGS_ACK: Buffer = frame(FrameType.settings, Flag.ack, 0);

/** The whole frames at the start of `bytes`, and what is left over. */
export function splitFrames(bytes: Buffer): { frames: Frame[]; rest: Buffer } {
  const frames: Frame[] = [];
  let at = 0;
  for (;;) {
    const header = readFrameHeader(bytes, at);
    const start = at + FRAME_HEADER_BYTES;
    if (header === undefined || bytes.length < start + header.length) return { frames, rest: bytes.subarray(at) };
    at = start + header.length;
    frames.push({ ...header, payload: bytes.subarray(start, at) });
  }
}

function huffmanCodes(): { code: number; length: number }[] {
  const codes: { code: number; length: number }[] = [];
  const order = HUFFMAN_CODE_LENGTHS.map((length, symbol) => ({ length, symbol })).sort((a, b) => a.length - b.length || a.symbol - b.symbol);
  let code = 0;
  let previous = 0;
  for (const { length, symbol } of order) {
    code *= 2 ** (length - previous);
    codes[symbol] = { code: code++, length };
    previous = length;
  }
  return codes;
}

const HUFFMAN = huffmanCodes();

/** The Huffman form of `text`, padded with the first bits of EOS (RFC 7541 §5.2). */
export function huffman(text: string): Buffer {
  let bits = '';
  for (const octet of Buffer.from(text, 'latin1')) {
    const { code, length } = HUFFMAN[octet]!;
    bits += code.toString(2).padStart(length, '0');
  }
  bits += '1'.repeat((8 - (bits.length % 8)) % 8);
  return Buffer.from((bits.match(/.{8}/g) ?? []).map((octet) => Number.parseInt(octet, 2)));
}

/** RFC 7541 §5.1; `first` holds the bits before the prefix. */
export function integer(first: number, prefixBits: number, value: number): Buffer {
  const mask = 2 ** prefixBits - 1;
  if (value < mask) return Buffer.from([first | value]);
  const octets = [first | mask];
  let rest = value - mask;
  for (; rest >= 128; rest = Math.floor(rest / 128)) octets.push((rest % 128) | 128);
  return Buffer.from([...octets, rest]);
}

export function string(text: string, compress = false): Buffer {
  const octets = compress ? huffman(text) : Buffer.from(text, 'latin1');
  return Buffer.concat([integer(compress ? 128 : 0, 7, octets.length), octets]);
}

export type Indexing = 'incremental' | 'none' | 'never';

/** How to write one field. */
export interface Spelling {
  /** Write an index alone where one table holds the whole field. */
  readonly whole: boolean;
  /** Write the name as an index where one table holds it. */
  readonly indexedName: boolean;
  readonly indexing: Indexing;
  readonly huffman: boolean;
}

export const PLAIN: Spelling = { whole: false, indexedName: false, indexing: 'none', huffman: false };
const PREFIX: Record<Indexing, readonly [first: number, bits: number]> = { incremental: [0x40, 6], none: [0, 4], never: [0x10, 4] };

/** An HPACK encoder that writes each field as it is told to. */
export class WireEncoder {
  #table: Field[] = [];
  #limit = 4096;

  /** A dynamic table size update (RFC 7541 §6.3). */
  resize(limit: number): Buffer {
    this.#limit = limit;
    this.#evict();
    return integer(0x20, 5, limit);
  }

  block(fields: readonly Field[], spell: (field: Field) => Spelling = () => PLAIN): Buffer {
    return Buffer.concat(fields.map((field) => this.field(field, spell(field))));
  }

  field([name, value]: Field, spelling: Spelling): Buffer {
    const all: Field[] = [...STATIC_TABLE.map((entry): Field => [entry.name, entry.value]), ...this.#table];
    const whole = all.findIndex((entry) => entry[0] === name && entry[1] === value) + 1;
    if (spelling.whole && whole > 0) return integer(0x80, 7, whole);
    const index = spelling.indexedName ? all.findIndex((entry) => entry[0] === name) + 1 : 0;
    const [first, bits] = PREFIX[spelling.indexing];
    if (spelling.indexing === 'incremental') {
      this.#table.unshift([name, value]);
      this.#evict();
    }
    const literalName = index > 0 ? NOTHING : string(name, spelling.huffman);
    return Buffer.concat([integer(first, bits, index), literalName, string(value, spelling.huffman)]);
  }

  #evict(): void {
    const size = (): number => this.#table.reduce((sum, [name, value]) => sum + name.length + value.length + 32, 0);
    while (size() > this.#limit) this.#table.pop();
  }
}

export interface HeadersShape {
  readonly endStream?: boolean;
  /** Bytes of padding; PADDED is set when it is given. */
  readonly padding?: number;
  /** The five bytes of dependency and weight. */
  readonly priority?: Buffer;
  /** Where to cut the block into CONTINUATIONs, in bytes from its start, ascending. */
  readonly cuts?: readonly number[];
}

/** `block` as HEADERS and CONTINUATION frames. */
export function headers(streamId: number, block: Buffer, shape: HeadersShape = {}): Buffer {
  const { endStream = false, padding, priority = NOTHING, cuts = [] } = shape;
  const parts = [0, ...cuts].map((cut, at) => block.subarray(cut, cuts[at]));
  const pad = padding === undefined ? [NOTHING, NOTHING] : [Buffer.from([padding]), Buffer.alloc(padding)];
  return Buffer.concat(parts.map((part, at) => {
    const end = at === parts.length - 1 ? Flag.endHeaders : 0;
    if (at > 0) return frame(FrameType.continuation, end, streamId, part);
    const flags = (endStream ? Flag.endStream : 0) | (padding === undefined ? 0 : Flag.padded) | (priority.length > 0 ? Flag.priority : 0);
    return frame(FrameType.headers, flags | end, streamId, Buffer.concat([pad[0]!, priority, part, pad[1]!]));
  }));
}

export function data(streamId: number, payload: Buffer, endStream = false): Buffer {
  return frame(FrameType.data, endStream ? Flag.endStream : 0, streamId, payload);
}

/** A gRPC message: not compressed, its length, itself. */
export function grpcMessage(payload: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(payload.length, 1);
  return Buffer.concat([head, payload]);
}

/** The fields of a gRPC call; `authority` and `host` are left out where they are undefined. */
export function grpcRequest(path: string, authority?: string, host?: string): Field[] {
  const own: Field[] = authority === undefined ? [] : [[':authority', authority]];
  const last: Field[] = host === undefined ? [] : [['host', host]];
  return [
    [':method', 'POST'], [':scheme', 'http'], [':path', path], ...own, ['te', 'trailers'], ['content-type', 'application/grpc'], ...last,
  ];
}

/** A client that says what it is told to, octet by octet, and keeps what it hears. */
export class WireClient {
  readonly socket: net.Socket;
  readonly frames: Frame[] = [];
  #rest: Buffer = NOTHING;
  #hasEnded = false;
  #changed = Promise.withResolvers<void>();

  private constructor(socket: net.Socket) {
    this.socket = socket;
    // A reset is what many tests provoke; 'close' follows.
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => this.#hear(chunk));
    socket.on('end', () => this.#end());
    socket.on('close', () => this.#end());
  }

  static async connect(path: string): Promise<WireClient> {
    const socket = net.connect(path);
    await once(socket, 'connect');
    return new WireClient(socket);
  }

  send(...parts: Buffer[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  /** The preface and empty SETTINGS, and the ACK once the server's SETTINGS have come. */
  async greet(): Promise<void> {
    this.send(PREFACE, CLIENT_SETTINGS);
    await this.heard((heard) => heard.type === FrameType.settings && (heard.flags & Flag.ack) === 0);
    this.send(SETTINGS_ACK);
  }

  /** The first frame that fits, now or later. Rejects when the connection closes without it. */
  async heard(fits: (heard: Frame) => boolean): Promise<Frame> {
    for (;;) {
      const found = this.frames.find(fits);
      if (found !== undefined) return found;
      if (this.#hasEnded) throw new Error('the connection closed before the frame came');
      await this.#changed.promise;
    }
  }

  /** Resolves when the server says no more, or the connection is closed. */
  async closed(): Promise<void> {
    while (!this.#hasEnded) await this.#changed.promise;
  }

  /** What the server said on `streamId`: each list of fields, in order. */
  fields(streamId: number): Field[][] {
    const decoder = new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize: 1 << 20 });
    const lists = this.frames.filter(({ type }) => type === FrameType.headers).map((each) => ({ each, list: decoder.decode(each.payload) }));
    return lists.filter(({ each }) => each.streamId === streamId).map(({ list }) => list.map(({ name, value }) => [name, value]));
  }

  destroy(): void {
    this.socket.destroy();
  }

  #hear(chunk: Buffer): void {
    const { frames, rest } = splitFrames(Buffer.concat([this.#rest, chunk]));
    this.frames.push(...frames);
    this.#rest = rest;
    this.#change();
  }

  #end(): void {
    this.#hasEnded = true;
    this.#change();
  }

  #change(): void {
    const changed = this.#changed;
    this.#changed = Promise.withResolvers();
    changed.resolve();
  }
}

/** The seed of a randomised test: SIGNET_SEED, or a new one. */
export function testSeed(): number {
  const given = Number(process.env['SIGNET_SEED']);
  return Number.isSafeInteger(given) && given > 0 ? given : 1 + Math.floor(Math.random() * 0x7fffffff);
}

/** Random numbers that a seed repeats (a linear congruential generator; its upper bits). */
export class Dice {
  #state: bigint;

  constructor(seed: number) {
    this.#state = BigInt(seed);
  }

  /** A whole number from 0 to `count` - 1. */
  below(count: number): number {
    this.#state = (this.#state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
    return Number(((this.#state >> 33n) * BigInt(count)) >> 31n);
  }

  chance(oneIn: number): boolean {
    return this.below(oneIn) === 0;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }

  /** `count` ascending numbers from 0 to `end`. */
  cuts(count: number, end: number): number[] {
    return Array.from({ length: count }, () => this.below(end + 1)).sort((a, b) => a - b);
  }
}
