const FIRST_MS = 100;
const LONGEST_MS = 30_000;
/** "No identity" is an answer, not a fault: ask less eagerly at first, and never so seldom that a new entry goes unnoticed. */
const NO_IDENTITY_FIRST_MS = 1_000;
const NO_IDENTITY_LONGEST_MS = 10_000;
const JITTER = 0.2;

/** A stream that lasted this long was a good one: the next connection is made at once (Workload API §4.1). */
export const GOOD_STREAM_MS = 10_000;

/**
 * Milliseconds to wait before the next attempt: doubling from 0.1 s to 30 s (1 s to 10 s after PermissionDenied), moved by up to
 * a fifth either way so that clients cut together do not return together.
 *
 * @param failures attempts in a row that ended badly; 0 after a good stream was cut.
 * @param fraction a random number in [0, 1).
 */
export function retryDelayMs(failures: number, noIdentity: boolean, fraction: number): number {
  if (failures === 0 && !noIdentity) return Math.round(FIRST_MS * fraction);
  const first = noIdentity ? NO_IDENTITY_FIRST_MS : FIRST_MS;
  const longest = noIdentity ? NO_IDENTITY_LONGEST_MS : LONGEST_MS;
  const doubled = Math.min(longest, first * 2 ** Math.max(0, failures - 1));
  return Math.round(doubled * (1 - JITTER + 2 * JITTER * fraction));
}
