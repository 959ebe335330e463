import { SignetError } from '../errors.ts';
import { parseSpiffeId, pathOf, type SpiffeId } from './id.ts';

/** JWT-SVID §2.1, in the order of its table. */
export const JWT_ALGORITHMS = ['RS256', 'RS384', 'RS512', 'ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512'] as const;
export type JwtAlgorithm = (typeof JWT_ALGORITHMS)[number];

export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
export type JsonObject = { [name: string]: Json };

/** A JWT-SVID that was read but NOT verified: nothing in it may be believed yet. */
export interface UnverifiedJwt {
  readonly algorithm: JwtAlgorithm;
  readonly kid: string | undefined;
  readonly subject: SpiffeId;
  readonly audience: readonly string[];
  /** Seconds since the Unix epoch. */
  readonly expires: number;
  readonly notBefore: number | undefined;
  readonly claims: JsonObject;
  readonly token: string;
}

const BASE64URL = /^[A-Za-z0-9_-]+$/;
/** JWT-SVID §2: the header holds these and nothing else. */
const HEADER_MEMBERS = new Set(['alg', 'kid', 'typ']);

/**
 * Reads the compact serialization of a JWT-SVID by the letter (JWT-SVID §2, §3; RFC 7515 §5.2).
 *
 * @throws SignetError `invalid_token` with the ID of the broken rule. The text never repeats any part of the token.
 */
export function readJwt(token: string): UnverifiedJwt {
  const parts = token.split('.');
  if (parts.length !== 3) throw invalid('JS-01: a JWT-SVID has three parts');
  const [header, claims] = [decodeObject(parts[0] ?? '', 'header'), decodeObject(parts[1] ?? '', 'payload')];
  if (!isCanonical(parts[2] ?? '')) throw invalid('JS-23: the signature is not base64url');
  return { ...readHeader(header), ...readClaims(claims), claims, token };
}

function readHeader(header: JsonObject): Pick<UnverifiedJwt, 'algorithm' | 'kid'> {
  const algorithm = JWT_ALGORITHMS.find((name) => name === header['alg']);
  if (algorithm === undefined) throw invalid(`JS-06: the algorithm is not one of ${JWT_ALGORITHMS.join(', ')}`);
  if (Object.keys(header).some((name) => !HEADER_MEMBERS.has(name))) throw invalid('JS-03: the header holds more than alg, kid and typ');
  const { kid, typ } = header;
  if (typ !== undefined && typ !== 'JWT' && typ !== 'JOSE') throw invalid('JS-10: typ is neither JWT nor JOSE');
  if (kid !== undefined && (typeof kid !== 'string' || kid === '')) throw invalid('JS-34: kid is not a text');
  return { algorithm, kid };
}

function readClaims(claims: JsonObject): Pick<UnverifiedJwt, 'subject' | 'audience' | 'expires' | 'notBefore'> {
  const { sub, aud, exp, nbf } = claims;
  if (typeof sub !== 'string') throw invalid('JS-13: sub is missing');
  const audience = typeof aud === 'string' ? [aud] : aud;
  if (!Array.isArray(audience) || audience.length === 0 || !audience.every((value) => typeof value === 'string' && value !== '')) {
    throw invalid('JS-15: aud is missing');
  }
  if (!isNumericDate(exp)) throw invalid('JS-20: exp is missing');
  if (nbf !== undefined && !isNumericDate(nbf)) throw invalid('JS-35: nbf is not a number');
  return { subject: readSubject(sub), audience: audience as string[], expires: exp, notBefore: nbf };
}

function readSubject(text: string): SpiffeId {
  try {
    const id = parseSpiffeId(text);
    if (pathOf(id) !== '') return id;
  } catch {
    // The text below says all that a stranger may know.
  }
  throw invalid('JS-13: sub is not the SPIFFE ID of a workload');
}

function isNumericDate(value: Json | undefined): value is number {
  return typeof value === 'number' && Number.isFinite(value);
}

function decodeObject(part: string, name: string): JsonObject {
  if (!isCanonical(part)) throw invalid(`JS-23: the ${name} is not base64url`);
  const bytes = Buffer.from(part, 'base64url');
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw invalid(`JS-23: the ${name} is not JSON`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(`JS-23: the ${name} is not a JSON object`);
  return value as JsonObject;
}

/** No padding, no foreign characters, no spare bits: one token has one form. */
function isCanonical(part: string): boolean {
  return BASE64URL.test(part) && Buffer.from(part, 'base64url').toString('base64url') === part;
}

function invalid(rule: string): SignetError {
  return new SignetError('invalid_token', rule);
}
