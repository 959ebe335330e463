import type { TrustBundle } from '../../spiffe/bundle.ts';
import { changesOf } from '../../spiffe/bundle-changes.ts';
import type { BundleSource } from '../../spiffe/signing.ts';
import type { BundleKeeper } from './bundle-keeper.ts';

/**
 * The bundle of `own` without the roots that the server has tainted and then taken out. Other roots that have left are held until what
 * stands under them has ended; under these nothing is to be believed.
 */
export function withoutRevoked(own: BundleSource, server: Pick<BundleKeeper, 'isRevoked' | 'onChange'>): BundleSource {
  let of = own.current();
  let latest = without(of, server);
  /** The same value as long as nothing in it changes. */
  const current = (): TrustBundle => {
    const bundle = own.current();
    const next = without(bundle, server);
    const isSame = bundle === of && next.x509Authorities.length === latest.x509Authorities.length;
    of = bundle;
    if (!isSame) latest = next;
    return latest;
  };
  return { current, onChange: changesOf(current, own, server) };
}

function without(bundle: TrustBundle, server: Pick<BundleKeeper, 'isRevoked'>): TrustBundle {
  const left = bundle.x509Authorities.filter((root) => !server.isRevoked(root));
  return left.length === bundle.x509Authorities.length ? bundle : { ...bundle, x509Authorities: left };
}
