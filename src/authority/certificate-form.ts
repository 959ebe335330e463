import { createHash } from 'node:crypto';
import { derElement, readElements } from './der.ts';

/** Tags of DER (X.690 §8; RFC 5280 Appendix A). */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  printableString: 0x13,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
  /** [0] of a certificate: its version. [0] of a request: its attributes. */
  explicit0: 0xa0,
  /** [3] of a certificate: its extensions. */
  explicit3: 0xa3,
} as const;

/** GeneralName (RFC 5280 §4.2.1.6). */
export const NAME_TAG = { dns: 0x82, uri: 0x86 } as const;

/** RFC 5280 §4.2.1, §4.2.1.12; RFC 2985 §5.4.2 */
export const OID = {
  commonName: '2.5.4.3',
  organization: '2.5.4.10',
  organizationalUnit: '2.5.4.11',
  serialNumber: '2.5.4.5',
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  authorityKeyId: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  anyExtendedKeyUsage: '2.5.29.37.0',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
  extensionRequest: '1.2.840.113549.1.9.14',
} as const;

/** The bits of a key usage, the first one in the lowest place (RFC 5280 §4.2.1.3). */
export const KEY_USAGE = { digitalSignature: 1, keyCertSign: 1 << 5, crlSign: 1 << 6 } as const;

/** The fields of a certificate that is to be signed (RFC 5280 §4.1). Names, algorithm and key are DER. */
export interface TbsFields {
  /** Hexadecimal, positive, two digits an octet. */
  readonly serial: string;
  /** AlgorithmIdentifier of the signature. */
  readonly algorithm: Buffer;
  readonly issuer: Buffer;
  readonly subject: Buffer;
  /** Milliseconds since the Unix epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** SubjectPublicKeyInfo. */
  readonly publicKey: Buffer;
  readonly extensions: readonly Buffer[];
}

const VERSION_3 = derElement(TAG.explicit0, derElement(TAG.integer, Buffer.of(2)));
const TRUE = derElement(TAG.boolean, Buffer.of(0xff));

/** TBSCertificate, version 3. */
export function tbsCertificate(fields: TbsFields): Buffer {
  return derElement(TAG.sequence, ...leadingFields(fields), derElement(TAG.explicit3, derElement(TAG.sequence, ...fields.extensions)));
}

/** What stands before the extensions. */
export function leadingFields({ serial, algorithm, issuer, notBefore, notAfter, subject, publicKey }: Omit<TbsFields, 'extensions'>): Buffer[] {
  const validity = derElement(TAG.sequence, timeElement(notBefore), timeElement(notAfter));
  return [VERSION_3, derElement(TAG.integer, Buffer.from(serial, 'hex')), algorithm, issuer, validity, subject, publicKey];
}

/** CertificationRequestInfo that asks for `extensions` (RFC 2986 §4.1; RFC 2985 §5.4.2). */
export function requestInfo(subject: Buffer, publicKey: Buffer, extensions: readonly Buffer[]): Buffer {
  const asked = derElement(TAG.set, derElement(TAG.sequence, ...extensions));
  const attributes = derElement(TAG.explicit0, derElement(TAG.sequence, oidElement(OID.extensionRequest), asked));
  return derElement(TAG.sequence, derElement(TAG.integer, Buffer.of(0)), subject, publicKey, attributes);
}

/** One extension (RFC 5280 §4.1.2.9); `false` is the default of `critical` and is not written (X.690 §11.5). */
export function extension(oid: string, isCritical: boolean, value: Buffer): Buffer {
  return derElement(TAG.sequence, oidElement(oid), ...(isCritical ? [TRUE] : []), derElement(TAG.octetString, value));
}

/** Critical, as RFC 5280 §4.2.1.9 asks of a CA. `pathLength` below 128. */
export function basicConstraints(isCa: boolean, pathLength?: number): Buffer {
  const parts = isCa ? [TRUE] : [];
  if (pathLength !== undefined) parts.push(derElement(TAG.integer, Buffer.of(pathLength)));
  return extension(OID.basicConstraints, true, derElement(TAG.sequence, ...parts));
}

