import { SignetError } from '../errors.ts';
import { parseSpiffeId } from '../spiffe/id.ts';
import type { JwtSvid } from '../spiffe/svid.ts';

/** A JSON object as it was sent. */
export type JsonObject = Readonly<Record<string, unknown>>;

const SEGMENT = /^[A-Za-z0-9_-]+$/;

/**
 * Decodes a JWS compact serialization **without verifying its signature**: only for showing it, or for a token that came from the
 * agent itself.
 *
 * @throws SignetError `invalid_token`; the message never holds the token.
 */
export function decodeUnverified(token: string): { header: JsonObject; claims: JsonObject } {
  const segments = token.split('.');
  if (segments.length !== 3 || !segments.every((segment) => SEGMENT.test(segment))) {
    throw new SignetError('invalid_token', 'it is not a JWS of three base64url parts joined by "."');
  }
  return { header: decodePart(segments[0] ?? '', 'header'), claims: decodePart(segments[1] ?? '', 'payload') };
}

/**
 * Reads a token that the agent handed out for `spiffeId` (JWT-SVID §3).
 *
 * @throws SignetError `invalid_token` when a claim that must be there is not, or is for somebody else.
 */
export function parseJwtSvid(spiffeId: string, token: string, audience: readonly string[]): JwtSvid {
  const { claims } = decodeUnverified(token);
  const { sub, aud, exp, iat } = claims;
  if (sub !== spiffeId) throw new SignetError('invalid_token', `the token for ${spiffeId} has another subject`);
  const audiences = typeof aud === 'string' ? [aud] : Array.isArray(aud) ? aud : [];
  const missing = audience.find((name) => !audiences.includes(name));
  if (missing !== undefined) {
    throw new SignetError('invalid_token', `the token for ${spiffeId} lacks the audience ${JSON.stringify(missing)}`);
  }
  if (typeof exp !== 'number') throw new SignetError('invalid_token', `the token for ${spiffeId} has no expiry`);
  const issuedAt = typeof iat === 'number' ? iat * 1000 : 0;
  return withHidden({ id: parseSpiffeId(spiffeId), issuedAt, expiresAt: exp * 1000 }, 'token', token);
}

/** Adds a secret that neither JSON.stringify nor console.log shows. */
export function withHidden<T extends object, K extends string, V>(value: T, name: K, secret: V): T & Readonly<Record<K, V>> {
  return Object.defineProperty(value, name, { value: secret, enumerable: false }) as T & Readonly<Record<K, V>>;
}

function decodePart(segment: string, what: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(segment, 'base64url').toString('utf8'));
  } catch {
    throw new SignetError('invalid_token', `its ${what} is not JSON`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new SignetError('invalid_token', `its ${what} is not a JSON object`);
  }
  return value as JsonObject;
}
