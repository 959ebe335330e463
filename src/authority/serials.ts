import type { Random } from '../random.ts';

/** Octets of a serial number. */
export const SERIAL_OCTETS = 16;
/** Serial numbers that are drawn at once: asking for each costs as much as hashing a key. */
const BLOCK = 64;

/** One serial number in hexadecimal: positive, 16 octets, 126 random bits (RFC 5280 §4.1.2.2). */
export function serialFrom(random: Random): string {
  return fit(Buffer.from(random.bytes(SERIAL_OCTETS))).toString('hex');
}

/** Serial numbers drawn in blocks. None is given out twice, and none is secret before it is used. */
export class Serials {
  readonly #random: Random;
  #block: Buffer = Buffer.of();
  #at = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  /** A view that stays as it is. */
  next(): Buffer {
    if (this.#at === this.#block.length) {
      this.#block = Buffer.from(this.#random.bytes(SERIAL_OCTETS * BLOCK));
      this.#at = 0;
    }
    const serial = this.#block.subarray(this.#at, (this.#at += SERIAL_OCTETS));
    return fit(serial);
  }
}

/** The second highest bit set and the highest clear: never zero, never negative, always of one length. */
function fit(octets: Buffer): Buffer {
  octets[0] = ((octets[0] ?? 0) & 0x3f) | 0x40;
  return octets;
}
