import 'reflect-metadata';
import { createHash, KeyObject, type webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import type { CertificateRequest, IntermediateRequest, Issuer, SigningCa } from '../../src/authority/certificate.ts';
import { CertificateReader } from '../../src/authority/certificate-reader.ts';
import { readElements } from '../../src/authority/der.ts';
import type { KeyPair } from '../../src/authority/keys.ts';
import { permittingUriHost } from '../../src/authority/name-constraints.ts';
import type { Random } from '../../src/random.ts';
import { idOfTrustDomain, type SpiffeId, type TrustDomain } from '../../src/spiffe/id.ts';

/** A leaf that need not be what the agent would sign. */
export type LibraryLeafRequest = Omit<CertificateRequest, 'publicKey'> & { readonly publicKey: KeyObject | Buffer };

const { KeyUsageFlags } = x509;
const NAME_CONSTRAINTS_OID = '2.5.29.30';

/*
 * Certificates as @peculiar/x509 builds them: what our own are held against, byte by byte.
 */

/** A self-signed CA certificate whose SPIFFE ID is that of the trust domain (X509-SVID §3.2, Appendix A). */
export async function createRoot(
  keys: KeyPair,
  request: { id: SpiffeId; notBefore: number; notAfter: number },
  random: Random,
): Promise<Buffer> {
  const serial = newSerial(random);
  // A distinct name for each root keeps path builders from trying the wrong one.
  const name = `O=Signet, 2.5.4.5=${serial}`;
  return build({
    serial,
    subject: name,
    issuer: name,
    ...request,
    keys: { publicKey: keys.publicKey, signer: keys.privateKey },
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      new x509.SubjectAlternativeNameExtension([{ type: 'url', value: request.id }]),
      new x509.SubjectKeyIdentifierExtension(keyId(keys.publicKey).toString('hex')),
    ],
  });
}

/**
 * A node CA: path length 0, the SPIFFE ID of its trust domain (X509-SVID §3.2, §4.1, §4.3, Appendix A), and if asked for a critical
 * constraint to that trust domain (§4.2).
 */
export async function createIntermediate(issuer: SigningCa, request: IntermediateRequest, random: Random): Promise<Buffer> {
  const serial = newSerial(random);
  const extensions: x509.Extension[] = [
    new x509.BasicConstraintsExtension(true, 0, true),
    new x509.KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    new x509.SubjectAlternativeNameExtension([{ type: 'url', value: idOfTrustDomain(request.trustDomain) }]),
    new x509.SubjectKeyIdentifierExtension(keyId(request.publicKey).toString('hex')),
    new x509.AuthorityKeyIdentifierExtension(issuer.subjectKeyId.toString('hex')),
  ];
  if (request.nameConstraint === 'uri') {
    extensions.push(new x509.Extension(NAME_CONSTRAINTS_OID, true, permittingUriHost(request.trustDomain)));
  }
  return build({
    serial,
    subject: nodeCaName(serial),
    issuer: new x509.Name(issuer.subjectName),
    notBefore: request.notBefore,
    notAfter: request.notAfter,
    keys: { publicKey: request.publicKey, signer: issuer.privateKey },
    extensions,
  });
}

/** A PKCS #10 request in DER for a node CA, for a CA that wants to see that its asker holds the key (RFC 2986 §4). */
export async function createCsr(keys: KeyPair, trustDomain: TrustDomain, random: Random): Promise<Buffer> {
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: nodeCaName(newSerial(random)),
    keys: {
      publicKey: keys.publicKey.toCryptoKey(importAlgorithm(keys.publicKey), true, ['verify']),
      privateKey: signingKey(keys.privateKey),
    },
    signingAlgorithm: signatureAlgorithm(keys.privateKey),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      new x509.SubjectAlternativeNameExtension([{ type: 'url', value: idOfTrustDomain(trustDomain) }]),
    ],
  });
  return Buffer.from(request.rawData);
}

