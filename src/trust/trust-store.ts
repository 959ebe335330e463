import type { EventBus } from '../events.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import type { BundleSource } from '../spiffe/signing.ts';

/**
 * Whom this node believes: one bundle for each trust domain, never pooled (SPIFFE Federation §5, FED-12). Today the own one.
 */
export class TrustStore {
  readonly #listeners = new Set<() => void>();
  readonly #stop: () => void;
  #own: TrustBundle;

  constructor(source: BundleSource, events: EventBus) {
    this.#own = source.current();
    this.#stop = source.onChange((bundle) => {
      this.#own = bundle;
      events.publish('bundleChanged', {
        trustDomain: bundle.trustDomain,
        x509Authorities: bundle.x509Authorities.length,
        jwtAuthorities: bundle.jwtAuthorities.length,
      });
      for (const listener of [...this.#listeners]) listener();
    });
  }

  /** The bundle of the own trust domain. */
  own(): TrustBundle {
    return this.#own;
  }

  /** The bundle of `trustDomain`, or undefined when nothing is believed of it. */
  bundleOf(trustDomain: TrustDomain): TrustBundle | undefined {
    return trustDomain === this.#own.trustDomain ? this.#own : undefined;
  }

  /** Calls `listener` after each change. Returns the way to stop. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  close(): void {
    this.#stop();
  }
}
