import type { Clock } from '../clock.ts';
import { newJwtSigningKey, type JwtSigningKey } from './jwt-signing-key.ts';
import { KeyOrders, RingOrders } from './key-orders.ts';
import { NodeCaOrders, type NodeCaOwner } from './node-ca-orders.ts';
import type { NodeKeys } from './node-keys.ts';
import type { NodeState } from './node-state.ts';
import { REPLACED_WITHIN_MS } from './orders.ts';

/** A CA on the node, as orders see and change it. */
export interface NodeOwner extends Pick<NodeCaOwner, 'overlapMs' | 'ask' | 'keep'> {
  readonly clock: Clock;
  /** Life of the JWT keys, in milliseconds. */
  readonly ttlMs: number;
  readonly keys: NodeKeys;
  /** Takes these over, without waiting for anything, and has done what becomes due by it. */
  adopt(part: Partial<NodeState>): void;
}

/** The rotation by hand of a CA on the node and of its JWT keys. */
export function ordersOf(owner: NodeOwner): KeyOrders {
  const { clock, ttlMs, keys, overlapMs } = owner;
  const keep = (): Promise<void> => owner.keep();
  const x509 = new NodeCaOrders({
    clock,
    overlapMs,
    cas: () => keys.state.cas,
    roots: () => keys.state.roots,
    active: () => keys.ca,
    ask: (signal) => owner.ask(signal),
    adopt: (cas) => owner.adopt({ cas }),
    keep,
    replace: () => orders.tellTaint({ kind: 'x509', withinMs: REPLACED_WITHIN_MS }),
  });
  const jwt = new RingOrders<JwtSigningKey>({
    ring: () => keys.jwtRing(ttlMs),
    make: () => newJwtSigningKey(clock.now(), ttlMs, true),
    adopt: (all) => owner.adopt({ jwt: all }),
    keep,
    replace: ({ kid }) => orders.tellTaint({ kind: 'jwt', kid }),
  });
  const orders = new KeyOrders({ x509, jwt }, () => x509.roots());
  return orders;
}
