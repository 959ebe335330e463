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

/** Writes one element; its content is what `parts` are together, at most 65,535 octets. */
export function derElement(tag: number, ...parts: readonly Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  if (length < 0x80) return Buffer.concat([Buffer.of(tag, length), content]);
  if (length < 0x100) return Buffer.concat([Buffer.of(tag, 0x81, length), content]);
  return Buffer.concat([Buffer.of(tag, 0x82, length >> 8, length & 0xff), content]);
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
