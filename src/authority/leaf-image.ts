import { hash } from 'node:crypto';
import type { CertificateRequest, Issuer } from './certificate.ts';
import { authorityKeyId, basicConstraints, extendedKeyUsage, KEY_USAGE, keyBitsAt, keyUsage, leadingFields, NAME_TAG, nameElement, OID, oidElement, subjectKeyId, TAG, timeText } from './certificate-form.ts';
import { headerSize, writeHeader } from './der.ts';
import { SERIAL_OCTETS } from './serials.ts';
import type { Scheme } from './signature.ts';

const SUBJECT = nameElement([OID.organization, 'Signet']);
/** The profile of X509-SVID §4 and Appendix A, around the names. */
const BEFORE_NAMES = Buffer.concat([basicConstraints(false), keyUsage(KEY_USAGE.digitalSignature), extendedKeyUsage(OID.serverAuth, OID.clientAuth)]);
const NAMES_OID = oidElement(OID.subjectAltName);
const NONE: Buffer = Buffer.alloc(0);
const KEY_ID_OCTETS = 20;

/** Most leaves are a tenth of that; a larger one gets memory of its own. */
const scratch = Buffer.alloc(8192);

type Names = Pick<CertificateRequest, 'id' | 'dnsNames'>;

/**
 * The TBSCertificate of every leaf that one issuer signs for keys of one form and dates of one form, written beforehand: only serial
 * number, dates, key, key identifier and names are put in.
 */
export class LeafImage {
  readonly #leading: Buffer;
  /** Extensions. */
  readonly #beforeNames: Buffer;
  readonly #afterNames: Buffer;
  readonly #serialAt: number;
  readonly #notBeforeAt: number;
  readonly #notAfterAt: number;
  readonly #keyAt: number;
  readonly #keyLength: number;
  /** What stands in every key of this form, up to the key's own octets. */
  readonly #keyPrefix: Buffer;
  readonly #keyIdAt: number;
  #notBefore: number;
  #notAfter: number;
  readonly #isLate: boolean;
  readonly #endsLate: boolean;

  /** `more`: extensions in DER that every leaf has besides those of its profile. */
  constructor({ subjectName, subjectKeyId: authorityId }: Pick<Issuer, 'subjectName' | 'subjectKeyId'>, { algorithm }: Scheme, like: CertificateRequest, more: Buffer = NONE) {
    const { publicKey, notBefore, notAfter } = like;
    this.#beforeNames = Buffer.concat([BEFORE_NAMES, more]);
    const serial = '40'.repeat(SERIAL_OCTETS);
    const fields = leadingFields({ serial, algorithm, issuer: subjectName, subject: SUBJECT, notBefore, notAfter, publicKey });
    const [version, , , , validity] = fields;
    if (version === undefined || validity === undefined) throw new RangeError('a certificate has seven fields');
    this.#leading = Buffer.concat(fields);
    this.#serialAt = version.length + 2;
    const validityAt = fields.slice(0, fields.indexOf(validity)).reduce((sum, { length }) => sum + length, 0);
    // Sequence and times are shorter than 128 octets: headers of two.
    this.#notBeforeAt = validityAt + 4;
    this.#notAfterAt = this.#notBeforeAt + timeText(notBefore).length + 2;
    this.#keyLength = publicKey.length;
    this.#keyAt = this.#leading.length - publicKey.length;
    this.#keyPrefix = Buffer.from(publicKey.subarray(0, keyBitsAt(publicKey)));
    const keyId = subjectKeyId(Buffer.alloc(KEY_ID_OCTETS));
    this.#keyIdAt = keyId.length - KEY_ID_OCTETS;
    this.#afterNames = Buffer.concat([keyId, authorityKeyId(authorityId)]);
    this.#notBefore = notBefore;
    this.#notAfter = notAfter;
    this.#isLate = isLate(notBefore);
    this.#endsLate = isLate(notAfter);
  }

  /** Whether key and dates of `asked` have the form of this image. */
  fits({ publicKey, notBefore, notAfter }: CertificateRequest): boolean {
    const prefix = this.#keyPrefix;
    return publicKey.length === this.#keyLength && this.#isLate === isLate(notBefore) && this.#endsLate === isLate(notAfter) && publicKey.compare(prefix, 0, prefix.length, 0, prefix.length) === 0;
  }

  /**
   * The TBSCertificate for what `asked` says, which must fit. It stands in memory that the next call, of any image, writes over.
   *
   * @param serial SERIAL_OCTETS octets.
   */
  fill(asked: CertificateRequest, serial: Buffer): Buffer {
    this.#setDates(asked);
    const { publicKey } = asked;
    const names = namesLength(asked);
    const namesList = headerSize(names) + names;
    const namesExtension = NAMES_OID.length + headerSize(namesList) + namesList;
    const list = this.#beforeNames.length + headerSize(namesExtension) + namesExtension + this.#afterNames.length;
    const extensions = headerSize(list) + list;
    const content = this.#leading.length + headerSize(extensions) + extensions;
    const length = headerSize(content) + content;
    const target = length <= scratch.length ? scratch : Buffer.alloc(length);
    let at = writeHeader(target, 0, TAG.sequence, content);
    target.set(this.#leading, at);
    target.set(serial, at + this.#serialAt);
    target.set(publicKey, at + this.#keyAt);
    at = writeHeader(target, at + this.#leading.length, TAG.explicit3, extensions);
    at = put(target, writeHeader(target, at, TAG.sequence, list), this.#beforeNames);
    at = put(target, writeHeader(target, at, TAG.sequence, namesExtension), NAMES_OID);
    at = writeHeader(target, at, TAG.octetString, namesList);
    at = writeNames(target, writeHeader(target, at, TAG.sequence, names), asked);
    target.set(this.#afterNames, at);
    const keyId = hash('sha256', publicKey.subarray(this.#keyPrefix.length), 'buffer');
    keyId.copy(target, at + this.#keyIdAt, 0, KEY_ID_OCTETS);
    return target.subarray(0, length);
  }

  /** Many leaves are made in one second: the dates of the last one stay in the image. */
  #setDates({ notBefore, notAfter }: CertificateRequest): void {
    if (notBefore !== this.#notBefore) {
      this.#leading.write(timeText(notBefore), this.#notBeforeAt, 'latin1');
      this.#notBefore = notBefore;
    }
    if (notAfter !== this.#notAfter) {
      this.#leading.write(timeText(notAfter), this.#notAfterAt, 'latin1');
      this.#notAfter = notAfter;
    }
  }
}

/** The first second that is written as GeneralizedTime (RFC 5280 §4.1.2.5). */
const YEAR_2050 = Date.UTC(2050, 0, 1);

function isLate(ms: number): boolean {
  return ms >= YEAR_2050;
}

function namesLength({ id, dnsNames }: Names): number {
  let length = headerSize(id.length) + id.length;
  for (const name of dnsNames) length += headerSize(name.length) + name.length;
  return length;
}

function writeNames(target: Buffer, begin: number, { id, dnsNames }: Names): number {
  let at = writeName(target, begin, NAME_TAG.uri, id);
  for (const name of dnsNames) at = writeName(target, at, NAME_TAG.dns, name);
  return at;
}

/** Latin-1 has one octet for each character; what is not ASCII is found by the lint. */
function writeName(target: Buffer, at: number, tag: number, name: string): number {
  const begin = writeHeader(target, at, tag, name.length);
  return begin + target.write(name, begin, 'latin1');
}

function put(target: Buffer, at: number, part: Buffer): number {
  target.set(part, at);
  return at + part.length;
}
