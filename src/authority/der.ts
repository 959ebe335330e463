/** One element of DER (X.690 §8.1). */
export interface DerElement {
  readonly tag: number;
  readonly content: Buffer;
  /** Tag and length included. */
  readonly whole: Buffer;
}

/**
 * The elements that follow one another in `der`. Tags of one octet only, as certificates have them.
 *
 * @throws RangeError when a length is not DER or reaches beyond the end.
 */
export function readElements(der: Buffer): DerElement[] {
  const elements: DerElement[] = [];
  for (let at = 0; at < der.length; ) {
    const { start, end } = contentOf(der, at);
    elements.push({ tag: der.readUInt8(at), content: der.subarray(start, end), whole: der.subarray(at, end) });
    at = end;
  }
  return elements;
}

/** Writes one element; its content is what `parts` are together, less than 16 MiB. */
export function derElement(tag: number, ...parts: readonly Buffer[]): Buffer {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const header = Buffer.alloc(headerSize(length));
  writeHeader(header, 0, tag, length);
  return Buffer.concat([header, ...parts]);
}

/** Octets of the tag and the length of an element whose content has `length` octets. */
export function headerSize(length: number): number {
  if (length < 0x80) return 2;
  if (length < 0x100) return 3;
  return length < 0x1_0000 ? 4 : 5;
}

/**
 * Writes tag and length into `target` at `at`, in the shortest form (X.690 §10.1). Returns where the content begins.
 *
 * @throws RangeError from 16 MiB on: no certificate is that long.
 */
export function writeHeader(target: Buffer, at: number, tag: number, length: number): number {
  if (length > 0xff_ffff) throw new RangeError(`an element of ${length} octets is too long`);
  target[at] = tag;
  const size = headerSize(length);
  if (size === 2) {
    target[at + 1] = length;
    return at + 2;
  }
  const octets = size - 2;
  target[at + 1] = 0x80 | octets;
  target.writeUIntBE(length, at + 2, octets);
  return at + size;
}

function contentOf(der: Buffer, at: number): { start: number; end: number } {
  const first = der.readUInt8(at + 1);
  const octets = first < 0x80 ? 0 : first & 0x7f;
  // Three octets hold 16 MiB; none at all would be BER's indefinite form.
  if (first === 0x80 || octets > 3) throw new RangeError('a length is not DER');
  const start = at + 2 + octets;
  const end = start + (octets === 0 ? first : der.readUIntBE(at + 2, octets));
  if (end > der.length) throw new RangeError('an element reaches beyond the end');
  return { start, end };
}
