import { sign, type KeyObject, type SignKeyObjectInput } from 'node:crypto';
import { SignetError } from '../errors.ts';
import type { Clock } from '../clock.ts';
import { pathOf, trustDomainOf, type TrustDomain } from '../spiffe/id.ts';
import type { JwtRequest, JwtSigner, SignedJwt } from '../spiffe/signing.ts';
import type { KeyPair } from './keys.ts';

/** A key that signs JWT-SVIDs. Times are milliseconds since the Unix epoch. */
export interface JwtKey extends KeyPair {
  readonly kid: string;
  /** When the key leaves the bundle: no token may outlive it (JWT-SVID §3.3, JS-19). */
  readonly notAfter: number;
}

export interface JwtKeySource {
  /** Resolves at once when there is a key; else when the one that is being made is there, or could not be made. */
  ready(): Promise<void>;
  /** @throws SignetError `authority_unavailable` when there is none. */
  jwtKey(): JwtKey;
}

/** Signs JWT-SVIDs with an ES256 key that is on this node. */
export class NodeJwtSigner implements JwtSigner {
  readonly #source: JwtKeySource;
  readonly #trustDomain: TrustDomain;
  readonly #clock: Clock;
  /** What ends the claims of every token. */
  readonly #claimsEnd: string;
  #press: JwtPress | undefined;

  constructor(source: JwtKeySource, trustDomain: TrustDomain, issuer: string | undefined, clock: Clock) {
    this.#source = source;
    this.#trustDomain = trustDomain;
    this.#claimsEnd = issuer === undefined ? '}' : `,"iss":${JSON.stringify(issuer)}}`;
    this.#clock = clock;
  }

  async sign(request: JwtRequest, signal: AbortSignal): Promise<SignedJwt> {
    signal.throwIfAborted();
    if (trustDomainOf(request.id) !== this.#trustDomain || pathOf(request.id) === '') {
      throw new SignetError('profile_violation', `${request.id} is not a workload of the trust domain ${this.#trustDomain}`);
    }
    if (request.audience.length === 0) throw new SignetError('profile_violation', 'a JWT-SVID has at least one audience (JWT-SVID §3.2)');
    await this.#source.ready();
    const key = this.#source.jwtKey();
    const now = Math.floor(this.#clock.now() / 1000);
    const expires = Math.min(now + Math.floor(request.ttlMs / 1000), Math.floor(key.notAfter / 1000));
    if (expires <= now) throw new SignetError('authority_unavailable', 'the JWT key has come to its end: nothing can be signed with it');
    // An ID has no letter that JSON would escape; an audience may have any.
    const claims = `{"sub":"${request.id}","aud":${JSON.stringify(request.audience)},"exp":${expires},"iat":${now}${this.#claimsEnd}`;
    const token = this.#pressOf(key).sign(claims);
    return { token, kid: key.kid, issuedAt: now * 1000, expiresAt: expires * 1000 };
  }

  #pressOf(key: JwtKey): JwtPress {
    if (this.#press?.key !== key.privateKey || this.#press.kid !== key.kid) this.#press = new JwtPress(key);
    return this.#press;
  }
}

/** A key with the header of every token that it signs (JWT-SVID §2; RFC 7515 §3.1). */
class JwtPress {
  readonly key: KeyObject;
  readonly kid: string;
  /** With its full stop. */
  readonly #header: string;
  /** The signature of ES256 is two numbers of 32 octets and not DER (RFC 7518 §3.4). */
  readonly #input: SignKeyObjectInput;

  constructor({ privateKey, kid }: JwtKey) {
    this.key = privateKey;
    this.kid = kid;
    this.#header = `${base64url(JSON.stringify({ alg: 'ES256', kid, typ: 'JWT' }))}.`;
    this.#input = { key: privateKey, dsaEncoding: 'ieee-p1363' };
  }

  /** The compact serialization (RFC 7515 §7.1). @param claims JSON. */
  sign(claims: string): string {
    const signed = this.#header + base64url(claims);
    return `${signed}.${sign('sha256', Buffer.from(signed, 'latin1'), this.#input).toString('base64url')}`;
  }
}

function base64url(text: string): string {
  return Buffer.from(text, 'utf8').toString('base64url');
}
