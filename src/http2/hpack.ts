import { SignetError } from '../errors.ts';

/** One header field. Octets are kept as latin1 characters, one each, so that nothing is altered on the way through. */
export interface HeaderField {
  readonly name: string;
  readonly value: string;
  /** True when the sender forbade compression (`never indexed`, RFC 7541 §6.2.3). */
  readonly sensitive: boolean;
}

export interface HpackLimits {
  /** What the own SETTINGS_HEADER_TABLE_SIZE says, in bytes. 4096 is the protocol's default. */
  readonly maxTableSize: number;
  /** The largest header list, in bytes as RFC 9113 §6.5.2 counts them: name, value and 32 for each field. */
  readonly maxHeaderListSize: number;
}

const FIELD_OVERHEAD = 32;

/** RFC 7541 Appendix A; index 1 is the first. */
export const STATIC_TABLE: readonly HeaderField[] = [
  ':authority', ':method=GET', ':method=POST', ':path=/', ':path=/index.html', ':scheme=http', ':scheme=https',
  ':status=200', ':status=204', ':status=206', ':status=304', ':status=400', ':status=404', ':status=500',
  'accept-charset', 'accept-encoding=gzip, deflate', 'accept-language', 'accept-ranges', 'accept',
  'access-control-allow-origin', 'age', 'allow', 'authorization', 'cache-control', 'content-disposition',
  'content-encoding', 'content-language', 'content-length', 'content-location', 'content-range', 'content-type', 'cookie',
  'date', 'etag', 'expect', 'expires', 'from', 'host', 'if-match', 'if-modified-since', 'if-none-match', 'if-range',
  'if-unmodified-since', 'last-modified', 'link', 'location', 'max-forwards', 'proxy-authenticate', 'proxy-authorization',
  'range', 'referer', 'refresh', 'retry-after', 'server', 'set-cookie', 'strict-transport-security', 'transfer-encoding',
  'user-agent', 'vary', 'via', 'www-authenticate',
].map((entry) => {
  const [name = '', value = ''] = entry.split('=');
  return { name, value, sensitive: false };
});

/** RFC 7541 Appendix B: the bits in each octet's code, and at 256 in that of EOS. The code is canonical: the rest follows. */
export const HUFFMAN_CODE_LENGTHS: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
  6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
  13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
  15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
  20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
  22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
  26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
  20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
  30,
];

const EOS = 256;
const EMITS = 1 << 16;
const FAILS = 1 << 17;

interface HuffmanMachine {
  /** At `state << 4 | nibble`: the next state, `symbol << 8` with EMITS when a symbol ends in this nibble, FAILS for EOS. */
  readonly steps: Int32Array;
  /** At a state: 1 when the bits since the last symbol are at most seven ones, which is what padding must be (RFC 7541 §5.2). */
  readonly accepts: Uint8Array;
}

/** The inner nodes of the code tree, each with its two children: an inner node's number, or `~symbol`. */
function huffmanTree(): number[][] {
  const tree: number[][] = [[]];
  const symbols = HUFFMAN_CODE_LENGTHS.map((length, symbol) => ({ length, symbol }));
  symbols.sort((a, b) => a.length - b.length || a.symbol - b.symbol);
  let code = 0;
  let previous = 0;
  for (const { length, symbol } of symbols) {
    code *= 2 ** (length - previous);
    previous = length;
    let node = 0;
    for (let bit = length - 1; bit > 0; bit--) {
      const side = (code >>> bit) & 1;
      const children = tree[node]!;
      node = children[side] ??= tree.push([]) - 1;
    }
    tree[node]![code & 1] = ~symbol;
    code++;
  }
  return tree;
}

function walkNibble(tree: number[][], state: number, nibble: number): number {
  let node = state;
  let emitted = 0;
  for (let bit = 3; bit >= 0; bit--) {
    node = tree[node]![(nibble >>> bit) & 1]!;
    if (node >= 0) continue;
    if (~node === EOS) return FAILS;
    emitted = EMITS | (~node << 8);
    node = 0;
  }
  return emitted | node;
}

function huffmanMachine(): HuffmanMachine {
  const tree = huffmanTree();
  const steps = new Int32Array(tree.length * 16);
  for (let at = 0; at < steps.length; at++) steps[at] = walkNibble(tree, at >>> 4, at & 15);
  const accepts = new Uint8Array(tree.length);
  for (let ones = 0, node = 0; ones < 8; ones++, node = tree[node]![1]!) accepts[node] = 1;
  return { steps, accepts };
}

const HUFFMAN = huffmanMachine();
const SHORTEST_CODE_BITS = 5;

function malformed(what: string): SignetError {
  return new SignetError('malformed_http2', `header block: ${what}`);
}

function decodeHuffman(block: Buffer, start: number, end: number): string {
  const { steps, accepts } = HUFFMAN;
  const out = Buffer.allocUnsafe(Math.floor(((end - start) * 8) / SHORTEST_CODE_BITS) + 1);
  let length = 0;
  let state = 0;
  for (let at = start; at < end; at++) {
    const octet = block[at]!;
    const high = steps[(state << 4) | (octet >>> 4)]!;
    if (high & EMITS) out[length++] = (high >>> 8) & 255;
    const low = steps[((high & 255) << 4) | (octet & 15)]!;
    if (low & EMITS) out[length++] = (low >>> 8) & 255;
    if ((high | low) & FAILS) throw malformed('EOS inside a Huffman string (RFC 7541 §5.2)');
    state = low & 255;
  }
  if (accepts[state] !== 1) throw malformed('Huffman padding is not the most significant bits of EOS (RFC 7541 §5.2)');
  return out.toString('latin1', 0, length);
}

