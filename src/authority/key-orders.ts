import { messageOf, SignetError } from '../errors.ts';
import type { SvidKind } from '../events.ts';
import { factOf, planActivate, planPrepare, planRevoke, planTaint, type Plan, type Ring } from './key-plans.ts';
import {
  findKey,
  isRefused,
  type AuthorityOrders,
  type KeyFact,
  type KeyOrder,
  type KindOrder,
  type OrderResult,
  type RefusedOrder,
  type RootFact,
  type Taint,
} from './orders.ts';
import { activationByItself, type Kept } from './tainted.ts';

/** How an order is to be carried out. */
export interface How {
  readonly dryRun: boolean;
  readonly force: boolean;
}

/** The orders about keys of one kind. `id` is the whole ID of a key that is there. */
export interface KindOrders {
  facts(): readonly KeyFact[];
  prepare(how: How): Promise<OrderResult>;
  activate(how: How): Promise<OrderResult>;
  taint(id: string, how: How): Promise<OrderResult>;
  revoke(id: string, how: How): Promise<OrderResult>;
}

/** What holds the keys of one kind. */
export interface RingOwner<T extends Kept> {
  ring(): Ring<T>;
  /** A successor of which nobody knows yet. */
  make(): Promise<T>;
  /** Takes these keys over and publishes them, without waiting for anything. */
  adopt(all: readonly T[]): void;
  /** Resolves when the keys are written. */
  keep(): Promise<void>;
  /** Has what was signed with a tainted key replaced. */
  replace(one: T): void;
}

/** The orders about keys that follow one another. */
export class RingOrders<T extends Kept> implements KindOrders {
  readonly #owner: RingOwner<T>;

  constructor(owner: RingOwner<T>) {
    this.#owner = owner;
  }

  facts(): readonly KeyFact[] {
    const ring = this.#owner.ring();
    return ring.all.map((one) => factOf(ring, one));
  }

  async prepare({ dryRun }: How): Promise<OrderResult> {
    const before = planPrepare(this.#owner.ring());
    if (isRefused(before)) return before;
    if (dryRun) return { kind: 'planned', key: undefined, says: before };
    const made = await this.#owner.make();
    // Meanwhile one may have been made in its own time.
    const ring = this.#owner.ring();
    const says = planPrepare(ring);
    if (isRefused(says) || ring.active === undefined) return isRefused(says) ? says : this.prepare({ dryRun, force: false });
    const key = { ...made, activatesAt: activationByItself(ring.now, ring.ttlMs, ring.active) };
    return this.#obey({ all: [...ring.all, key], key, says });
  }

  activate({ dryRun, force }: How): Promise<OrderResult> {
    return this.#carryOut(planActivate(this.#owner.ring(), force), dryRun);
  }

  taint(id: string, { dryRun, force }: How): Promise<OrderResult> {
    const [ring, one] = this.#find(id);
    return this.#carryOut(planTaint(ring, one, force), dryRun, ({ key }) => this.#owner.replace(key));
  }

  revoke(id: string, { dryRun }: How): Promise<OrderResult> {
    const [ring, one] = this.#find(id);
    return this.#carryOut(planRevoke(ring, one), dryRun);
  }

  #find(id: string): [Ring<T>, T] {
    const ring = this.#owner.ring();
    const one = ring.all.find((other) => ring.idOf(other) === id);
    if (one === undefined) throw new RangeError(`there is no key ${id}`);
    return [ring, one];
  }

  async #carryOut(plan: RefusedOrder | Plan<T>, dryRun: boolean, then?: (plan: Plan<T>) => void): Promise<OrderResult> {
    if (isRefused(plan)) return plan;
    if (!dryRun) return this.#obey(plan, then);
    const ring = this.#owner.ring();
    const now = ring.all.find((one) => ring.idOf(one) === ring.idOf(plan.key));
    return { kind: 'planned', key: now && factOf(ring, now), says: plan.says };
  }

  async #obey(plan: Plan<T>, then?: (plan: Plan<T>) => void): Promise<OrderResult> {
    const { key, says, all } = plan;
    this.#owner.adopt(all);
    then?.(plan);
    await this.#owner.keep();
    return { kind: 'done', key: factOf(this.#owner.ring(), key), says };
  }
}

/** Orders about keys of both kinds. */
export class KeyOrders implements AuthorityOrders {
  readonly #kinds: Readonly<Record<SvidKind, KindOrders>>;
  readonly #rootsOf: () => readonly RootFact[];
  readonly #listeners = new Set<(taint: Taint) => void>();

  constructor(kinds: Readonly<Record<SvidKind, KindOrders>>, rootsOf: () => readonly RootFact[] = () => []) {
    this.#kinds = kinds;
    this.#rootsOf = rootsOf;
  }

  keys(): readonly KeyFact[] {
    return [...this.#kinds.x509.facts(), ...this.#kinds.jwt.facts()];
  }

  roots(): readonly RootFact[] {
    return this.#rootsOf();
  }

  prepare({ kind, ...how }: KindOrder): Promise<OrderResult> {
    return this.#kinds[kind].prepare(howOf(how));
  }

  activate({ kind, ...how }: KindOrder): Promise<OrderResult> {
    return this.#kinds[kind].activate(howOf(how));
  }

  async taint({ id, ...how }: KeyOrder): Promise<OrderResult> {
    const key = findKey(this.keys(), id);
    return isRefused(key) ? key : this.#kinds[key.kind].taint(key.id, howOf(how));
  }

  async revoke({ id, ...how }: KeyOrder): Promise<OrderResult> {
    const key = findKey(this.keys(), id);
    return isRefused(key) ? key : this.#kinds[key.kind].revoke(key.id, howOf(how));
  }

  onTaint(listener: (taint: Taint) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Tells those who hold what a tainted key has signed. */
  tellTaint(taint: Taint): void {
    for (const listener of [...this.#listeners]) listener(taint);
  }
}

/** Those whose keys are not among the keys of `before`. */
export function addedTo<T extends { readonly publicKey: object }>(before: readonly T[], all: readonly T[]): readonly T[] {
  return all.filter(({ publicKey }) => !before.some((one) => one.publicKey === publicKey));
}

/** What an order ends with that is in force, but could not be written. */
export function notKept(cause: unknown): SignetError {
  const rule = 'It is tried again; until then a key that is not written signs only where no other can.';
  return new SignetError('state_unwritable', `a restart would forget what was ordered, because it could not be written: ${messageOf(cause)}. ${rule}`, { cause });
}

function howOf({ dryRun = false, force = false }: Partial<How>): How {
  return { dryRun, force };
}
