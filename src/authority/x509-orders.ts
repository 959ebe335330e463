import { findKey, isRefused, refused, type AuthorityOrders, type KeyOrder, type KindOrder, type OrderResult, type RefusedOrder } from './orders.ts';

const ELSEWHERE: RefusedOrder = refused('not_now', 'tokens are signed above this agent, not with a key of its own', 'rotate the key where it is: the agent follows');

/**
 * The orders of `own` for an authority whose tokens are signed elsewhere. Its own token keys sign nothing then and are in no bundle:
 * they are not shown, and an order about one is refused as `not_now` (by its kind) or `no_such_key` (by its ID).
 */
export function x509OrdersOf(own: AuthorityOrders): AuthorityOrders {
  const keys = () => own.keys().filter(({ kind }) => kind === 'x509');
  const byKind = (order: KindOrder, obey: (order: KindOrder) => Promise<OrderResult>): Promise<OrderResult> => (order.kind === 'jwt' ? Promise.resolve(ELSEWHERE) : obey(order));
  const byKey = (order: KeyOrder, obey: (order: KeyOrder) => Promise<OrderResult>): Promise<OrderResult> => {
    const key = findKey(keys(), order.id);
    return isRefused(key) ? Promise.resolve(key) : obey({ ...order, id: key.id });
  };
  return {
    keys,
    roots: () => own.roots(),
    prepare: (order) => byKind(order, (it) => own.prepare(it)),
    activate: (order) => byKind(order, (it) => own.activate(it)),
    taint: (order) => byKey(order, (it) => own.taint(it)),
    revoke: (order) => byKey(order, (it) => own.revoke(it)),
    onTaint: (listener) => own.onTaint((taint) => void (taint.kind === 'x509' && listener(taint))),
  };
}
