import { X509Certificate, createHash } from 'node:crypto';
import { isObject, objectsAt, textAt, type JsonObject } from '../../kubernetes/json.ts';
import { bundleKeys, publicMembers } from '../../spiffe/bundle-document.ts';
import type { TrustBundle } from '../../spiffe/bundle.ts';
import { toPem } from '../../spiffe/pem.ts';

/** A JWT key as it is published. */
export interface PublicJwtKey {
  readonly kid: string;
  /** RFC 7517 members of a public key. */
  readonly jwk: Readonly<Record<string, string>>;
}

/** What a trust bundle says, in an order that depends on nothing but its content: whoever writes it writes the same text. */
export interface PublicBundle {
  /** DER. */
  readonly roots: readonly Buffer[];
  readonly jwtKeys: readonly PublicJwtKey[];
}

export const NOTHING: PublicBundle = { roots: [], jwtKeys: [] };

const PEM_BLOCK = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----/g;

export function publicBundle({ x509Authorities, jwtAuthorities }: Omit<TrustBundle, 'trustDomain'>): PublicBundle {
  return sorted(x509Authorities, jwtAuthorities);
}

/** Both, each root and each key once. Where both have a `kid`, the key of `first` stays. */
export function union(first: PublicBundle, second: PublicBundle): PublicBundle {
  return sorted([...first.roots, ...second.roots], [...first.jwtKeys, ...second.jwtKeys]);
}

function sorted(roots: readonly Buffer[], jwtKeys: readonly PublicJwtKey[]): PublicBundle {
  const byRoot = new Map(roots.map((der) => [rootId(der), der]));
  const byKid = new Map([...jwtKeys].reverse().map(({ kid, jwk }) => [kid, { kid, jwk: publicMembers(jwk) }]));
  return {
    roots: [...byRoot.values()].sort(Buffer.compare),
    jwtKeys: [...byKid.values()].sort((a, b) => (a.kid < b.kid ? -1 : 1)),
  };
}

/** SHA-256 of the certificate, in hexadecimal. */
export function rootId(der: Buffer): string {
  return createHash('sha256').update(der).digest('hex');
}

/** The roots as RFC 7468 text. */
export function pemOf({ roots }: PublicBundle): string {
  return roots.map((der) => toPem('CERTIFICATE', der)).join('');
}

/**
 * SPIFFE Trust Domain and Bundle §4, as JSON. Without `spiffe_sequence`, which may only ever grow and must change with the
 * content (TD-07, TD-08): no number would be the same in all the places where this bundle can be had, agents write one after
 * the other, and whoever deletes the object would set it back. A reader takes what it fetched last (FED-10).
 */
export function spiffeOf({ roots, jwtKeys }: PublicBundle, refreshHintSeconds: number): string {
  return `${JSON.stringify({ keys: bundleKeys(roots, jwtKeys), spiffe_refresh_hint: refreshHintSeconds }, null, 2)}\n`;
}

/** The certificates in a text as `pemOf` writes it; what is none is left out. */
export function rootsIn(pem: string): Buffer[] {
  const blocks = [...pem.matchAll(PEM_BLOCK)].map(([, base64 = '']) => Buffer.from(base64, 'base64'));
  return blocks.filter((der) => endOf(der) !== undefined);
}

/** The JWT keys in a text as `spiffeOf` writes it; what is none is left out. */
export function jwtKeysIn(text: string): PublicJwtKey[] {
  const keys = objectsAt(parsed(text), 'keys').filter((key) => textAt(key, 'use') === 'jwt-svid' && textAt(key, 'kid') !== '');
  return keys.map((key) => ({ kid: textAt(key, 'kid'), jwk: publicMembers(key) }));
}

/** When a certificate ends, in milliseconds since the Unix epoch; undefined when it is none. */
export function endOf(der: Buffer): number | undefined {
  try {
    return new X509Certificate(der).validToDate.getTime();
  } catch {
    return undefined;
  }
}

function parsed(text: string): JsonObject {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}
