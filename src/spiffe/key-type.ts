/** The kinds of key that every published client reads (java-spiffe: RSA and EC only). */
export const KEY_TYPES = ['ec-p256', 'ec-p384', 'rsa-2048'] as const;
export type KeyType = (typeof KEY_TYPES)[number];

/** A key pair as it is handed out. */
export interface EncodedKeyPair {
  /** SubjectPublicKeyInfo in DER. */
  readonly publicKey: Buffer;
  /** Unencrypted PKCS#8 in DER. */
  readonly privateKey: Buffer;
}
