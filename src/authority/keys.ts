import { createHash, createPrivateKey, createPublicKey, generateKeyPair, type KeyObject } from 'node:crypto';
import { promisify } from 'node:util';
import type { JwtAuthority } from '../spiffe/bundle.ts';
import type { KeyType } from '../spiffe/key-type.ts';

export interface KeyPair {
  readonly publicKey: KeyObject;
  readonly privateKey: KeyObject;
}

const generate = promisify(generateKeyPair);

/** A new key pair. It is made in the thread pool: an RSA key takes longer than the event loop may stand still. */
export function newKeyPair(type: KeyType): Promise<KeyPair> {
  switch (type) {
    case 'ec-p256':
      return generate('ec', { namedCurve: 'P-256' });
    case 'ec-p384':
      return generate('ec', { namedCurve: 'P-384' });
    case 'rsa-2048':
      return generate('rsa', { modulusLength: 2048 });
  }
}

/** Unencrypted PKCS#8 DER, the form that the Workload API hands out (§5.2.1). */
export function pkcs8(privateKey: KeyObject): Buffer {
  return privateKey.export({ format: 'der', type: 'pkcs8' });
}

export function keyPairFromPem(privateKeyPem: string): KeyPair {
  const privateKey = createPrivateKey(privateKeyPem);
  return { privateKey, publicKey: createPublicKey(privateKey) };
}

/** The members of a public JWK that are also hashed for its thumbprint, in the order of RFC 7638 §3.2. */
const THUMBPRINT_MEMBERS = { EC: ['crv', 'kty', 'x', 'y'], RSA: ['e', 'kty', 'n'] } as const;

/** A JWT authority from its public key; the `kid` is the RFC 7638 thumbprint (SHA-256). */
export function jwtAuthority(publicKey: KeyObject): JwtAuthority {
  const exported = publicKey.export({ format: 'jwk' });
  if (exported.kty !== 'EC' && exported.kty !== 'RSA') throw new TypeError(`a JWT authority is an EC or RSA key, not ${exported.kty}`);
  const jwk: Record<string, string> = {};
  for (const member of THUMBPRINT_MEMBERS[exported.kty]) jwk[member] = String(exported[member]);
  const kid = createHash('sha256').update(JSON.stringify(jwk)).digest('base64url');
  return { kid, publicKey, jwk };
}
