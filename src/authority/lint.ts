import { createPublicKey, X509Certificate as OpenSslCertificate } from 'node:crypto';
import { SignetError } from '../errors.ts';
import type { CertificateRequest, Issuer } from './certificate.ts';
import { KEY_USAGE, NAME_TAG, OID } from './certificate-form.ts';
import { CertificateReader } from './certificate-reader.ts';

/** The part of a certificate that breaks the profile. */
export type LeafPart = 'names' | 'subject' | 'basic_constraints' | 'key_usage' | 'extended_key_usage' | 'key' | 'serial' | 'issuer' | 'dates' | 'form';

export interface LeafProblem {
  readonly part: LeafPart;
  /** A sentence without its full stop, with the ID of the broken rule where there is one. */
  readonly what: string;
}

/** What a leaf is held against: whose signature it bears. */
export type LeafIssuer = Pick<Issuer, 'certificate' | 'subjectKeyId' | 'notBefore' | 'notAfter'>;

/**
 * Reads a leaf again from its bytes, as its receivers will, and refuses it when it breaks the profile or is not what was asked
 * for. Nothing is released without it: a mistake in the builder, or in a CA above, ends here.
 *
 * @throws SignetError `profile_violation` naming every broken rule (X509-SVID §4, §5; RFC 5280 §4).
 */
export function lintLeaf(der: Buffer, asked: CertificateRequest, issuer: LeafIssuer): void {
  const problems = leafProblems(der, asked, issuer);
  if (problems.length > 0) {
    throw new SignetError('profile_violation', `the leaf for ${asked.id} breaks its profile: ${problems.map(({ what }) => what).join('; ')}`);
  }
}

/** Every rule that a leaf breaks. */
export function leafProblems(der: Buffer, asked: CertificateRequest, issuer: LeafIssuer): readonly LeafProblem[] {
  return [...findings(der, asked, issuer)];
}

const SERVER_AND_CLIENT: readonly string[] = [OID.serverAuth, OID.clientAuth];

/** Octets, RFC 5280 §4.1.2.2. */
const LONGEST_SERIAL = 20;

function* findings(der: Buffer, asked: CertificateRequest, issuer: LeafIssuer): Iterable<LeafProblem> {
  // Two opinions that share no code with what builds certificates here: OpenSSL, and a reader of its bytes.
  const openssl = new OpenSslCertificate(der);
  if (openssl.raw.length !== der.length) return yield { part: 'form', what: 'WA-28: bytes follow the certificate' };
  const leaf = new CertificateReader(der);
  yield* namesOf(leaf, asked);
  yield* openSslNamesOf(openssl, asked);
  yield* usesOf(leaf);
  yield* linksOf(leaf, openssl, asked, issuer);
  yield* datesOf(openssl, asked, issuer);
}

function* namesOf(leaf: CertificateReader, asked: CertificateRequest): Iterable<LeafProblem> {
  const { names } = leaf;
  const uris = names.filter(({ tag }) => tag === NAME_TAG.uri).map(({ text }) => text);
  if (uris.length !== 1 || uris[0] !== asked.id) yield { part: 'names', what: `XS-01: the URI SANs are ${JSON.stringify(uris)} and not the one SPIFFE ID` };
  const dns = names.filter(({ tag }) => tag === NAME_TAG.dns).map(({ text }) => text);
  const isAsAsked = dns.length === asked.dnsNames.length && dns.every((name, index) => name === asked.dnsNames[index]);
  if (!isAsAsked) yield { part: 'names', what: `the DNS SANs are ${JSON.stringify(dns)} and not ${JSON.stringify(asked.dnsNames)}` };
  if (names.length !== uris.length + dns.length) yield { part: 'names', what: 'there are SANs that nobody asked for' };
  if (leaf.isSubjectEmpty && leaf.extension(OID.subjectAltName)?.isCritical !== true) yield { part: 'subject', what: 'XS-05: the subject is empty and the SAN is not critical' };
  if (leaf.isIssuerEmpty) yield { part: 'issuer', what: 'XS-44: the issuer is empty' };
}

