import type { RuleTally } from '../../../src/registration/status/tally.ts';

/** A tally of a ClusterSPIFFEID that selects two pods. */
export function tally(name: string, more: Partial<RuleTally> = {}): RuleTally {
  const counts = { podsSelected: 2, podsFailed: 0, entriesMasked: 0 };
  return { kind: 'ClusterSPIFFEID', name, uid: `uid-of-${name}`, generation: 1, ...counts, ...more };
}
