import { createRoot, issuerFrom, type Issuer } from '../../src/authority/certificate.ts';
import { newKeyPair, type KeyPair } from '../../src/authority/keys.ts';
import { systemRandom } from '../../src/random.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';

/** A root of `example.org`, valid in [from, to) milliseconds since the Unix epoch. */
export async function testIssuer(from: number, to: number): Promise<Issuer> {
  const keys = await newKeyPair('ec-p256');
  return issuerOf(keys, from, to);
}

export async function issuerOf(keys: KeyPair, from: number, to: number): Promise<Issuer> {
  const certificate = await createRoot(keys, { id: parseSpiffeId('spiffe://example.org'), notBefore: from, notAfter: to }, systemRandom);
  return issuerFrom(certificate, keys);
}