/** More continuation octets than these would leave 28 bits, far above any length or index that a block can hold. */
const MAX_INTEGER_SHIFT = 21;

class BlockReader {
  readonly #block: Buffer;
  #at = 0;

  constructor(block: Buffer) {
    this.#block = block;
  }

  get done(): boolean {
    return this.#at === this.#block.length;
  }

  peek(): number {
    const octet = this.#block[this.#at];
    if (octet === undefined) throw malformed('ends inside a field');
    return octet;
  }

  /** An integer with a prefix of `bits` bits (RFC 7541 §5.1). */
  integer(bits: number): number {
    const mask = (1 << bits) - 1;
    let value = this.peek() & mask;
    this.#at++;
    if (value < mask) return value;
    for (let shift = 0; shift <= MAX_INTEGER_SHIFT; shift += 7) {
      const octet = this.peek();
      this.#at++;
      value += (octet & 127) << shift;
      if (octet < 128) return value;
    }
    throw malformed('an integer overflows (RFC 7541 §5.1)');
  }

  /** A string literal (RFC 7541 §5.2). */
  string(): string {
    const huffman = this.peek() >= 128;
    const length = this.integer(7);
    const start = this.#at;
    const end = start + length;
    if (end > this.#block.length) throw malformed('a string runs past the end of the block (RFC 7541 §5.2)');
    this.#at = end;
    return huffman ? decodeHuffman(this.#block, start, end) : this.#block.toString('latin1', start, end);
  }
}

function sizeOf(field: HeaderField): number {
  return field.name.length + field.value.length + FIELD_OVERHEAD;
}

/** Decodes the header blocks of one direction of one connection, in their order (RFC 7541). Not to be used after `malformed_http2`. */
export class HpackDecoder {
  readonly #limits: HpackLimits;
  /** The newest first. */
  readonly #table: HeaderField[] = [];
  #tableSize = 0;
  #tableLimit: number;

  constructor(limits: HpackLimits) {
    this.#limits = limits;
    this.#tableLimit = limits.maxTableSize;
  }

  /**
   * @throws {SignetError} `malformed_http2`: not a header block, to be answered with COMPRESSION_ERROR (RFC 9113 §4.3).
   * @throws {SignetError} `limit_exceeded`: the list is larger than `maxHeaderListSize`. It was read to its end all the same, so that
   * the next block can be decoded.
   */
  decode(block: Buffer): HeaderField[] {
    const reader = new BlockReader(block);
    const fields: HeaderField[] = [];
    let size = 0;
    while (!reader.done) {
      if ((reader.peek() & 0xe0) === 0x20) {
        this.#resize(reader, size);
        continue;
      }
      const field = this.#field(reader);
      size += sizeOf(field);
      if (size <= this.#limits.maxHeaderListSize) fields.push(field);
    }
    if (size > this.#limits.maxHeaderListSize) {
      throw new SignetError('limit_exceeded', `header list of more than ${this.#limits.maxHeaderListSize} bytes`);
    }
    return fields;
  }

  #field(reader: BlockReader): HeaderField {
    const first = reader.peek();
    if (first >= 0x80) return this.#entry(reader.integer(7));
    const indexed = first >= 0x40;
    const index = reader.integer(indexed ? 6 : 4);
    const name = index === 0 ? reader.string() : this.#entry(index).name;
    const field = { name, value: reader.string(), sensitive: !indexed && (first & 0x10) !== 0 };
    if (indexed) this.#add(field);
    return field;
  }

  #entry(index: number): HeaderField {
    const field = index <= STATIC_TABLE.length ? STATIC_TABLE[index - 1] : this.#table[index - STATIC_TABLE.length - 1];
    if (field === undefined) throw malformed(`index ${index} is in neither table (RFC 7541 §2.3.3)`);
    return field;
  }

  #add(field: HeaderField): void {
    const size = sizeOf(field);
    this.#evict(this.#tableLimit - size);
    // A field larger than the whole table empties it and is no error (RFC 7541 §4.4).
    if (size > this.#tableLimit) return;
    this.#table.unshift(field);
    this.#tableSize += size;
  }

  #evict(limit: number): void {
    while (this.#tableSize > Math.max(limit, 0)) this.#tableSize -= sizeOf(this.#table.pop()!);
  }

  #resize(reader: BlockReader, sizeBefore: number): void {
    const limit = reader.integer(5);
    if (sizeBefore > 0) throw malformed('a table size update after a field (RFC 7541 §4.2)');
    if (limit > this.#limits.maxTableSize) {
      throw malformed(`a table size update to ${limit}, more than ${this.#limits.maxTableSize} (RFC 7541 §6.3)`);
    }
    this.#tableLimit = limit;
    this.#evict(limit);
  }
}
