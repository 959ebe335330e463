import type { JwtAuthority, TrustBundle } from '../spiffe/bundle.ts';
import { changesOf } from '../spiffe/bundle-changes.ts';
import type { BundleSource } from '../spiffe/signing.ts';

/** JWT keys of the trust domain that are not this node's own. */
export interface JwtKeysOfOthers {
  /** In an order that depends on nothing but the keys. */
  keys(): readonly JwtAuthority[];
  /** Calls `listener` at each change. Returns the way to stop. */
  onChange(listener: () => void): () => void;
}

/**
 * What is in a bundle by the keys of others, without those that this node has had and given up itself: its own word on them counts,
 * whatever the cluster still holds.
 */
class Composition {
  readonly #wereOwn = new Set<string>();

  of(bundle: TrustBundle, others: readonly JwtAuthority[]): TrustBundle {
    for (const { kid } of bundle.jwtAuthorities) this.#wereOwn.add(kid);
    const kids = new Set<string>();
    const more = others.filter(({ kid }) => !this.#wereOwn.has(kid) && !kids.has(kid) && kids.add(kid));
    return more.length === 0 ? bundle : { ...bundle, jwtAuthorities: [...bundle.jwtAuthorities, ...more] };
  }
}

/**
 * The bundle of `own` with the JWT keys of the others behind its own ones, each key once: a bundle holds every key
 * that any node of the trust domain signs with (SPIFFE Trust Domain and Bundle §4).
 */
export function composeBundle(own: BundleSource, others: JwtKeysOfOthers): BundleSource {
  const composition = new Composition();
  let latest = composition.of(own.current(), others.keys());
  let of: readonly [TrustBundle, readonly JwtAuthority[]] = [own.current(), others.keys()];
  /** The same value as long as nothing in it changes. */
  const current = (): TrustBundle => {
    const now = [own.current(), others.keys()] as const;
    if (now[0] === of[0] && now[1] === of[1]) return latest;
    of = now;
    const next = composition.of(...now);
    if (!isSame(next, latest)) latest = next;
    return latest;
  };
  return { current, onChange: changesOf(current, own, others) };
}

function isSame(a: TrustBundle, b: TrustBundle): boolean {
  const kidsOf = ({ jwtAuthorities }: TrustBundle): string => jwtAuthorities.map(({ kid }) => kid).join();
  const [roots, others] = [a.x509Authorities, b.x509Authorities];
  return roots.length === others.length && roots.every((root, index) => root === others[index]) && kidsOf(a) === kidsOf(b);
}
