import { constants, verify as verifySignature, type KeyObject } from 'node:crypto';
import { SignetError } from '../errors.ts';
import type { JwtAuthority, TrustBundle } from '../spiffe/bundle.ts';
import { trustDomainOf, type SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { readJwt, type JsonObject, type JwtAlgorithm, type UnverifiedJwt } from '../spiffe/jwt.ts';

export interface ValidJwt {
  readonly id: SpiffeId;
  readonly claims: JsonObject;
  readonly audience: readonly string[];
}

const NOT_SIGNED = 'JS-23: no key of the trust domain has signed the token';

/** A token that may become valid as soon as the key `kid` is in the bundle; `invalid_token` as any other as long as it is not. */
export class UnknownKeyError extends SignetError {
  readonly kid: string;

  constructor(kid: string) {
    super('invalid_token', NOT_SIGNED);
    this.name = 'UnknownKeyError';
    this.kid = kid;
  }
}

/** Clocks of issuer and validator may differ by this much (JWT-SVID §3.3 allows a small leeway). Seconds. */
const LEEWAY = 5;

/** Tokens that are remembered, and how long one may be: a node's callers show a few tokens again and again. */
const REMEMBERED = 512;
const LONGEST_REMEMBERED = 4_096;

/**
 * Tokens whose signature was verified with a bundle, so that it need not be verified again with the same one. What depends on the time or
 * on the question is looked at each time.
 */
export class VerifiedTokens {
  /** Oldest first. */
  readonly #known = new Map<string, { readonly jwt: UnverifiedJwt; readonly bundle: TrustBundle }>();

  /** The token as it was read, if one of the keys of just this `bundle` has signed it. */
  find(token: string, bundleOf: (trustDomain: TrustDomain) => TrustBundle | undefined): UnverifiedJwt | undefined {
    const known = this.#known.get(token);
    if (known === undefined) return undefined;
    if (bundleOf(trustDomainOf(known.jwt.subject)) === known.bundle) return known.jwt;
    this.#known.delete(token);
    return undefined;
  }

  add(token: string, jwt: UnverifiedJwt, bundle: TrustBundle): void {
    if (token.length > LONGEST_REMEMBERED) return;
    this.#known.set(token, { jwt, bundle });
    const [oldest] = this.#known.size > REMEMBERED ? this.#known.keys() : [];
    if (oldest !== undefined) this.#known.delete(oldest);
  }
}

/**
 * Validates a JWT-SVID (JWT-SVID §4, §5; RFC 7519 §7.2) with the bundle of the trust domain of its subject and no other (WA-57).
 *
 * @param now milliseconds since the Unix epoch
 * @param verified where signatures are remembered that were verified before
 * @throws SignetError `expired_token`, or `invalid_token` with the ID of the broken rule; of these `UnknownKeyError` when nothing is
 * wrong but that its key is not in the bundle.
 */
export function validateJwt(
  token: string,
  audience: string,
  bundleOf: (trustDomain: TrustDomain) => TrustBundle | undefined,
  now: number,
  verified?: VerifiedTokens,
): ValidJwt {
  const jwt = verified?.find(token, bundleOf) ?? verify(token, audience, bundleOf, now, verified);
  const seconds = now / 1000;
  if (jwt.expires + LEEWAY <= seconds) throw new SignetError('expired_token', 'JS-21: the token has expired');
  if (jwt.notBefore !== undefined && jwt.notBefore - LEEWAY > seconds) throw invalid('JS-35: the token is not valid yet');
  if (!jwt.audience.includes(audience)) throw invalid('JS-16: the token is for another audience');
  return { id: jwt.subject, claims: jwt.claims, audience: jwt.audience };
}

/** Reads a token whose signature is good. */
function verify(
  token: string,
  audience: string,
  bundleOf: (trustDomain: TrustDomain) => TrustBundle | undefined,
  now: number,
  verified: VerifiedTokens | undefined,
): UnverifiedJwt {
  const jwt = readJwt(token);
  const bundle = bundleOf(trustDomainOf(jwt.subject));
  if (bundle === undefined) throw invalid('ID-26: no bundle is held for the trust domain of the subject');
  if (isKeyMissing(jwt, bundle) && isOtherwiseGood(jwt, audience, now)) throw new UnknownKeyError(jwt.kid);
  if (!isSignedBy(jwt, bundle.jwtAuthorities)) throw invalid(NOT_SIGNED);
  verified?.add(token, jwt, bundle);
  return jwt;
}

function isKeyMissing(jwt: UnverifiedJwt, { jwtAuthorities }: TrustBundle): jwt is UnverifiedJwt & { readonly kid: string } {
  return jwt.kid !== undefined && !jwtAuthorities.some(({ kid }) => kid === jwt.kid);
}

/** What would be refused with any key need not wait for one. */
function isOtherwiseGood(jwt: UnverifiedJwt, audience: string, now: number): boolean {
  const seconds = now / 1000;
  return jwt.expires + LEEWAY > seconds && (jwt.notBefore ?? 0) - LEEWAY <= seconds && jwt.audience.includes(audience);
}

function isSignedBy(jwt: UnverifiedJwt, authorities: readonly JwtAuthority[]): boolean {
  const candidates = jwt.kid === undefined ? authorities : authorities.filter((authority) => authority.kid === jwt.kid);
  const dot = jwt.token.lastIndexOf('.');
  const signed = Buffer.from(jwt.token.slice(0, dot));
  const signature = Buffer.from(jwt.token.slice(dot + 1), 'base64url');
  return candidates.some((authority) => fits(authority.publicKey, jwt.algorithm) && hasSigned(authority.publicKey, jwt.algorithm, signed, signature));
}

const CURVES: Readonly<Record<string, string>> = { ES256: 'prime256v1', ES384: 'secp384r1', ES512: 'secp521r1' };

/** The key decides what it may be used for; the token only names it (JS-07). */
function fits(key: KeyObject, algorithm: JwtAlgorithm): boolean {
  const curve = CURVES[algorithm];
  if (curve === undefined) return key.asymmetricKeyType === 'rsa';
  return key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === curve;
}

function hasSigned(key: KeyObject, algorithm: JwtAlgorithm, signed: Buffer, signature: Buffer): boolean {
  const hash = `sha${algorithm.slice(2)}`;
  if (algorithm.startsWith('ES')) return verifySignature(hash, signed, { key, dsaEncoding: 'ieee-p1363' }, signature);
  if (algorithm.startsWith('PS')) return verifySignature(hash, signed, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }, signature);
  return verifySignature(hash, signed, key, signature);
}

function invalid(rule: string): SignetError {
  return new SignetError('invalid_token', rule);
}
