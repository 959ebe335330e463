import { isUtf8 } from 'node:buffer';
import { CallFault, Status } from './status.ts';

/** How a field is written (https://protobuf.dev/programming-guides/encoding/). */
export const Wire = { varint: 0, fixed64: 1, bytes: 2, startGroup: 3, endGroup: 4, fixed32: 5 } as const;

export interface Field {
  readonly number: number;
  readonly wire: number;
  /** The content of a field of bytes; empty for every other. Good as long as the message is. */
  readonly bytes: Buffer;
}

const EMPTY = Buffer.alloc(0);
const LONGEST_VARINT = 10;

/**
 * The fields of a message, in the order in which they stand there.
 *
 * @throws {CallFault} INTERNAL: it is no message, or holds a group, which no message of today has.
 */
export function* readFields(message: Buffer): Generator<Field, void, undefined> {
  const reader = new Reader(message);
  while (!reader.isDone) {
    const tag = reader.varint();
    const [number, wire] = [tag >>> 3, tag & 7];
    if (number === 0) throw undecodable();
    switch (wire) {
      case Wire.varint:
        reader.varint();
        yield { number, wire, bytes: EMPTY };
        break;
      case Wire.fixed64:
        reader.take(8);
        yield { number, wire, bytes: EMPTY };
        break;
      case Wire.bytes:
        yield { number, wire, bytes: reader.take(reader.length()) };
        break;
      case Wire.fixed32:
        reader.take(4);
        yield { number, wire, bytes: EMPTY };
        break;
      default:
        throw undecodable();
    }
  }
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get isDone(): boolean {
    return this.#at === this.#bytes.length;
  }

  /** The lowest 32 bits of a varint. */
  varint(): number {
    let value = 0;
    for (let read = 0; read < LONGEST_VARINT; read++) {
      const octet = this.#bytes[this.#at];
      if (octet === undefined) throw undecodable();
      this.#at += 1;
      if (read < 5) value += (octet & 127) * 2 ** (7 * read);
      if (octet < 128) return value >>> 0;
    }
    throw undecodable();
  }

  /** The length of what follows. Whatever does not fit into 32 bits is longer than any message. */
  length(): number {
    const start = this.#at;
    const length = this.varint();
    const isLonger = this.#at - start > 5 || (this.#at - start === 5 && (this.#bytes[this.#at - 1] ?? 0) > 15);
    if (isLonger) throw undecodable();
    return length;
  }

  take(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw undecodable();
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }
}

/**
 * The text of a string field.
 *
 * @throws {CallFault} INTERNAL: it is not UTF-8, as a string must be.
 */
export function textOf({ wire, bytes }: Field): string {
  if (wire !== Wire.bytes || !isUtf8(bytes)) throw undecodable();
  return bytes.toString('utf8');
}

function undecodable(): CallFault {
  return new CallFault(Status.internal, 'Error deserializing request');
}

/** A field that is bytes, a text or a message: its tag, its length, its content. An empty one is left out, as proto3 has it. */
export function bytesField(number: number, content: Buffer | string): Buffer {
  const bytes = typeof content === 'string' ? Buffer.from(content, 'utf8') : content;
  return bytes.length === 0 ? EMPTY : messageField(number, bytes);
}

/** The same, empty or not: an empty message is one all the same. */
export function messageField(number: number, content: Buffer): Buffer {
  return Buffer.concat([varint(number * 8 + Wire.bytes), varint(content.length), content]);
}

/** A field that is a number of at most 32 bits, or a truth value. */
export function varintField(number: number, value: number): Buffer {
  return Buffer.concat([varint(number * 8 + Wire.varint), varint(value)]);
}

/** A field that is a double. */
export function doubleField(number: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([varint(number * 8 + Wire.fixed64), bytes]);
}

function varint(value: number): Buffer {
  const octets: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) octets.push((rest % 128) | 128);
  return Buffer.from([...octets, rest]);
}
