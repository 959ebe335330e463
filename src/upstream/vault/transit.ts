import { verify } from 'node:crypto';
import { isSignetError, SignetError } from '../../errors.ts';
import { textAt } from '../../kubernetes/json.ts';
import type { JwtAuthority } from '../../spiffe/bundle.ts';
import { pathOf as pathOfId, trustDomainOf, type TrustDomain } from '../../spiffe/id.ts';
import type { JwtRequest, JwtSigner, SignedJwt } from '../../spiffe/signing.ts';
import { Guard, type GuardOptions, type GuardState } from '../guard.ts';
import { pathOf } from './path.ts';
import { TransitKeys, type TransitKeysOptions, type TransitKeysTools } from './transit-keys.ts';
import type { KnownVersion } from './transit-versions.ts';
import { hasFault, VaultError } from './vault-error.ts';

export interface TransitOptions extends TransitKeysOptions {
  readonly trustDomain: TrustDomain;
  /** The `iss` claim. Default: none. */
  readonly issuer?: string;
  readonly guard?: Partial<GuardOptions>;
}

/** A caller waits for a token, so that neither the queue nor an attempt is long; signing is much cheaper for Vault than a certificate. */
const GUARD: Partial<GuardOptions> = { concurrency: 16, perSecond: 200, burst: 200, waitMs: 5_000, attemptMs: 5_000 };

const PURPOSE = 'transit';

/** Signs JWT-SVIDs with a key that never leaves Vault's transit engine; its public keys are JWT authorities of the trust domain. */
export class TransitJwtSigner implements JwtSigner {
  readonly #options: TransitOptions;
  readonly #tools: TransitKeysTools;
  readonly #keys: TransitKeys;
  readonly #guard: Guard;
  readonly #stop: () => void;

  private constructor(options: TransitOptions, tools: TransitKeysTools, keys: TransitKeys) {
    this.#options = options;
    this.#tools = tools;
    this.#keys = keys;
    const faultOf = (error: unknown): { retryAfterMs: number | undefined } => ({ retryAfterMs: error instanceof VaultError ? error.retryAfterMs : undefined });
    this.#guard = new Guard({ ...GUARD, ...options.guard }, { clock: tools.clock, random: tools.random, faultOf });
    this.#stop = tools.client.onReturn(() => this.#guard.wake());
  }

  /** Takes over the public keys that were kept, and begins to follow the key. Vault may be away. */
  static async open(options: TransitOptions, tools: TransitKeysTools): Promise<TransitJwtSigner> {
    return new TransitJwtSigner(options, tools, await TransitKeys.open(options, tools));
  }

  async sign(request: JwtRequest, signal: AbortSignal): Promise<SignedJwt> {
    const { trustDomain } = this.#options;
    if (trustDomainOf(request.id) !== trustDomain || pathOfId(request.id) === '') {
      throw new SignetError('profile_violation', `${request.id} is not a workload of the trust domain ${trustDomain}`);
    }
    if (request.audience.length === 0) throw new SignetError('profile_violation', 'a JWT-SVID has at least one audience (JWT-SVID §3.2)');
    const { heldUntil } = request;
    return this.#guard.run({ do: (inner) => this.#ask(request, inner), ...(heldUntil === undefined ? {} : { heldUntil }) }, signal);
  }

  /** Every key that a live token can be signed with. */
  authorities(): readonly JwtAuthority[] {
    return this.#keys.authorities();
  }

  /** Calls `listener` when `authorities` has changed. Returns the way to stop. */
  onChange(listener: () => void): () => void {
    return this.#keys.onChange(listener);
  }

  /** Looks at the versions of the key now. @throws what that fails with; the signal's reason. */
  look(signal: AbortSignal): Promise<void> {
    return this.#keys.look(signal);
  }

  /** What signing fails with at present; undefined when it does not. */
  problem(): string | undefined {
    return this.#guard.state().problem ?? this.#keys.problem();
  }

  state(): GuardState {
    return this.#guard.state();
  }

  /** Resolves when nothing is asked or written any more. */
  async close(): Promise<void> {
    this.#stop();
    this.#guard.close();
    await this.#keys.close();
  }

  async #ask(request: JwtRequest, signal: AbortSignal): Promise<SignedJwt> {
    const key = await this.#keys.signing(signal);
    const now = Math.floor(this.#tools.clock.now() / 1_000);
    const expires = now + Math.floor(Math.min(request.ttlMs, this.#options.longestTtlMs) / 1_000);
    if (expires <= now) throw new SignetError('profile_violation', 'a JWT-SVID lives a second at least');
    const { issuer } = this.#options;
    const claims = { sub: request.id, aud: [...request.audience], exp: expires, iat: now, ...(issuer === undefined ? {} : { iss: issuer }) };
    const { kid } = key.authority;
    const signed = `${encode({ alg: 'ES256', kid, typ: 'JWT' })}.${encode(claims)}`;
    const token = `${signed}.${await this.#signatureOf(signed, key, signal)}`;
    return { token, kid, issuedAt: now * 1_000, expiresAt: expires * 1_000 };
  }

  /** The version is named, since the header names its key: after a rotation in between Vault would sign with another one. */
  async #signatureOf(signed: string, key: KnownVersion, signal: AbortSignal): Promise<string> {
    const { mount, key: name } = this.#options;
    const body = { input: Buffer.from(signed).toString('base64'), marshaling_algorithm: 'jws', key_version: String(key.version) };
    const path = pathOf(mount, 'sign', name, 'sha2-256');
    try {
      const { data } = await this.#tools.client.request('POST', path, { body, signal, purpose: PURPOSE });
      return verified(signed, textAt(data, 'signature'), key);
    } catch (error) {
      // The version may have been retired; what is asked next should not be.
      if (hasFault(error, 'bad_request', 'not_found') || isSignetError(error, 'profile_violation')) await this.#keys.lookQuietly();
      throw error;
    }
  }
}

/** @throws SignetError `profile_violation` for anything but a signature of `signed` with `key`: a wrong one is never handed out. */
function verified(signed: string, answer: string, { version, authority }: KnownVersion): string {
  const [, found, signature = ''] = /^vault:v(\d+):([A-Za-z0-9_-]{86})$/.exec(answer) ?? [];
  if (found === undefined) throw new SignetError('profile_violation', 'what Vault has answered is no ES256 signature in the form of JWS (RFC 7518 §3.4)');
  const key = { key: authority.publicKey, dsaEncoding: 'ieee-p1363' } as const;
  if (Number(found) !== version || !verify('sha256', Buffer.from(signed), key, Buffer.from(signature, 'base64url'))) {
    throw new SignetError('profile_violation', `Vault has signed with version ${found} of the transit key, or with another key: the token would not verify with version ${version}`);
  }
  return signature;
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}
