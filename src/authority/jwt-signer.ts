import { SignJWT } from 'jose';
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
  readonly #issuer: string | undefined;
  readonly #clock: Clock;

  constructor(source: JwtKeySource, trustDomain: TrustDomain, issuer: string | undefined, clock: Clock) {
    this.#source = source;
    this.#trustDomain = trustDomain;
    this.#issuer = issuer;
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
    const claims = { sub: request.id, aud: [...request.audience], exp: expires, iat: now, ...(this.#issuer === undefined ? {} : { iss: this.#issuer }) };
    const token = await new SignJWT(claims).setProtectedHeader({ alg: 'ES256', kid: key.kid, typ: 'JWT' }).sign(key.privateKey);
    return { token, kid: key.kid, issuedAt: now * 1000, expiresAt: expires * 1000 };
  }
}
