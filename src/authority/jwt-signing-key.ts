import type { KeyObject } from 'node:crypto';
import * as v from 'valibot';
import { wholeSecond } from './certificate.ts';
import type { JwtKey } from './jwt-signer.ts';
import { jwtAuthority, keyPairFromPem, newKeyPair, pkcs8 } from './keys.ts';
import { activationOf } from './rotation.ts';
import type { Kept } from './tainted.ts';

/** A JWT key that is kept in a state file and rotated (see rotation.ts). */
export interface JwtSigningKey extends JwtKey, Kept {}

/** A moment in a state file. */
export const Moment = v.pipe(v.string(), v.isoTimestamp());

/** How a JWT key is kept. */
export const JwtKeyText = v.strictObject({ privateKey: v.string(), notBefore: Moment, notAfter: Moment, activatesAt: Moment, taintedAt: v.optional(Moment) });

/** A key begins before it is made, so that a machine whose clock is behind accepts it. */
export const BACKDATE_MS = 300_000;

/** A new key that signs for `ttlMs`, at once or after the time that its publication takes. */
export async function newJwtSigningKey(now: number, ttlMs: number, later: boolean): Promise<JwtSigningKey> {
  const keys = await newKeyPair('ec-p256');
  const activatesAt = later ? activationOf(now, ttlMs) : now;
  const dates = { notBefore: wholeSecond(now - BACKDATE_MS), notAfter: wholeSecond(activatesAt + ttlMs) };
  return { ...keys, kid: jwtAuthority(keys.publicKey).kid, ...dates, activatesAt };
}

export function formatJwtKey(key: JwtSigningKey): v.InferOutput<typeof JwtKeyText> {
  return {
    privateKey: privateKeyPem(key.privateKey),
    notBefore: moment(key.notBefore),
    notAfter: moment(key.notAfter),
    activatesAt: moment(key.activatesAt),
    ...taintText(key),
  };
}

/** That a key was given up, as it is kept. A file without such keys is as one of an agent that does not know of them. */
export function taintText({ taintedAt }: Kept): { taintedAt?: string } {
  return taintedAt === undefined ? {} : { taintedAt: moment(taintedAt) };
}

export function readTaint({ taintedAt }: { readonly taintedAt?: string | undefined }): { taintedAt?: number } {
  return taintedAt === undefined ? {} : { taintedAt: Date.parse(taintedAt) };
}

/** @throws Error when it is no key that signs ES256. */
export function readJwtKey(text: v.InferOutput<typeof JwtKeyText>): JwtSigningKey {
  const keys = keyPairFromPem(text.privateKey);
  if (keys.privateKey.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new Error('a JWT key is not an EC key on P-256');
  return {
    ...keys,
    kid: jwtAuthority(keys.publicKey).kid,
    notBefore: Date.parse(text.notBefore),
    notAfter: Date.parse(text.notAfter),
    activatesAt: Date.parse(text.activatesAt),
    ...readTaint(text),
  };
}

/** PKCS#8 as PEM. */
export function privateKeyPem(privateKey: KeyObject): string {
  return `-----BEGIN PRIVATE KEY-----\n${pkcs8(privateKey).toString('base64').replace(/.{64}/g, '$&\n').trimEnd()}\n-----END PRIVATE KEY-----\n`;
}

export function moment(ms: number): string {
  return new Date(ms).toISOString();
}
