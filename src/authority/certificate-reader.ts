import { OID, TAG } from './certificate-form.ts';
import { readElements, type DerElement } from './der.ts';

export interface ReadExtension {
  /** Dotted decimals. */
  readonly oid: string;
  readonly isCritical: boolean;
  readonly value: Buffer;
}

/** A name of a subject alternative name (RFC 5280 §4.2.1.6). `text` is its octets as Latin-1. */
export interface ReadName {
  readonly tag: number;
  readonly text: string;
}

export interface ReadBasicConstraints {
  readonly isCritical: boolean;
  readonly isCa: boolean;
  readonly pathLength: number | undefined;
}

/** `bits`: the first bit in the lowest place (KEY_USAGE). */
export interface ReadKeyUsage {
  readonly isCritical: boolean;
  readonly bits: number;
}

/** [0] of an authority key identifier (RFC 5280 §4.2.1.1). */
const AUTHORITY_KEY_ID = 0x80;
const SHA1_SIGNATURES = new Set(['1.2.840.113549.1.1.5', '1.2.840.10045.4.1', '1.3.14.3.2.29']);
const MD_SIGNATURES = new Set(['1.2.840.113549.1.1.2', '1.2.840.113549.1.1.3', '1.2.840.113549.1.1.4']);
const RSASSA_PSS = '1.2.840.113549.1.1.10';
const SHA_1 = '1.3.14.3.2.26';

/**
 * A certificate as it stands in its bytes (RFC 5280 §4.1). Reads what OpenSSL's door in Node does not show: criticality, key usage,
 * path length, key identifiers. Judges nothing.
 */
export class CertificateReader {
  /** The octets of the serial number as they are encoded. */
  readonly serial: Buffer;
  /** Names and the SubjectPublicKeyInfo in DER. */
  readonly issuer: Buffer;
  readonly subject: Buffer;
  readonly publicKey: Buffer;
  readonly extensions: readonly ReadExtension[];
  readonly basicConstraints: ReadBasicConstraints | undefined;
  readonly keyUsage: ReadKeyUsage | undefined;
  /** Dotted decimals; undefined without the extension. */
  readonly extendedKeyUsage: readonly string[] | undefined;
  /** Empty without the extension. */
  readonly names: readonly ReadName[];
  readonly subjectKeyId: Buffer | undefined;
  readonly authorityKeyId: Buffer | undefined;
  /** The name of a hash that nobody should rely on any more, when the signature does. */
  readonly weakHash: string | undefined;

  /** @throws RangeError when `der` is not one certificate and nothing else, or has an extension twice (RFC 5280 §4.2). */
  constructor(der: Buffer) {
    const [certificate, ...more] = readElements(der);
    if (certificate?.tag !== TAG.sequence || more.length > 0) throw new RangeError('it is not one certificate and nothing else');
    const [tbs, algorithm] = readElements(certificate.content);
    if (tbs?.tag !== TAG.sequence || algorithm?.tag !== TAG.sequence) throw new RangeError('it is not a certificate');
    const all = readElements(tbs.content);
    // The version is absent from version 1.
    const [serial, , issuer, , subject, publicKey, ...rest] = all[0]?.tag === TAG.explicit0 ? all.slice(1) : all;
    if (serial?.tag !== TAG.integer || issuer === undefined || subject === undefined || publicKey === undefined) throw new RangeError('the certificate lacks a field');
    this.serial = serial.content;
    this.issuer = issuer.whole;
    this.subject = subject.whole;
    this.publicKey = wholeKey(publicKey);
    this.extensions = extensionsIn(rest);
    this.basicConstraints = read(this.extension(OID.basicConstraints), basicConstraintsIn);
    this.keyUsage = read(this.extension(OID.keyUsage), keyUsageIn);
    this.extendedKeyUsage = read(this.extension(OID.extendedKeyUsage), ({ value }) => readElements(onlyElement(value, TAG.sequence)).map(({ content }) => dottedOf(content)));
    this.names = read(this.extension(OID.subjectAltName), namesIn) ?? [];
    this.subjectKeyId = read(this.extension(OID.subjectKeyId), ({ value }) => onlyElement(value, TAG.octetString));
    this.authorityKeyId = read(this.extension(OID.authorityKeyId), ({ value }) => readElements(onlyElement(value, TAG.sequence)).find(({ tag }) => tag === AUTHORITY_KEY_ID)?.content);
    this.weakHash = weakHashIn(readElements(algorithm.content));
  }

  get isSubjectEmpty(): boolean {
    return isEmpty(this.subject);
  }

  get isIssuerEmpty(): boolean {
    return isEmpty(this.issuer);
  }

  extension(oid: string): ReadExtension | undefined {
    return this.extensions.find((one) => one.oid === oid);
  }
}

function read<T>(extension: ReadExtension | undefined, reader: (extension: ReadExtension) => T): T | undefined {
  return extension === undefined ? undefined : reader(extension);
}