/** A leaf with the profile of X509-SVID §4 and Appendix A, signed by `issuer`. */
export async function createLeaf(issuer: Issuer, request: LibraryLeafRequest, random: Random): Promise<{ der: Buffer; serial: string }> {
  const serial = newSerial(random);
  const names: x509.JsonGeneralNames = [{ type: 'url', value: request.id }];
  for (const value of request.dnsNames) names.push({ type: 'dns', value });
  const der = await build({
    serial,
    subject: 'O=Signet',
    issuer: new x509.Name(issuer.subjectName),
    notBefore: request.notBefore,
    notAfter: request.notAfter,
    keys: { publicKey: request.publicKey, signer: issuer.privateKey },
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
      new x509.SubjectAlternativeNameExtension(names),
      new x509.SubjectKeyIdentifierExtension(keyId(request.publicKey).toString('hex')),
      new x509.AuthorityKeyIdentifierExtension(issuer.subjectKeyId.toString('hex')),
    ],
  });
  return { der, serial };
}

/** The DER of the names in a certificate. */
export function namesOf(certificate: Buffer): { readonly issuer: Buffer; readonly subject: Buffer } {
  const { issuer, subject } = new CertificateReader(certificate);
  return { issuer, subject };
}

interface Parts {
  readonly serial: string;
  readonly subject: string;
  readonly issuer: string | x509.Name;
  readonly notBefore: number;
  readonly notAfter: number;
  readonly keys: { readonly publicKey: KeyObject | Buffer; readonly signer: KeyObject };
  readonly extensions: x509.Extension[];
}

async function build(parts: Parts): Promise<Buffer> {
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: parts.serial,
    subject: parts.subject,
    issuer: parts.issuer,
    notBefore: new Date(parts.notBefore),
    notAfter: new Date(parts.notAfter),
    publicKey: new x509.PublicKey(spkiOf(parts.keys.publicKey)),
    signingKey: signingKey(parts.keys.signer),
    signingAlgorithm: signatureAlgorithm(parts.keys.signer),
    extensions: parts.extensions,
  });
  return Buffer.from(certificate.rawData);
}

/** An imported key is kept, since a CA signs many leaves. */
const imported = new WeakMap<KeyObject, CryptoKey>();

function signingKey(key: KeyObject): CryptoKey {
  const known = imported.get(key);
  if (known !== undefined) return known;
  const made = key.toCryptoKey(importAlgorithm(key), false, ['sign']);
  imported.set(key, made);
  return made;
}

function importAlgorithm(key: KeyObject): webcrypto.EcKeyImportParams | webcrypto.RsaHashedImportParams {
  if (key.asymmetricKeyType === 'rsa') return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
  return { name: 'ECDSA', namedCurve: isP384(key) ? 'P-384' : 'P-256' };
}

function signatureAlgorithm(key: KeyObject): webcrypto.EcdsaParams | webcrypto.RsaHashedImportParams {
  if (key.asymmetricKeyType === 'rsa') return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
  return { name: 'ECDSA', hash: isP384(key) ? 'SHA-384' : 'SHA-256' };
}

function isP384(key: KeyObject): boolean {
  return key.asymmetricKeyDetails?.namedCurve === 'secp384r1';
}

/** A distinct name for each node CA keeps path builders from trying the wrong one. */
function nodeCaName(serial: string): string {
  return `O=Signet, OU=Node CA, 2.5.4.5=${serial}`;
}

/** Positive, at most 16 octets, 126 random bits (RFC 5280 §4.1.2.2), as hexadecimal text. */
function newSerial(random: Random): string {
  const bytes = Buffer.from(random.bytes(16));
  // The second highest bit set and the highest clear: never zero, never negative, always of one length.
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString('hex');
}

/** RFC 7093 §2 method 1: the first 160 bits of SHA-256 over the key's bit string, which FIPS modules allow too. */
function keyId(publicKey: KeyObject | Buffer): Buffer {
  const spki = new x509.PublicKey(spkiOf(publicKey)).rawData;
  return createHash('sha256').update(subjectPublicKeyBits(Buffer.from(spki))).digest().subarray(0, 20);
}

/** The content of the BIT STRING of a SubjectPublicKeyInfo, without the octet that counts unused bits. */
function subjectPublicKeyBits(spki: Buffer): Buffer {
  const [, bits] = readElements(spki).flatMap(({ content }) => readElements(content));
  if (bits === undefined) throw new RangeError('the public key is not a SubjectPublicKeyInfo');
  return bits.content.subarray(1);
}

function spkiOf(publicKey: KeyObject | Buffer): Buffer {
  return publicKey instanceof KeyObject ? publicKey.export({ format: 'der', type: 'spki' }) : publicKey;
}
