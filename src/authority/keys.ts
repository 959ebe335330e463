import { createECDH, createHash, createPrivateKey, createPublicKey, generateKeyPair, getFips, type KeyObject } from 'node:crypto';
import { promisify } from 'node:util';
import type { JwtAuthority } from '../spiffe/bundle.ts';
import type { EncodedKeyPair, KeyType } from '../spiffe/key-type.ts';

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

/** A P-256 key in PKCS#8 as OpenSSL writes it (RFC 5208 §5, RFC 5915 §3), without the private key's and the point's octets. */
const PKCS8_P256 = Buffer.concat([
  Buffer.from('308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420', 'hex'),
  Buffer.alloc(32),
  Buffer.from('a144034200', 'hex'),
  Buffer.alloc(65),
]);
const PKCS8_PRIVATE_END = 68;
const PKCS8_PUBLIC_AT = 73;
/** RFC 5480 §2: a P-256 key in a SubjectPublicKeyInfo, up to the point. */
const SPKI_P256 = Buffer.from('3059301306072a8648ce3d020106082a8648ce3d030107034200', 'hex');

const p256 = createECDH('prime256v1');

/**
 * A new key pair for an SVID, without key objects: those and their encoding cost more than the key. P-256 is made at once, the
 * others in the thread pool. Node's ECDH does not go through OpenSSL's providers, so that in FIPS mode the pool makes P-256 too.
 */
export function newEncodedKeyPair(type: KeyType): EncodedKeyPair | Promise<EncodedKeyPair> {
  const encoding = { publicKeyEncoding: { format: 'der', type: 'spki' }, privateKeyEncoding: { format: 'der', type: 'pkcs8' } } as const;
  if (type === 'rsa-2048') return generate('rsa', { modulusLength: 2048, ...encoding });
  if (type === 'ec-p384') return generate('ec', { namedCurve: 'P-384', ...encoding });
  return getFips() === 1 ? generate('ec', { namedCurve: 'P-256', ...encoding }) : newP256();
}

function newP256(): EncodedKeyPair {
  const point = p256.generateKeys();
  const secret = p256.getPrivateKey();
  // Not from Node's pool: a key lives for hours, and shares memory with nothing.
  const privateKey = Buffer.allocUnsafeSlow(PKCS8_P256.length);
  privateKey.set(PKCS8_P256);
  // Without its leading zeros, as a number has none.
  privateKey.set(secret, PKCS8_PRIVATE_END - secret.length);
  privateKey.set(point, PKCS8_PUBLIC_AT);
  secret.fill(0);
  return { publicKey: Buffer.concat([SPKI_P256, point]), privateKey };
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
