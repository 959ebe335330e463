import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';

export interface LeafOptions {
  readonly uris?: readonly string[];
  readonly dnsNames?: readonly string[];
  readonly ca?: boolean;
  /** Undefined: digitalSignature. `null`: no such extension. */
  readonly usages?: x509.KeyUsageFlags | null;
}

export interface Minted {
  readonly der: Buffer;
  /** PKCS#8 DER. */
  readonly key: Buffer;
}

export { KeyUsageFlags } from '@peculiar/x509';

export const ID = 'spiffe://example.org/app/a';
const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

x509.cryptoProvider.set(webcrypto as Crypto);

/** A self-signed certificate with exactly the extensions asked for. */
export async function mint({ uris = [ID], dnsNames = [], ca = false, usages }: LeafOptions = {}): Promise<Minted> {
  const keys = await webcrypto.subtle.generateKey(P256, true, ['sign', 'verify']);
  const names = [...uris.map((value) => ({ type: 'url' as const, value })), ...dnsNames.map((value) => ({ type: 'dns' as const, value }))];
  const flags = usages === undefined ? x509.KeyUsageFlags.digitalSignature : usages;
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    keys,
    name: 'CN=test',
    signingAlgorithm: P256,
    notBefore: new Date('2026-01-01T00:00:00Z'),
    notAfter: new Date('2046-01-01T00:00:00Z'),
    extensions: [
      new x509.BasicConstraintsExtension(ca, undefined, true),
      ...(flags === null ? [] : [new x509.KeyUsagesExtension(flags, true)]),
      ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names)]),
    ],
  });
  const key = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
  return { der: Buffer.from(certificate.rawData), key: Buffer.from(key) };
}

/** A certificate that may stand in a bundle or in a chain above the leaf. */
export function mintCa(): Promise<Minted> {
  return mint({ uris: ['spiffe://example.org'], ca: true, usages: x509.KeyUsageFlags.keyCertSign });
}
