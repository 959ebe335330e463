import { isRefused, type KeyFact, type OrderResult, type RootFact } from '../authority/orders.ts';
import { messageOf } from '../errors.ts';
import type { AuthorityCommand, CommandedFact, SvidKind } from '../events.ts';
import { isoTime } from './facts.ts';
import type { AuthorityKeyFact, AuthorityRootFact, AuthorityView, OrderAnswer } from './messages.ts';
import { Refusal } from './refusal.ts';
import type { AdminSource, AuthorityControl } from './source.ts';

/** Who gives an order, as the kernel has named him. */
export interface Operator {
  readonly uid: number;
  readonly pid: number;
}

/** What is ordered, as it stands in the body. */
interface Order {
  readonly kind?: SvidKind;
  readonly id?: string;
  readonly force: boolean;
  readonly dryRun: boolean;
}

/** What each order is about, and whether it can be forced. */
const BODIES: Readonly<Record<AuthorityCommand, { readonly about: 'kind' | 'id'; readonly canForce: boolean }>> = {
  prepare: { about: 'kind', canForce: false },
  activate: { about: 'kind', canForce: true },
  taint: { about: 'id', canForce: true },
  revoke: { about: 'id', canForce: false },
};

/** A `kid` or a subject key identifier, or so much of its beginning that a mistake is unlikely to find another. */
const ID = /^[A-Za-z0-9_-]{6,128}$/;

/** @throws Refusal `no_authority` */
export function viewOf(source: AdminSource): AuthorityView {
  const { orders } = controlOf(source);
  return { keys: orders.keys().map(keyFact), roots: orders.roots().map(rootFact) };
}

/**
 * Carries out one order and tells of it, whether it was obeyed or not. A dry run changes nothing and is not told of.
 *
 * @throws Refusal `bad_request`, `no_authority`, `no_such_key`, `order_refused`
 */
export async function command(source: AdminSource, name: AuthorityCommand, body: string, operator: Operator): Promise<OrderAnswer> {
  const order = readOrder(name, body);
  const control = controlOf(source);
  const tell = (fact: Pick<CommandedFact, 'outcome' | 'detail' | 'kind' | 'id'>): void => {
    const { kind, id } = order;
    const { uid, pid } = operator;
    if (!order.dryRun) control.commanded({ command: name, ...(kind && { kind }), ...(id && { id }), ...fact, uid, pid });
  };
  try {
    const result = await carryOut(control, name, order);
    if (isRefused(result)) {
      tell({ outcome: 'refused', detail: result.why });
      throw new Refusal(result.code === 'not_now' ? 'order_refused' : result.code, result.why, result.next);
    }
    const { key } = result;
    tell({ outcome: 'done', ...(key && { kind: key.kind, id: key.id }) });
    return { done: result.kind === 'done', ...(key && { key: keyFact(key) }), says: result.says };
  } catch (error) {
    if (!(error instanceof Refusal)) tell({ outcome: 'failed', detail: messageOf(error) });
    throw error;
  }
}

function carryOut({ orders }: AuthorityControl, name: AuthorityCommand, { kind = 'x509', id = '', force, dryRun }: Order): Promise<OrderResult> {
  switch (name) {
    case 'prepare':
      return orders.prepare({ kind, dryRun });
    case 'activate':
      return orders.activate({ kind, force, dryRun });
    case 'taint':
      return orders.taint({ id, force, dryRun });
    case 'revoke':
      return orders.revoke({ id, dryRun });
  }
}

function controlOf({ authority }: AdminSource): AuthorityControl {
  if (authority !== undefined) return authority;
  throw new Refusal('no_authority', 'this agent holds no signing keys', 'they are rotated where they are kept: see the documentation of that CA');
}

function readOrder(name: AuthorityCommand, body: string): Order {
  const fields = readObject(body);
  const { about, canForce } = BODIES[name];
  const known = [about, 'dry_run', ...(canForce ? ['force'] : [])];
  const unknown = Object.keys(fields).find((key) => !known.includes(key));
  if (unknown !== undefined) {
    throw new Refusal('bad_request', `${JSON.stringify(unknown.slice(0, 40))} is not known in an order to ${name}; known are ${known.join(', ')}`);
  }
  const flags = { force: flagAt(fields, 'force'), dryRun: flagAt(fields, 'dry_run') };
  return about === 'kind' ? { ...flags, kind: kindAt(fields) } : { ...flags, id: idAt(fields) };
}

function readObject(body: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch (error) {
    throw new Refusal('bad_request', `the body is not JSON: ${messageOf(error)}`);
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Readonly<Record<string, unknown>>;
  throw new Refusal('bad_request', 'the body is not a JSON object');
}

function flagAt(fields: Readonly<Record<string, unknown>>, name: string): boolean {
  const value = fields[name] ?? false;
  if (typeof value === 'boolean') return value;
  throw new Refusal('bad_request', `${name} is ${shortened(value)}; allowed is true or false`);
}

function kindAt({ kind }: Readonly<Record<string, unknown>>): SvidKind {
  if (kind === 'x509' || kind === 'jwt') return kind;
  throw new Refusal('bad_request', `kind is ${shortened(kind)}; allowed is x509 or jwt`);
}

function idAt({ id }: Readonly<Record<string, unknown>>): string {
  if (typeof id === 'string' && ID.test(id)) return id;
  throw new Refusal('bad_request', `id is ${shortened(id)}; allowed is the ID of a key, or at least 6 characters of its beginning`);
}

function shortened(value: unknown): string {
  return value === undefined ? 'missing' : (JSON.stringify(value) ?? '').slice(0, 80);
}

function keyFact({ kind, id, state, publishedSince, usableFrom, activatesAt, leavesAt, notAfter }: KeyFact): AuthorityKeyFact {
  return {
    kind,
    id,
    state,
    ...(publishedSince === undefined ? {} : { published_since: isoTime(publishedSince) }),
    ...(usableFrom === undefined ? {} : { usable_from: isoTime(usableFrom) }),
    activates_at: isoTime(activatesAt),
    leaves_at: isoTime(leavesAt),
    not_after: isoTime(notAfter),
  };
}

function rootFact({ id, subject, since, usableFrom, leftAt, notAfter }: RootFact): AuthorityRootFact {
  return {
    id,
    subject,
    published_since: isoTime(since),
    usable_from: isoTime(usableFrom),
    ...(leftAt === undefined ? {} : { left_at: isoTime(leftAt) }),
    not_after: isoTime(notAfter),
  };
}
