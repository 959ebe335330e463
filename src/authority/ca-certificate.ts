import { X509Certificate as OpenSslCertificate, type KeyObject } from 'node:crypto';
import { idOfTrustDomain, type TrustDomain } from '../spiffe/id.ts';
import { nameText } from './certificate.ts';
import { KEY_USAGE, NAME_TAG, OID } from './certificate-form.ts';
import { CertificateReader } from './certificate-reader.ts';
import { constraintProblem, readNameConstraints, type NameConstraints } from './name-constraints.ts';

/** The certificate of a CA above the node, read but not judged. */
export interface CaCertificate {
  readonly der: Buffer;
  readonly openssl: OpenSslCertificate;
  readonly parsed: CertificateReader;
  /** In one line, for texts. */
  readonly name: string;
  readonly isSelfSigned: boolean;
  /** As it is in the certificate; empty when it has none. */
  readonly subjectKeyId: Buffer;
  /** undefined: no limit (RFC 5280 §4.2.1.9). */
  readonly pathLength: number | undefined;
  readonly constraints: NameConstraints | undefined;
  /** Milliseconds since the Unix epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
}

/** What is wrong, as the end of a sentence about the certificate, and what an operator does about it. */
export interface CaProblem {
  readonly what: string;
  readonly remedy: string;
}

/** What path validation understands here: an unknown critical extension refuses the certificate (RFC 5280 §4.2). */
const UNDERSTOOD: readonly string[] = [14, 15, 17, 19, 30, 32, 35, 37].map((arc) => `2.5.29.${arc}`);

const PROPER_CA = 'issue a CA certificate with CA:TRUE and the key usage keyCertSign';

/** @throws Error when `der` is not one certificate and nothing else. */
export function readCa(der: Buffer): CaCertificate {
  const openssl = new OpenSslCertificate(der);
  if (openssl.raw.length !== der.length) throw new Error('bytes follow the certificate');
  const parsed = new CertificateReader(der);
  const constraints = parsed.extension(OID.nameConstraints);
  return {
    der,
    openssl,
    parsed,
    name: nameText(openssl.subject) || `(no subject, serial ${openssl.serialNumber})`,
    isSelfSigned: openssl.checkIssued(openssl) && openssl.verify(openssl.publicKey),
    subjectKeyId: parsed.subjectKeyId ?? Buffer.of(),
    pathLength: parsed.basicConstraints?.pathLength,
    constraints: constraints && readNameConstraints(constraints.value),
    notBefore: openssl.validFromDate.getTime(),
    notAfter: openssl.validToDate.getTime(),
  };
}

/** What keeps a certificate from standing above the identities of `trustDomain`, whatever the time; undefined when nothing does. */
export function profileProblem(ca: CaCertificate, trustDomain: TrustDomain): CaProblem | undefined {
  return signingProblem(ca) ?? namesProblem(ca, trustDomain) ?? strengthProblem(ca) ?? criticalProblem(ca);
}

/** Whether `ca` is valid at `now` (RFC 5280 §4.1.2.5). */
export function datesProblem(ca: CaCertificate, now: number): CaProblem | undefined {
  if (now >= ca.notAfter) return { what: `it has expired at ${iso(ca.notAfter)}`, remedy: 'renew it' };
  if (now < ca.notBefore) return { what: `it is not valid before ${iso(ca.notBefore)}`, remedy: 'wait, or set the clock of this machine right' };
  return undefined;
}

/** Why no CA under it serves both sides of mutual TLS: some verifiers apply it to all below (X509-SVID §4.4). */
export function extendedUseWarning(ca: CaCertificate): string | undefined {
  const uses = ca.parsed.extendedKeyUsage;
  if (uses === undefined || uses.includes(OID.anyExtendedKeyUsage)) return undefined;
  const isBoth = [OID.serverAuth, OID.clientAuth].every((use) => uses.includes(use));
  return isBoth ? undefined : `the extended key usage of "${ca.name}" lacks serverAuth or clientAuth: many TLS stacks will refuse what is signed under it`;
}

/** The URIs among the subject alternative names of a certificate. */
export function urisOf({ names }: CertificateReader): readonly string[] {
  return names.filter(({ tag }) => tag === NAME_TAG.uri).map(({ text }) => text);
}

/** EC P-256 or P-384, or RSA of at least 2048 bits: what every client of the Workload API can verify. */
export function keyProblem(key: KeyObject): string | undefined {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  if (type === 'ec') {
    const curve = details?.namedCurve;
    return curve === 'prime256v1' || curve === 'secp384r1' ? undefined : `the key is on the curve ${curve}`;
  }
  if (type !== 'rsa') return `the key is of the type ${type}`;
  const bits = details?.modulusLength ?? 0;
  return bits >= 2048 ? undefined : `the RSA key has ${bits} bits`;
}

/** How to make a key that is taken. */
export const GOOD_KEYS = 'use an EC key on P-256 or P-384, or an RSA key of at least 2048 bits';

function signingProblem({ parsed, subjectKeyId }: CaCertificate): CaProblem | undefined {
  if (parsed.basicConstraints?.isCa !== true) return { what: 'it is not a CA: it lacks CA:TRUE (X509-SVID §4.1)', remedy: PROPER_CA };
  if (((parsed.keyUsage?.bits ?? 0) & KEY_USAGE.keyCertSign) === 0) {
    return { what: 'it may not sign certificates: it lacks the key usage keyCertSign (X509-SVID §4.3)', remedy: PROPER_CA };
  }
  if (parsed.isSubjectEmpty) return { what: 'its subject is empty (RFC 5280 §4.1.2.6)', remedy: 'issue it with a subject' };
  if (subjectKeyId.length === 0) return { what: 'it has no subject key identifier (RFC 5280 §4.2.1.2)', remedy: 'issue it with one' };
  return undefined;
}

function namesProblem({ parsed, constraints }: CaCertificate, trustDomain: TrustDomain): CaProblem | undefined {
  const id = idOfTrustDomain(trustDomain);
  const foreign = urisOf(parsed).find((uri) => /^spiffe:/i.test(uri) && uri !== id);
  if (foreign !== undefined) {
    return { what: `its SPIFFE ID is ${foreign} and not ${id} (X509-SVID §3.2, §5.1)`, remedy: 'use the CA of this trust domain, or one without SPIFFE ID' };
  }
  const constrained = constraints === undefined ? undefined : constraintProblem(constraints, trustDomain);
  if (constrained !== undefined) return { what: `${constrained} (X509-SVID §4.2)`, remedy: 'use a CA that may sign for this trust domain' };
  return undefined;
}

function strengthProblem({ openssl, parsed, isSelfSigned }: CaCertificate): CaProblem | undefined {
  const weak = keyProblem(openssl.publicKey);
  if (weak !== undefined) return { what: weak, remedy: GOOD_KEYS };
  // Nobody verifies the signature of an anchor.
  if (!isSelfSigned && parsed.weakHash !== undefined) return { what: `it is signed with ${parsed.weakHash}`, remedy: 'have it signed with SHA-256 or better' };
  return undefined;
}

function criticalProblem({ parsed }: CaCertificate): CaProblem | undefined {
  const unknown = parsed.extensions.find(({ isCritical, oid }) => isCritical && !UNDERSTOOD.includes(oid));
  if (unknown === undefined) return undefined;
  return { what: `its critical extension ${unknown.oid} is not understood (RFC 5280 §4.2)`, remedy: 'issue it without that extension, or not critical' };
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
