import type { Clock } from '../clock.ts';
import type { Random } from '../random.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import { idOfTrustDomain, type TrustDomain } from '../spiffe/id.ts';
import { createRoot, issuerFrom, wholeSecond } from './certificate.ts';
import type { EmbeddedState, X509Root } from './embedded-state.ts';
import type { Ring } from './key-plans.ts';
import { BACKDATE_MS, type JwtSigningKey } from './jwt-signing-key.ts';
import { jwtAuthority, newKeyPair } from './keys.ts';
import { activationOf, type Rotating } from './rotation.ts';
import { keptOf, nextChangeOf, signingOf } from './tainted.ts';

/** What a change has taken away. */
export interface RetiredKeys {
  readonly x509: readonly X509Root[];
  readonly jwt: readonly JwtSigningKey[];
}

/** The keys of the embedded authority: which of them sign, which are public, and which are still only in memory. */
export class EmbeddedKeys {
  readonly #clock: Clock;
  readonly #ttlMs: number;
  readonly #written = new WeakSet<Rotating>();
  #state: EmbeddedState;
  #isWritten = true;

  /** `state` is what the file holds. `ttlMs`: life of a key. */
  constructor(state: EmbeddedState, clock: Clock, ttlMs: number) {
    this.#clock = clock;
    this.#ttlMs = ttlMs;
    this.#state = state;
    this.noteWritten(state);
  }

  get state(): EmbeddedState {
    return this.#state;
  }

  /** False when something is to be written. */
  get isWritten(): boolean {
    return this.#isWritten;
  }

  /** The root that signs now. */
  get root(): X509Root | undefined {
    return signingOf(this.#state.x509, this.#written, this.#clock.now());
  }

  /** The JWT key that signs now. */
  get jwt(): JwtSigningKey | undefined {
    return signingOf(this.#state.jwt, this.#written, this.#clock.now());
  }

  get x509Ring(): Ring<X509Root> {
    const idOf = ({ subjectKeyId }: X509Root): string => subjectKeyId.toString('hex');
    return { kind: 'x509', all: this.#state.x509, active: this.root, idOf, now: this.#clock.now(), ttlMs: this.#ttlMs };
  }

  get jwtRing(): Ring<JwtSigningKey> {
    return { kind: 'jwt', all: this.#state.jwt, active: this.jwt, idOf: ({ kid }) => kid, now: this.#clock.now(), ttlMs: this.#ttlMs };
  }

  /** Takes `state` over without what has ended; returns what is gone of the state before. */
  change(state: EmbeddedState): RetiredKeys {
    const now = this.#clock.now();
    const [before, x509, jwt] = [this.#state, keptOf(state.x509, now), keptOf(state.jwt, now)];
    const isSame = sameItems(x509, before.x509) && sameItems(jwt, before.jwt);
    if (!isSame) {
      this.#state = { x509, jwt };
      this.#isWritten = false;
    }
    const isGone = <T extends { readonly publicKey: object }>(all: readonly T[]) => (one: T): boolean =>
      !all.some(({ publicKey }) => publicKey === one.publicKey);
    return { x509: before.x509.filter(isGone(x509)), jwt: before.jwt.filter(isGone(jwt)) };
  }

  /** Says that the file holds `state`. */
  noteWritten(state: EmbeddedState): void {
    for (const one of [...state.x509, ...state.jwt]) this.#written.add(one);
    this.#isWritten = this.#state === state;
  }

  bundle(trustDomain: TrustDomain): TrustBundle {
    const now = this.#clock.now();
    return {
      trustDomain,
      x509Authorities: keptOf(this.#state.x509, now).map((root) => root.certificate),
      jwtAuthorities: keptOf(this.#state.jwt, now).map((key) => jwtAuthority(key.publicKey)),
    };
  }

  /** The next moment at which anything begins, ends or is to be made; Infinity when there is none. */
  nextChange(): number {
    const now = this.#clock.now();
    return Math.min(nextChangeOf(this.#state.x509, now), nextChangeOf(this.#state.jwt, now));
  }
}

/** A new root that signs for `ttlMs`, at once or after the time that its publication takes. */
export async function newRoot(
  { trustDomain, ttlMs }: { readonly trustDomain: TrustDomain; readonly ttlMs: number },
  later: boolean,
  { clock, random }: { readonly clock: Clock; readonly random: Random },
): Promise<X509Root> {
  const now = clock.now();
  const keys = await newKeyPair('ec-p256');
  const activatesAt = later ? activationOf(now, ttlMs) : now;
  const dates = { notBefore: wholeSecond(now - BACKDATE_MS), notAfter: wholeSecond(activatesAt + ttlMs) };
  const certificate = await createRoot(keys, { id: idOfTrustDomain(trustDomain), ...dates }, random);
  return { ...issuerFrom(certificate, keys), activatesAt };
}

function sameItems<T>(a: readonly T[], b: readonly T[]): boolean {
  return a.length === b.length && a.every((one, index) => one === b[index]);
}
