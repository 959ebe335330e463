import type { Random } from '../random.ts';

/** Either way of the middle, as a part of life, so that a fleet does not renew together. */
const JITTER = 1 / 10;

/** A renewal that would gain less than this part of the TTL is not made: a CA near its end would otherwise cause a storm. */
const SMALLEST_GAIN = 1 / 10;

/**
 * When to renew what was issued at `issuedAt` and ends at `notAfter`: at half of life counted from issuance (not from the
 * back-dated notBefore), give or take a tenth of life. Drawn once for each SVID. All in milliseconds since the Unix epoch.
 */
export function renewalOf(issuedAt: number, notAfter: number, random: Random): number {
  const life = notAfter - issuedAt;
  return issuedAt + life / 2 + life * JITTER * (2 * random.fraction() - 1);
}

/** True when a renewal now would move the end far enough to be worth it. `horizon`: the end that nothing signed now outlives. */
export function isWorthRenewing(notAfter: number, now: number, ttlMs: number, horizon: number): boolean {
  return Math.min(now + ttlMs, horizon) - notAfter >= ttlMs * SMALLEST_GAIN;
}

/** Wait before the attempt after `failures` failures in a row: from half a second, doubled, at most 30 seconds, a quarter of it random. */
export function backoffOf(failures: number, random: Random): number {
  const full = Math.min(500 * 2 ** Math.min(failures - 1, 10), 30_000);
  return full * (0.75 + 0.25 * random.fraction());
}
