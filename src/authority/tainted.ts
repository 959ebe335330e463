import { activationOf, activeOf, dueStep, nextChange, type Rotating, type Step } from './rotation.ts';

/** A key that an operator may have given up. */
export interface Kept extends Rotating {
  /** Since when it is not to be relied on: it never signs again. Milliseconds since the Unix epoch; absent while it is good. */
  readonly taintedAt?: number;
}

/**
 * How long a tainted key is still in the bundle, in milliseconds: SVIDs under it are replaced within seconds, and this leaves room
 * for an attempt that has to be repeated. Until then whoever has the key is believed.
 */
export const TAINTED_STAYS_MS = 60_000;

/**
 * How long a key that is activated by hand must have been in the bundle, in milliseconds: twice the 90 s in which a kubelet brings
 * a changed ConfigMap into its mounts, which is the slowest usual way of a bundle to a verifier (streams have it at once). Never
 * longer than a rotation by itself waits.
 */
export function handOverlapOf(ttlMs: number): number {
  return Math.min(180_000, activationOf(0, ttlMs));
}

/** Those that may sign, in their time. */
export function untainted<T extends Kept>(all: readonly T[]): readonly T[] {
  return all.filter(({ taintedAt }) => taintedAt === undefined);
}

/** When a key leaves the bundle. */
export function leavesAt({ notAfter, taintedAt }: Kept): number {
  return taintedAt === undefined ? notAfter : Math.min(notAfter, taintedAt + TAINTED_STAYS_MS);
}

/** What is to be kept and published at `now`. A clock that was set back does not prolong the stay of a tainted key. */
export function keptOf<T extends Kept>(all: readonly T[], now: number): readonly T[] {
  return all.filter((one) => now < leavesAt(one) && (one.taintedAt === undefined || now > one.taintedAt - TAINTED_STAYS_MS));
}

/** The one that signs at `now`: those that are `written` come first, because a restart would replace any other. */
export function signingOf<T extends Kept>(all: readonly T[], written: { has(one: Rotating): boolean }, now: number): T | undefined {
  const good = untainted(all);
  return activeOf(good.filter((one) => written.has(one)), now) ?? activeOf(good, now);
}

/** What has to be made at `now`, tainted keys aside. */
export function dueStepOf(all: readonly Kept[], now: number): Step {
  return dueStep(untainted(all), now);
}

/** The next moment after `now` at which anything changes. */
export function nextChangeOf(all: readonly Kept[], now: number): number {
  return Math.min(nextChange(untainted(all), now), ...all.map(leavesAt).filter((moment) => moment > now));
}

/** The key that follows `active` when its time has come, or undefined. */
export function successorOf<T extends Kept>(all: readonly T[], active: T, now: number): T | undefined {
  return untainted(all).find((one) => one !== active && one.activatesAt > active.activatesAt && now < one.notAfter);
}

/** When a successor that is made by hand at `now` signs by itself: with two thirds of its predecessor's life, as any other. */
export function activationByItself(now: number, ttlMs: number, active: Rotating): number {
  return Math.max(activationOf(now, ttlMs), active.activatesAt + (active.notAfter - active.activatesAt) * (2 / 3));
}
