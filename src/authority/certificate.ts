import { X509Certificate as OpenSslCertificate, type KeyObject } from 'node:crypto';
import { SignetError } from '../errors.ts';
import type { Random } from '../random.ts';
import { idOfTrustDomain, type SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { authorityKeyId, basicConstraints, extension, KEY_USAGE, keyIdOf, keyUsage, nameElement, OID, requestInfo, subjectAltName, subjectKeyId, tbsCertificate } from './certificate-form.ts';
import { CertificateReader } from './certificate-reader.ts';
import type { KeyPair } from './keys.ts';
import { permittingUriHost, type NameConstraint } from './name-constraints.ts';
import { serialFrom } from './serials.ts';
import { schemeOf, signed } from './signature.ts';

/** A CA certificate with its key. */
export interface Issuer extends KeyPair {
  readonly certificate: Buffer;
  /** In one line, for texts. */
  readonly subject: string;
  /** The subject's DER: verifiers compare octets, so that what is below copies it (RFC 5280 §4.1.2.4). */
  readonly subjectName: Buffer;
  /** The subject key identifier as it is in the certificate, never computed again: what leaves point to must be what is there. */
  readonly subjectKeyId: Buffer;
  /** Milliseconds since the Unix epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
}

/** What a leaf is to hold. */
export interface CertificateRequest {
  readonly id: SpiffeId;
  /** SubjectPublicKeyInfo in DER. */
  readonly publicKey: Buffer;
  readonly dnsNames: readonly string[];
  /** Whole seconds, in milliseconds since the Unix epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
}

/** A CA that stands above node CAs. */
export type SigningCa = Pick<Issuer, 'privateKey' | 'subjectName' | 'subjectKeyId'>;

export interface IntermediateRequest {
  readonly trustDomain: TrustDomain;
  readonly publicKey: KeyObject;
  readonly nameConstraint: NameConstraint;
  readonly notBefore: number;
  readonly notAfter: number;
}

const CA_USES = keyUsage(KEY_USAGE.keyCertSign | KEY_USAGE.crlSign);

/** A self-signed CA certificate whose SPIFFE ID is that of the trust domain (X509-SVID §3.2, Appendix A). */
export async function createRoot(
  keys: KeyPair,
  request: { id: SpiffeId; notBefore: number; notAfter: number },
  random: Random,
): Promise<Buffer> {
  const serial = serialFrom(random);
  const publicKey = spkiOf(keys.publicKey);
  // A distinct name for each root keeps path builders from trying the wrong one.
  const name = nameElement([OID.organization, 'Signet'], [OID.serialNumber, serial]);
  const extensions = [basicConstraints(true), CA_USES, subjectAltName(request.id, []), subjectKeyId(keyIdOf(publicKey))];
  const { algorithm } = schemeOf(keys.privateKey);
  const { notBefore, notAfter } = request;
  return signed(tbsCertificate({ serial, algorithm, issuer: name, subject: name, notBefore, notAfter, publicKey, extensions }), keys.privateKey);
}

/**
 * A node CA: path length 0, the SPIFFE ID of its trust domain (X509-SVID §3.2, §4.1, §4.3, Appendix A), and if asked for a critical
 * constraint to that trust domain (§4.2).
 */
export async function createIntermediate(issuer: SigningCa, request: IntermediateRequest, random: Random): Promise<Buffer> {
  const serial = serialFrom(random);
  const publicKey = spkiOf(request.publicKey);
  const extensions = [
    basicConstraints(true, 0),
    CA_USES,
    subjectAltName(idOfTrustDomain(request.trustDomain), []),
    subjectKeyId(keyIdOf(publicKey)),
    authorityKeyId(issuer.subjectKeyId),
  ];
  if (request.nameConstraint === 'uri') extensions.push(extension(OID.nameConstraints, true, permittingUriHost(request.trustDomain)));
  const { algorithm } = schemeOf(issuer.privateKey);
  const { notBefore, notAfter } = request;
  const tbs = tbsCertificate({ serial, algorithm, issuer: issuer.subjectName, subject: nodeCaName(serial), notBefore, notAfter, publicKey, extensions });
  return signed(tbs, issuer.privateKey);
}

/** A PKCS #10 request in DER for a node CA, for a CA that wants to see that its asker holds the key (RFC 2986 §4). */
export async function createCsr(keys: KeyPair, trustDomain: TrustDomain, random: Random): Promise<Buffer> {
  const extensions = [basicConstraints(true, 0), CA_USES, subjectAltName(idOfTrustDomain(trustDomain), [])];
  return signed(requestInfo(nodeCaName(serialFrom(random)), spkiOf(keys.publicKey), extensions), keys.privateKey);
}

/**
 * An issuer from a CA certificate and its key.
 *
 * @throws SignetError `state_refused` when the two do not belong together or the certificate may not sign (X509-SVID §4.1, §4.3).
 */
export function issuerFrom(certificate: Buffer, keys: KeyPair): Issuer {
  const openssl = new OpenSslCertificate(certificate);
  if (!openssl.checkPrivateKey(keys.privateKey)) throw new SignetError('state_refused', 'the CA certificate and the private key do not belong together');
  const read = new CertificateReader(certificate);
  if (!openssl.ca || ((read.keyUsage?.bits ?? 0) & KEY_USAGE.keyCertSign) === 0) {
    throw new SignetError('state_refused', 'the CA certificate may not sign certificates: it needs CA:TRUE and the key usage keyCertSign (X509-SVID §4.1, §4.3)');
  }
  if (read.subjectKeyId === undefined) throw new SignetError('state_refused', 'the CA certificate has no subject key identifier (RFC 5280 §4.2.1.2)');
  return {
    ...keys,
    certificate,
    subject: nameText(openssl.subject),
    // Copies: a view would keep the whole certificate for a name.
    subjectName: Buffer.from(read.subject),
    subjectKeyId: Buffer.from(read.subjectKeyId),
    notBefore: openssl.validFromDate.getTime(),
    notAfter: openssl.validToDate.getTime(),
  };
}

/** A name in one line, from the form that Node has from OpenSSL. Empty when it is. */
export function nameText(name: string | undefined): string {
  return (name ?? '').replaceAll('\n', ', ');
}

/** The last whole second: X.509 times have no fractions. Milliseconds since the Unix epoch. */
export function wholeSecond(ms: number): number {
  return Math.floor(ms / 1000) * 1000;
}

/** SubjectPublicKeyInfo in DER. */
export function spkiOf(publicKey: KeyObject): Buffer {
  return publicKey.export({ format: 'der', type: 'spki' });
}

/** A distinct name for each node CA keeps path builders from trying the wrong one. */
function nodeCaName(serial: string): Buffer {
  return nameElement([OID.organization, 'Signet'], [OID.organizationalUnit, 'Node CA'], [OID.serialNumber, serial]);
}
