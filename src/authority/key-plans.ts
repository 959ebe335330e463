import type { SvidKind } from '../events.ts';
import { BACKDATE_MS } from './jwt-signing-key.ts';
import { refused, REPLACED_WITHIN_MS, type KeyFact, type KeyState, type RefusedOrder } from './orders.ts';
import { activationByItself, handOverlapOf, leavesAt, successorOf, type Kept } from './tainted.ts';

/** Keys of one kind that follow one another, at one moment. */
export interface Ring<T extends Kept> {
  readonly kind: SvidKind;
  readonly all: readonly T[];
  /** The one that signs. */
  readonly active: T | undefined;
  readonly idOf: (one: T) => string;
  /** Milliseconds since the Unix epoch. */
  readonly now: number;
  /** Life of a key. */
  readonly ttlMs: number;
}

/** What becomes of the keys when an order is obeyed. */
export interface Plan<T extends Kept> {
  readonly all: readonly T[];
  /** The one that it is about, as it is then. */
  readonly key: T;
  readonly says: readonly string[];
}

export function factOf<T extends Kept>(ring: Ring<T>, one: T): KeyFact {
  const publishedSince = one.notBefore + BACKDATE_MS;
  const state = stateOf(ring, one);
  const usableFrom = publishedSince + handOverlapOf(ring.ttlMs);
  return {
    kind: ring.kind,
    id: ring.idOf(one),
    state,
    publishedSince,
    ...(state === 'prepared' ? { usableFrom } : {}),
    activatesAt: one.activatesAt,
    leavesAt: leavesAt(one),
    notAfter: one.notAfter,
  };
}

/** Whether a successor may be made now, and what happens then. */
export function planPrepare<T extends Kept>(ring: Ring<T>): RefusedOrder | readonly string[] {
  const { kind, active, now, ttlMs } = ring;
  if (active === undefined) return nothingSigns(kind);
  const successor = successorOf(ring.all, active, now);
  if (successor !== undefined) {
    const next = `activate it from ${iso(usableFromOf(ring, successor))} on: "signet authority activate ${kind}"`;
    return refused('not_now', `there is a prepared key already: ${ring.idOf(successor)}`, next);
  }
  const [usable, byItself] = [now + handOverlapOf(ttlMs), activationByItself(now, ttlMs, active)];
  return [
    `a new key (${kind}) is made and is in the bundle from now on; it does not sign yet`,
    `it can be activated from ${iso(usable)} on, when everybody has it; by itself it signs from ${iso(byItself)} on`,
  ];
}

/** The same keys after the prepared one has been activated. */
export function planActivate<T extends Kept>(ring: Ring<T>, force: boolean): RefusedOrder | Plan<T> {
  const { kind, active, now } = ring;
  if (active === undefined) return nothingSigns(kind);
  const successor = successorOf(ring.all, active, now);
  if (successor === undefined) return refused('not_now', `no key (${kind}) is prepared`, `prepare one first: "signet authority prepare ${kind}"`);
  const early = earlyProblem(ring, successor, force);
  if (early !== undefined) return early;
  const key = { ...successor, activatesAt: now };
  return {
    all: replaced(ring.all, successor, key),
    key,
    says: [
      `${ring.idOf(key)} signs from now on`,
      `${ring.idOf(active)} signs no more; it stays in the bundle until ${iso(leavesAt(active))}, so that what it has signed stays valid`,
      `what that one has signed is replaced when it is renewed; "signet authority taint ${ring.idOf(active)}" has it replaced at once`,
    ],
  };
}

/** The same keys after `one` has been given up; when it is the active one, its successor takes its place. */
export function planTaint<T extends Kept>(ring: Ring<T>, one: T, force: boolean): RefusedOrder | Plan<T> {
  const { kind, active, now } = ring;
  const id = ring.idOf(one);
  if (one.taintedAt !== undefined) {
    const why = `${id} is tainted already; it leaves the bundle at ${iso(leavesAt(one))}`;
    return refused('not_now', why, `to take it out now: "signet authority revoke ${id}"`);
  }
  if (active === undefined) return nothingSigns(kind);
  const successor = one === active ? successorOf(ring.all, active, now) : undefined;
  if (one === active && successor === undefined) {
    const next = `prepare one first ("signet authority prepare ${kind}"), and taint this one when that can be activated, or at once with --force`;
    return refused('not_now', `${id} is the one that signs, and nothing is prepared to follow it`, next);
  }
  const early = successor === undefined ? undefined : earlyProblem(ring, successor, force);
  if (early !== undefined) return early;
  const key = { ...one, taintedAt: now };
  const others = successor === undefined ? ring.all : replaced(ring.all, successor, { ...successor, activatesAt: now });
  return {
    all: replaced(others, one, key),
    key,
    says: [
      `${id} never signs again`,
      ...(successor === undefined ? [] : [`${ring.idOf(successor)} signs from now on`]),
      kind === 'x509' ? replacedX509() : 'tokens that it has signed are not given out any more; workloads that keep one have to ask again',
      `it leaves the bundle at ${iso(leavesAt(key))}, and then whatever it has signed is refused; "signet authority revoke ${id}" does so at once`,
    ],
  };
}

/** The same keys without `one`, which must have been given up before. */
export function planRevoke<T extends Kept>(ring: Ring<T>, one: T): RefusedOrder | Plan<T> {
  const id = ring.idOf(one);
  if (one.taintedAt === undefined) {
    const next = `taint it first, so that this is replaced: "signet authority taint ${id}"`;
    return refused('not_now', `${id} is relied on: what it has signed is in use`, next);
  }
  return {
    all: ring.all.filter((other) => other !== one),
    key: one,
    says: [`${id} is out of the bundle: whatever it has signed is refused from now on`],
  };
}

export function replacedX509(): string {
  return `all X.509-SVIDs that are read are replaced within ${REPLACED_WITHIN_MS / 1000} s; programs that do not follow the stream have to ask again`;
}

/** A time for people and programs. */
export function iso(ms: number): string {
  return new Date(Math.ceil(ms / 1000) * 1000).toISOString().replace('.000Z', 'Z');
}

function stateOf<T extends Kept>({ active }: Ring<T>, one: T): KeyState {
  if (one.taintedAt !== undefined) return 'tainted';
  if (one === active) return 'active';
  return active === undefined || one.activatesAt > active.activatesAt ? 'prepared' : 'old';
}

function usableFromOf<T extends Kept>(ring: Ring<T>, one: T): number {
  return one.notBefore + BACKDATE_MS + handOverlapOf(ring.ttlMs);
}

/** What it signs is refused by whoever does not have it yet (FED-02). */
function earlyProblem<T extends Kept>(ring: Ring<T>, successor: T, force: boolean): RefusedOrder | undefined {
  const usableFrom = usableFromOf(ring, successor);
  // A key that has begun to sign by its own time, but is not written yet, was public long enough.
  if (force || ring.now >= Math.min(usableFrom, successor.activatesAt)) return undefined;
  const since = iso(successor.notBefore + BACKDATE_MS);
  const why = `${ring.idOf(successor)} is in the bundle since ${since} only: until ${iso(usableFrom)} there may be verifiers that do not have it`;
  return refused('not_now', why, 'try again then, or add --force: they refuse what it signs until they have it');
}

function nothingSigns(kind: SvidKind): RefusedOrder {
  return refused('not_now', `there is no key (${kind}) that signs now`, 'see "signet status" for what fails');
}

function replaced<T>(all: readonly T[], one: T, by: T): readonly T[] {
  return all.map((other) => (other === one ? by : other));
}
