import type { SvidKind } from '../events.ts';

/** `prepared`: in the bundle, signs later. `old`: in the bundle, signs no more. `tainted`: not to be relied on any more. */
export type KeyState = 'prepared' | 'active' | 'old' | 'tainted';

/** A key that signs, has signed or will sign. Times are milliseconds since the Unix epoch. */
export interface KeyFact {
  readonly kind: SvidKind;
  /** The subject key identifier in hexadecimal, as leaves name their issuer, or the `kid`. */
  readonly id: string;
  readonly state: KeyState;
  /** Since when it is in the bundle; undefined for a node CA, which is in none: its root is. */
  readonly publishedSince?: number;
  /** From when on a prepared one may be activated by hand. */
  readonly usableFrom?: number;
  /** When it signs by itself, or has begun to. */
  readonly activatesAt: number;
  /** When it is given up. */
  readonly leavesAt: number;
  readonly notAfter: number;
}

/** A root that is not the agent's own. */
export interface RootFact {
  /** The SHA-256 fingerprint in hexadecimal. */
  readonly id: string;
  readonly subject: string;
  /** Since when it is in the bundle. */
  readonly since: number;
  /** From when on a CA under it may sign. */
  readonly usableFrom: number;
  /** Since when the CA above does not stand for it any more. */
  readonly leftAt?: number;
  readonly notAfter: number;
}

/** What was refused, and what to do about it, as sentences without their full stop. */
export interface RefusedOrder {
  readonly kind: 'refused';
  readonly code: 'no_such_key' | 'not_now';
  readonly why: string;
  readonly next: string;
}

export interface ObeyedOrder {
  /** `planned`: nothing was done, it was only asked what would be. */
  readonly kind: 'done' | 'planned';
  /** The key that it is about; undefined for one that would be made. */
  readonly key: KeyFact | undefined;
  /** What happens now, as sentences. */
  readonly says: readonly string[];
}

export type OrderResult = ObeyedOrder | RefusedOrder;

export interface KindOrder {
  readonly kind: SvidKind;
  /** Only tell what would happen. */
  readonly dryRun?: boolean;
  /** Although not everybody can have the key yet. */
  readonly force?: boolean;
}

export interface KeyOrder {
  /** An ID, or the beginning of one. */
  readonly id: string;
  readonly dryRun?: boolean;
  readonly force?: boolean;
}

/** What was signed with a key must be replaced: it is not to be relied on any more. `withinMs`: spread over that time. */
export type Taint = { readonly kind: 'x509'; readonly withinMs: number } | { readonly kind: 'jwt'; readonly kid: string };

/** SVIDs under a tainted CA are replaced within this time, so that not all are signed at one moment. Milliseconds. */
export const REPLACED_WITHIN_MS = 5_000;

/**
 * The rotation of keys by hand. An order that is obeyed is written before it resolves.
 *
 * All reject with SignetError `state_unwritable` when what was ordered holds, but could not be written: a restart forgets it until
 * it can, which is tried again; and with `stopped` when the authority is closed.
 */
export interface AuthorityOrders {
  keys(): readonly KeyFact[];
  /** Roots that are above the agent's own CA; none where it is a root itself. */
  roots(): readonly RootFact[];
  /** Makes a successor and publishes it; it does not sign yet. */
  prepare(order: KindOrder): Promise<OrderResult>;
  /** The prepared one signs from now on. */
  activate(order: KindOrder): Promise<OrderResult>;
  /** Gives a key up: it never signs again, what it has signed is replaced, and it leaves the bundle soon. */
  taint(order: KeyOrder): Promise<OrderResult>;
  /** Takes a tainted key out of the bundle at once. */
  revoke(order: KeyOrder): Promise<OrderResult>;
  /** Calls `listener` when what a key has signed is to be replaced; that key signs no more by then. Returns the way to stop. */
  onTaint(listener: (taint: Taint) => void): () => void;
}

export function refused(code: RefusedOrder['code'], why: string, next: string): RefusedOrder {
  return { kind: 'refused', code, why, next };
}

/** The one key whose ID begins with `id`, in any case of letters for hexadecimal ones. */
export function findKey(keys: readonly KeyFact[], id: string): KeyFact | RefusedOrder {
  const found = keys.filter((key) => (key.kind === 'x509' ? key.id.startsWith(id.toLowerCase()) : key.id.startsWith(id)));
  const [key, ...others] = found;
  if (key === undefined) return refused('no_such_key', `there is no key ${JSON.stringify(id)}`, 'see "signet authority show" for those that are there');
  if (others.length === 0) return key;
  return refused('no_such_key', `${found.length} keys begin with ${JSON.stringify(id)}`, 'give more of the ID');
}

export function isRefused(value: object): value is RefusedOrder {
  return 'kind' in value && value.kind === 'refused';
}
