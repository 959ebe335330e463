import 'reflect-metadata';
import { X509Certificate as OpenSslCertificate } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { SignetError } from '../errors.ts';
import type { CertificateRequest, Issuer } from './certificate.ts';
import { readElements } from './der.ts';

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

const { KeyUsageFlags } = x509;
const SERVER_AND_CLIENT: readonly string[] = [x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth];

/** Octets, RFC 5280 §4.1.2.2. */
const LONGEST_SERIAL = 20;

function* findings(der: Buffer, asked: CertificateRequest, issuer: LeafIssuer): Iterable<LeafProblem> {
  const leaf = new x509.X509Certificate(der);
  yield* namesOf(leaf, asked);
  yield* usesOf(leaf);
  yield* linksOf(leaf, der, asked, issuer);
  yield* datesOf(leaf, asked, issuer);
}

function* namesOf(leaf: x509.X509Certificate, asked: CertificateRequest): Iterable<LeafProblem> {
  const extension = leaf.getExtension(x509.SubjectAlternativeNameExtension);
  const names = extension?.names.items ?? [];
  const uris = names.filter((name) => name.type === 'url').map((name) => name.value);
  if (uris.length !== 1 || uris[0] !== asked.id) yield { part: 'names', what: `XS-01: the URI SANs are ${JSON.stringify(uris)} and not the one SPIFFE ID` };
  const dns = names.filter((name) => name.type === 'dns').map((name) => name.value);
  if (dns.join() !== asked.dnsNames.join()) yield { part: 'names', what: `the DNS SANs are ${JSON.stringify(dns)} and not ${JSON.stringify(asked.dnsNames)}` };
  if (names.length !== uris.length + dns.length) yield { part: 'names', what: 'there are SANs that nobody asked for' };
  if (leaf.subject === '' && extension?.critical !== true) yield { part: 'subject', what: 'XS-05: the subject is empty and the SAN is not critical' };
  if (leaf.issuer === '') yield { part: 'issuer', what: 'XS-44: the issuer is empty' };
}

function* usesOf(leaf: x509.X509Certificate): Iterable<LeafProblem> {
  const constraints = leaf.getExtension(x509.BasicConstraintsExtension);
  if (constraints === null || !constraints.critical || constraints.ca) yield { part: 'basic_constraints', what: 'XS-15: basic constraints must be critical and CA:FALSE' };
  if (constraints?.pathLength !== undefined) yield { part: 'basic_constraints', what: 'XS-15: a leaf has no path length' };
  const usage = leaf.getExtension(x509.KeyUsagesExtension);
  if (usage === null || !usage.critical) yield { part: 'key_usage', what: 'XS-19: the key usage must be present and critical' };
  if (usage !== null && (usage.usages & KeyUsageFlags.digitalSignature) === 0) yield { part: 'key_usage', what: 'XS-22: the key usage lacks digitalSignature' };
  if (usage !== null && (usage.usages & (KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign)) !== 0) {
    yield { part: 'key_usage', what: 'XS-24: a leaf has neither keyCertSign nor cRLSign' };
  }
  const extended = leaf.getExtension(x509.ExtendedKeyUsageExtension)?.usages ?? [];
  if (!SERVER_AND_CLIENT.every((use) => extended.includes(use))) yield { part: 'extended_key_usage', what: 'XS-27: the extended key usage lacks serverAuth or clientAuth' };
  if (leaf.extensions.some((extension) => extension.type === '2.5.29.30')) yield { part: 'form', what: 'a leaf has no name constraints' };
}

function* linksOf(leaf: x509.X509Certificate, der: Buffer, asked: CertificateRequest, issuer: LeafIssuer): Iterable<LeafProblem> {
  // OpenSSL is the second opinion: it shares no code with the library that built the certificate.
  const openssl = new OpenSslCertificate(der);
  const issuerCertificate = new OpenSslCertificate(issuer.certificate);
  if (openssl.raw.length !== der.length) yield { part: 'form', what: 'WA-28: bytes follow the certificate' };
  if (!openssl.checkIssued(issuerCertificate)) yield { part: 'issuer', what: 'XS-44: the certificate does not name its issuer' };
  if (!openssl.verify(issuerCertificate.publicKey)) yield { part: 'issuer', what: 'SP-02: the signature is not that of the issuer' };
  if (!openssl.publicKey.equals(asked.publicKey)) yield { part: 'key', what: 'WA-29: the certificate holds another public key' };
  const authority = leaf.getExtension(x509.AuthorityKeyIdentifierExtension)?.keyId;
  if (authority !== issuer.subjectKeyId.toString('hex')) yield { part: 'issuer', what: "XS-44: the authority key identifier is not the issuer's subject key identifier" };
  if (leaf.getExtension(x509.SubjectKeyIdentifierExtension) === null) yield { part: 'issuer', what: 'XS-44: there is no subject key identifier' };
  const serial = serialOf(openssl.raw);
  if (serial.length === 0 || serial.length > LONGEST_SERIAL || (serial[0] ?? 0) >= 0x80 || serial.every((octet) => octet === 0)) {
    yield { part: 'serial', what: 'XS-44: the serial number is not positive or longer than 20 octets' };
  }
}

function* datesOf(leaf: x509.X509Certificate, asked: CertificateRequest, issuer: LeafIssuer): Iterable<LeafProblem> {
  const notBefore = leaf.notBefore.getTime();
  const notAfter = leaf.notAfter.getTime();
  if (notBefore !== asked.notBefore || notAfter !== asked.notAfter) yield { part: 'dates', what: 'the dates are not those that were asked for' };
  if (notBefore < issuer.notBefore || notAfter > issuer.notAfter) yield { part: 'dates', what: "XS-44: the validity is not inside the issuer's" };
  if (notAfter <= notBefore) yield { part: 'dates', what: 'XS-44: the certificate ends before it begins' };
}

const EXPLICIT_VERSION = 0xa0;

/** The octets of the serial number as they are encoded: a parsed number has lost the leading zero that makes it positive. */
function serialOf(certificate: Buffer): Buffer {
  const [tbs] = readElements(certificate).flatMap(({ content }) => readElements(content));
  const [first, second] = tbs === undefined ? [] : readElements(tbs.content);
  return (first?.tag === EXPLICIT_VERSION ? second : first)?.content ?? Buffer.of();
}