function basicConstraintsIn({ isCritical, value }: ReadExtension): ReadBasicConstraints {
  const fields = readElements(onlyElement(value, TAG.sequence));
  const isCa = fields[0]?.tag === TAG.boolean && fields[0].content[0] !== 0;
  const length = fields.find(({ tag }) => tag === TAG.integer)?.content;
  return { isCritical, isCa, pathLength: length === undefined ? undefined : wholeNumber(length) };
}

function keyUsageIn({ isCritical, value }: ReadExtension): ReadKeyUsage {
  const [unused = 0, ...octets] = onlyElement(value, TAG.bitString);
  if (unused > 7) throw new RangeError('a bit string has at most seven unused bits');
  if (octets.length > 2) throw new RangeError('a key usage has nine bits and no more');
  let bits = 0;
  for (const [index, octet] of octets.entries()) {
    // Unused bits count as zero whatever they are, as OpenSSL has it.
    const used = index === octets.length - 1 ? 8 - unused : 8;
    for (let bit = 0; bit < used; bit += 1) if ((octet & (0x80 >> bit)) !== 0) bits |= 1 << (index * 8 + bit);
  }
  return { isCritical, bits };
}

function namesIn({ value }: ReadExtension): readonly ReadName[] {
  return readElements(onlyElement(value, TAG.sequence)).map(({ tag, content }) => ({ tag, text: content.toString('latin1') }));
}

function weakHashIn([algorithm, parameters]: readonly DerElement[]): string | undefined {
  const oid = algorithm === undefined ? '' : dottedOf(algorithm.content);
  if (SHA1_SIGNATURES.has(oid)) return 'SHA-1';
  if (MD_SIGNATURES.has(oid)) return 'MD5';
  if (oid !== RSASSA_PSS) return undefined;
  // SHA-1 is what is meant when nothing is said (RFC 4055 §3.1).
  const hash = readElements(parameters?.content ?? Buffer.of()).find(({ tag }) => tag === TAG.explicit0);
  const [named] = hash === undefined ? [] : readElements(onlyElement(hash.content, TAG.sequence));
  return named === undefined || dottedOf(named.content) === SHA_1 ? 'SHA-1' : undefined;
}

function extensionsIn(fields: readonly DerElement[]): readonly ReadExtension[] {
  const list = fields.find(({ tag }) => tag === TAG.explicit3);
  const extensions = list === undefined ? [] : readElements(onlyElement(list.content, TAG.sequence)).map(readExtension);
  if (new Set(extensions.map(({ oid }) => oid)).size < extensions.length) throw new RangeError('the certificate has an extension twice');
  return extensions;
}

function readExtension({ content }: DerElement): ReadExtension {
  const [oid, second, third] = readElements(content);
  const value = second?.tag === TAG.boolean ? third : second;
  if (oid?.tag !== TAG.oid || value?.tag !== TAG.octetString) throw new RangeError('an extension is not one');
  return { oid: dottedOf(oid.content), isCritical: second?.tag === TAG.boolean && second.content[0] !== 0, value: value.content };
}

/** The content of the one element that `der` is. */
function onlyElement(der: Buffer, tag: number): Buffer {
  const [element, ...more] = readElements(der);
  if (element?.tag !== tag || more.length > 0) throw new RangeError('the value of an extension is not as its standard has it');
  return element.content;
}

function isEmpty(name: Buffer): boolean {
  return readElements(name).every(({ content }) => content.length === 0);
}

function wholeNumber(octets: Buffer): number {
  if (octets.length === 0 || octets.length > 6 || (octets[0] ?? 0) >= 0x80) throw new RangeError('a path length is not a small whole number');
  return octets.readUIntBE(0, octets.length);
}

/** Arcs are read up to 2^53: those that are known are far smaller. */
function dottedOf(octets: Buffer): string {
  const arcs: number[] = [];
  let arc = 0;
  for (const octet of octets) {
    arc = arc * 128 + (octet & 0x7f);
    if (octet >= 0x80) continue;
    if (arcs.length === 0) arcs.push(Math.min(Math.floor(arc / 40), 2), arc - Math.min(Math.floor(arc / 40), 2) * 40);
    else arcs.push(arc);
    arc = 0;
  }
  return arcs.join('.');
}

/** A SubjectPublicKeyInfo whose key is whole octets (RFC 5280 §4.1.2.7): of one that is not, readers take different ones. */
function wholeKey({ tag, content, whole }: DerElement): Buffer {
  const [algorithm, bits, ...more] = tag === TAG.sequence ? readElements(content) : [];
  if (algorithm?.tag !== TAG.sequence || bits?.tag !== TAG.bitString || bits.content[0] !== 0 || more.length > 0) {
    throw new RangeError('the public key is not a SubjectPublicKeyInfo of whole octets');
  }
  return whole;
}
