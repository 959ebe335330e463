/**
 * When keys follow one another. A key is public before it signs and stays public after it stopped, so that at every moment each
 * live SVID verifies with the bundle that everybody holds (FED-02, FED-03, FED-04).
 *
 *     made ............ half of life ............ two thirds ............ end
 *      | signs                | successor made       | successor signs      | leaves the bundle
 *      |                      | and published        |                      |
 */
export interface Rotating {
  /** Milliseconds since the Unix epoch, as are all of these. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** From when on it signs, unless a later one does. */
  readonly activatesAt: number;
}

/** Part of a key's life after which its successor is made. */
const PREPARE_AT = 1 / 2;
/** Part of a key's life between a successor's publication and its first signature. */
const LEAD = 1 / 6;

/** The one that signs at `now`, or undefined when none is valid. */
export function activeOf<T extends Rotating>(all: readonly T[], now: number): T | undefined {
  const valid = all.filter((one) => one.notBefore <= now && now < one.notAfter);
  const started = valid.filter((one) => one.activatesAt <= now);
  // Without one that has started (the clock went back), the soonest to start is better than none.
  return started.length > 0 ? latest(started) : earliest(valid);
}

/** What is still to be published at `now`. */
export function publishedOf<T extends Rotating>(all: readonly T[], now: number): readonly T[] {
  return all.filter((one) => now < one.notAfter);
}

export type Step = 'create' | 'prepare' | 'none';

/** What has to be made at `now`: one that signs at once, one that signs later, or nothing. */
export function dueStep(all: readonly Rotating[], now: number): Step {
  const active = activeOf(all, now);
  if (active === undefined) return 'create';
  if (all.some((one) => one.activatesAt > active.activatesAt && one.notAfter > now)) return 'none';
  return now >= prepareAt(active) ? 'prepare' : 'none';
}

/** When a successor that is made at `now` begins to sign; `lifeMs` is the life of its predecessor. */
export function activationOf(now: number, lifeMs: number): number {
  return now + lifeMs * LEAD;
}

/** The next moment after `now` at which anything changes: a step, an activation or an end. */
export function nextChange(all: readonly Rotating[], now: number): number {
  const moments = all.flatMap((one) => [one.activatesAt, one.notAfter]);
  const active = activeOf(all, now);
  if (active !== undefined) moments.push(prepareAt(active));
  return Math.min(...moments.filter((moment) => moment > now));
}

function prepareAt(one: Rotating): number {
  return one.activatesAt + (one.notAfter - one.activatesAt) * PREPARE_AT;
}

function latest<T extends Rotating>(all: readonly T[]): T | undefined {
  return all.reduce<T | undefined>((best, one) => (best === undefined || one.activatesAt >= best.activatesAt ? one : best), undefined);
}

function earliest<T extends Rotating>(all: readonly T[]): T | undefined {
  return all.reduce<T | undefined>((best, one) => (best === undefined || one.activatesAt < best.activatesAt ? one : best), undefined);
}
