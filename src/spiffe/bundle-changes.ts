import type { TrustBundle } from './bundle.ts';

/** Whatever a bundle is put together from. */
export interface Changing {
  onChange(listener: () => void): () => void;
}

/**
 * `onChange` of a bundle that is put together from several: tells what `current` says whenever that is another value than was told last,
 * whichever of `sources` has changed.
 */
export function changesOf(current: () => TrustBundle, ...sources: readonly Changing[]): (listener: (bundle: TrustBundle) => void) => () => void {
  return (listener) => {
    let told = current();
    const tell = (): void => {
      const bundle = current();
      if (bundle === told) return;
      told = bundle;
      listener(bundle);
    };
    const stops = sources.map((source) => source.onChange(tell));
    return () => stops.forEach((stop) => stop());
  };
}
