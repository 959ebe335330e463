import { sign, type KeyObject } from 'node:crypto';
import { oidElement, TAG } from './certificate-form.ts';
import { derElement } from './der.ts';

/** How a key signs certificates and requests. */
export interface Scheme {
  readonly hash: 'sha256' | 'sha384';
  /** AlgorithmIdentifier in DER. */
  readonly algorithm: Buffer;
  /** True when a signature takes less time than handing it to a thread does. */
  readonly isQuick: boolean;
}

const ecdsa = (oid: string): Buffer => derElement(TAG.sequence, oidElement(oid));

/** RFC 5758 §3.2 */
const P256: Scheme = { hash: 'sha256', algorithm: ecdsa('1.2.840.10045.4.3.2'), isQuick: true };
const P384: Scheme = { hash: 'sha384', algorithm: ecdsa('1.2.840.10045.4.3.3'), isQuick: false };
/** RFC 4055 §5: the parameters are NULL. */
const RSA: Scheme = { hash: 'sha256', algorithm: derElement(TAG.sequence, oidElement('1.2.840.113549.1.1.11'), Buffer.of(5, 0)), isQuick: false };

/** @throws TypeError for a key that is neither EC on P-256 or P-384 nor RSA. */
export function schemeOf(key: KeyObject): Scheme {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  if (type === 'rsa') return RSA;
  if (type === 'ec' && details?.namedCurve === 'prime256v1') return P256;
  if (type === 'ec' && details?.namedCurve === 'secp384r1') return P384;
  throw new TypeError(`certificates are not signed with a key of the type ${type} ${details?.namedCurve ?? ''}`.trimEnd());
}

/** A signature made here and now: for quick schemes. ECDSA is in DER (RFC 3279 §2.2.3). */
export function signNow(scheme: Scheme, key: KeyObject, data: Buffer): Buffer {
  return sign(scheme.hash, data, key);
}

/** A signature made in the thread pool: an RSA key would hold up the event loop. `data` must stay as it is meanwhile. */
export function signLater(scheme: Scheme, key: KeyObject, data: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    sign(scheme.hash, data, key, (error, signature) => (error === null ? resolve(signature) : reject(error)));
  });
}

/** `tbs` with its signature: a Certificate (RFC 5280 §4.1) or a CertificationRequest (RFC 2986 §4.2). */
export async function signed(tbs: Buffer, key: KeyObject): Promise<Buffer> {
  const scheme = schemeOf(key);
  const signature = await signLater(scheme, key, tbs);
  return derElement(TAG.sequence, tbs, scheme.algorithm, derElement(TAG.bitString, Buffer.of(0), signature));
}