/** Critical (X509-SVID §4.3). `bits` of the first eight. */
export function keyUsage(bits: number): Buffer {
  let octet = 0;
  for (let bit = 0; bit < 8; bit += 1) if ((bits & (1 << bit)) !== 0) octet |= 0x80 >> bit;
  // Zeros at the end of a named bit list are not written (X.690 §11.2.2).
  const unused = 31 - Math.clz32(octet & -octet);
  return extension(OID.keyUsage, true, derElement(TAG.bitString, Buffer.of(unused, octet)));
}

export function extendedKeyUsage(...uses: readonly string[]): Buffer {
  return extension(OID.extendedKeyUsage, false, derElement(TAG.sequence, ...uses.map(oidElement)));
}

/** One URI, then DNS names. ASCII only (IA5String). */
export function subjectAltName(uri: string, dnsNames: readonly string[]): Buffer {
  const names = [derElement(NAME_TAG.uri, Buffer.from(uri, 'latin1')), ...dnsNames.map((name) => derElement(NAME_TAG.dns, Buffer.from(name, 'latin1')))];
  return extension(OID.subjectAltName, false, derElement(TAG.sequence, ...names));
}

export function subjectKeyId(id: Buffer): Buffer {
  return extension(OID.subjectKeyId, false, derElement(TAG.octetString, id));
}

export function authorityKeyId(id: Buffer): Buffer {
  return extension(OID.authorityKeyId, false, derElement(TAG.sequence, derElement(0x80, id)));
}

/** A Name of one attribute for each part, in their order (RFC 5280 §4.1.2.4). Values have the letters of a PrintableString. */
export function nameElement(...parts: readonly (readonly [oid: string, value: string])[]): Buffer {
  const attributes = parts.map(([oid, value]) => derElement(TAG.sequence, oidElement(oid), derElement(TAG.printableString, Buffer.from(value, 'latin1'))));
  return derElement(TAG.sequence, ...attributes.map((attribute) => derElement(TAG.set, attribute)));
}

/** A whole second as UTCTime until 2049, as GeneralizedTime from 2050 on (RFC 5280 §4.1.2.5). Milliseconds since the Unix epoch. */
function timeElement(ms: number): Buffer {
  const text = timeText(ms);
  return derElement(text.length === 13 ? TAG.utcTime : TAG.generalizedTime, Buffer.from(text, 'latin1'));
}

/** The same without tag and length: 13 characters, or 15 from 2050 on. */
export function timeText(ms: number): string {
  const iso = new Date(ms).toISOString();
  if (iso.length !== 24) throw new RangeError(`${iso} is no date that a certificate can hold`);
  const year = Number(iso.slice(0, 4));
  return `${iso.slice(year >= 1950 && year < 2050 ? 2 : 0, 4)}${iso.slice(5, 7)}${iso.slice(8, 10)}${iso.slice(11, 13)}${iso.slice(14, 16)}${iso.slice(17, 19)}Z`;
}

/** DER of an object identifier in dotted decimals. */
export function oidElement(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const octets: number[] = [];
  for (const arc of [first * 40 + second, ...rest]) {
    const groups = [arc & 0x7f];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) groups.unshift((left % 128) | 0x80);
    octets.push(...groups);
  }
  return derElement(TAG.oid, Buffer.from(octets));
}

/** RFC 7093 §2 method 1: the first 160 bits of SHA-256 over the key's bit string, which FIPS modules allow too. `spki`: DER. */
export function keyIdOf(spki: Buffer): Buffer {
  return createHash('sha256').update(spki.subarray(keyBitsAt(spki))).digest().subarray(0, 20);
}

/** Where the key itself begins in a SubjectPublicKeyInfo: after the octet that counts unused bits. */
export function keyBitsAt(spki: Buffer): number {
  const [info, ...more] = readElements(spki);
  const [, bits] = info === undefined || more.length > 0 ? [] : readElements(info.content);
  if (bits?.tag !== TAG.bitString) throw new RangeError('the public key is not a SubjectPublicKeyInfo');
  return spki.length - bits.content.length + 1;
}
