import type { Clock } from '../clock.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import type { JwtSigningKey } from './jwt-signing-key.ts';
import { jwtAuthority } from './keys.ts';
import { endOf } from './known-roots.ts';
import type { NodeCa } from './node-ca.ts';
import type { NodeState } from './node-state.ts';
import type { Ring } from './key-plans.ts';
import { publishedOf, type Rotating } from './rotation.ts';
import { keptOf, nextChangeOf, signingOf } from './tainted.ts';

/** What a change has taken away. */
export interface Retired {
  readonly cas: readonly NodeCa[];
  readonly jwt: readonly JwtSigningKey[];
}

/** The keys and roots of one node: which of them sign, which are public, and which are still only in memory. */
export class NodeKeys {
  readonly #clock: Clock;
  readonly #holdMs: number;
  readonly #written = new WeakSet<Rotating>();
  #state: NodeState;
  #isWritten = true;

  /** `state` is what the file holds. `holdMs`: how long anything on any node can live under a root that the upstream gives up. */
  constructor(state: NodeState, clock: Clock, holdMs: number) {
    this.#clock = clock;
    this.#holdMs = holdMs;
    this.#state = state;
    this.noteWritten(state);
  }

  get state(): NodeState {
    return this.#state;
  }

  /** False when something is to be written. */
  get isWritten(): boolean {
    return this.#isWritten;
  }

  /** The node CA that signs now. */
  get ca(): NodeCa | undefined {
    return signingOf(this.#state.cas, this.#written, this.#clock.now());
  }

  /** The JWT key that signs now. */
  get jwt(): JwtSigningKey | undefined {
    return signingOf(this.#state.jwt, this.#written, this.#clock.now());
  }

  /** The JWT keys as they follow one another; `ttlMs` is the life of one. */
  jwtRing(ttlMs: number): Ring<JwtSigningKey> {
    return { kind: 'jwt', all: this.#state.jwt, active: this.jwt, idOf: ({ kid }) => kid, now: this.#clock.now(), ttlMs };
  }

  /**
   * Takes `state` over without what has ended and without the keys of node CAs that have been followed by one that is kept. Returns
   * what is gone of the state before.
   */
  change(state: NodeState): Retired {
    const now = this.#clock.now();
    const active = signingOf(state.cas, this.#written, now);
    const followedUntil = active !== undefined && this.#written.has(active) ? active.activatesAt : -Infinity;
    const cas = publishedOf(state.cas, now).filter((ca) => ca.activatesAt >= followedUntil);
    const jwt = keptOf(state.jwt, now);
    const before = this.#state;
    const roots = state.roots.filter((root) => now < endOf(root, cas, this.#holdMs));
    const isSame = sameItems(cas, this.#state.cas) && sameItems(jwt, this.#state.jwt) && sameItems(roots, this.#state.roots);
    if (!isSame) {
      this.#state = { cas, jwt, roots };
      this.#isWritten = false;
    }
    return {
      cas: before.cas.filter(({ publicKey }) => !cas.some((ca) => ca.publicKey === publicKey)),
      jwt: before.jwt.filter(({ kid }) => !jwt.some((key) => key.kid === kid)),
    };
  }

  /** Says that the file holds `state`. */
  noteWritten(state: NodeState): void {
    for (const one of [...state.cas, ...state.jwt]) this.#written.add(one);
    this.#isWritten = this.#state === state;
  }

  bundle(trustDomain: TrustDomain): TrustBundle {
    const now = this.#clock.now();
    return {
      trustDomain,
      x509Authorities: this.#state.roots.filter((root) => now < root.notAfter).map(({ certificate }) => certificate),
      jwtAuthorities: keptOf(this.#state.jwt, now).map((key) => jwtAuthority(key.publicKey)),
    };
  }

  /** The first moment after `since` at which anything begins, ends or is to be renewed; Infinity when there is none. */
  nextChange(since: number): number {
    const { cas, jwt, roots } = this.#state;
    const moments = [
      ...cas.flatMap((ca) => [ca.activatesAt, ca.renewAt, ca.notAfter]),
      ...roots.map((root) => endOf(root, cas, this.#holdMs)),
    ];
    return Math.min(nextChangeOf(jwt, since), ...moments.filter((moment) => moment > since));
  }
}

export function sameBundle(a: TrustBundle, b: TrustBundle): boolean {
  const kidsOf = ({ jwtAuthorities }: TrustBundle): string => jwtAuthorities.map(({ kid }) => kid).join();
  return sameItems(a.x509Authorities, b.x509Authorities) && kidsOf(a) === kidsOf(b);
}

function sameItems<T>(a: readonly T[], b: readonly T[]): boolean {
  return a.length === b.length && a.every((one, index) => one === b[index]);
}