/** Node quotes a name that is not plainly one, and then it is none (CVE-2021-44532). */
function* openSslNamesOf({ subjectAltName = '' }: OpenSslCertificate, { id, dnsNames }: CertificateRequest): Iterable<LeafProblem> {
  const names = subjectAltName.split(', ').sort();
  const asked = [`URI:${id}`, ...dnsNames.map((name) => `DNS:${name}`)].sort();
  if (names.length === asked.length && names.every((name, index) => name === asked[index])) return;
  yield { part: 'names', what: `OpenSSL reads the SANs as ${JSON.stringify(subjectAltName)}, and there are SANs that nobody asked for or none` };
}

function* usesOf(leaf: CertificateReader): Iterable<LeafProblem> {
  const { basicConstraints: constraints, keyUsage: usage } = leaf;
  if (constraints === undefined || !constraints.isCritical || constraints.isCa) yield { part: 'basic_constraints', what: 'XS-15: basic constraints must be critical and CA:FALSE' };
  if (constraints?.pathLength !== undefined) yield { part: 'basic_constraints', what: 'XS-15: a leaf has no path length' };
  if (usage === undefined || !usage.isCritical) yield { part: 'key_usage', what: 'XS-19: the key usage must be present and critical' };
  if (usage !== undefined && (usage.bits & KEY_USAGE.digitalSignature) === 0) yield { part: 'key_usage', what: 'XS-22: the key usage lacks digitalSignature' };
  if (usage !== undefined && (usage.bits & (KEY_USAGE.keyCertSign | KEY_USAGE.crlSign)) !== 0) {
    yield { part: 'key_usage', what: 'XS-24: a leaf has neither keyCertSign nor cRLSign' };
  }
  const extended = leaf.extendedKeyUsage ?? [];
  if (!SERVER_AND_CLIENT.every((use) => extended.includes(use))) yield { part: 'extended_key_usage', what: 'XS-27: the extended key usage lacks serverAuth or clientAuth' };
  if (leaf.extension(OID.nameConstraints) !== undefined) yield { part: 'form', what: 'a leaf has no name constraints' };
}

function* linksOf(leaf: CertificateReader, openssl: OpenSslCertificate, asked: CertificateRequest, issuer: LeafIssuer): Iterable<LeafProblem> {
  const above = issuerCertificate(issuer.certificate);
  if (openssl.ca) yield { part: 'basic_constraints', what: 'XS-15: OpenSSL takes the leaf for a CA' };
  if (!openssl.checkIssued(above)) yield { part: 'issuer', what: 'XS-44: the certificate does not name its issuer' };
  if (!openssl.verify(above.publicKey)) yield { part: 'issuer', what: 'SP-02: the signature is not that of the issuer' };
  const publicKey = createPublicKey({ key: asked.publicKey, format: 'der', type: 'spki' });
  if (!openssl.publicKey.equals(publicKey)) yield { part: 'key', what: 'WA-29: the certificate holds another public key' };
  if (leaf.authorityKeyId?.equals(issuer.subjectKeyId) !== true) yield { part: 'issuer', what: "XS-44: the authority key identifier is not the issuer's subject key identifier" };
  if (leaf.subjectKeyId === undefined) yield { part: 'issuer', what: 'XS-44: there is no subject key identifier' };
  const { serial } = leaf;
  if (serial.length === 0 || serial.length > LONGEST_SERIAL || (serial[0] ?? 0) >= 0x80 || serial.every((octet) => octet === 0)) {
    yield { part: 'serial', what: 'XS-44: the serial number is not positive or longer than 20 octets' };
  }
}

function* datesOf(openssl: OpenSslCertificate, asked: CertificateRequest, issuer: LeafIssuer): Iterable<LeafProblem> {
  const [notBefore, notAfter] = [openssl.validFromDate.getTime(), openssl.validToDate.getTime()];
  if (notBefore !== asked.notBefore || notAfter !== asked.notAfter) yield { part: 'dates', what: 'the dates are not those that were asked for' };
  if (notBefore < issuer.notBefore || notAfter > issuer.notAfter) yield { part: 'dates', what: "XS-44: the validity is not inside the issuer's" };
  if (notAfter <= notBefore) yield { part: 'dates', what: 'XS-44: the certificate ends before it begins' };
}

const read = new WeakMap<Buffer, OpenSslCertificate>();

/** An issuer stays the same buffer for hours, while everything that it signs is held against it. */
function issuerCertificate(der: Buffer): OpenSslCertificate {
  const known = read.get(der) ?? new OpenSslCertificate(der);
  read.set(der, known);
  return known;
}
