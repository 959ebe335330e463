import test, { type ExecutionContext } from 'ava';
import { EmbeddedAuthority } from '../../src/authority/embedded.ts';
import type { AuthorityOrders, Taint } from '../../src/authority/orders.ts';
import { x509OrdersOf } from '../../src/authority/x509-orders.ts';
import { EventBus } from '../../src/events.ts';
import { systemRandom } from '../../src/random.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { temporaryDirectory } from '../support/kernel-processes.ts';
import { trustDomain } from '../support/node-authorities.ts';

async function open(t: ExecutionContext): Promise<{ own: AuthorityOrders; orders: AuthorityOrders }> {
  const tools = { clock: new FakeClock(), random: systemRandom, events: new EventBus() };
  const authority = await EmbeddedAuthority.open({ trustDomain, dataDir: temporaryDirectory(t), ttlMs: 86_400_000 }, tools);
  t.teardown(() => authority.close());
  return { own: authority.orders, orders: x509OrdersOf(authority.orders) };
}

test('keys for tokens are not shown, and orders of their kind change nothing', async (t) => {
  const { own, orders } = await open(t);
  const before = own.keys();
  t.deepEqual(orders.keys(), before.filter(({ kind }) => kind === 'x509'));
  for (const order of [orders.prepare({ kind: 'jwt' }), orders.activate({ kind: 'jwt', force: true })]) {
    t.like(await order, { kind: 'refused', code: 'not_now', why: 'tokens are signed above this agent, not with a key of its own' });
  }
  t.deepEqual(own.keys(), before);
});

test('a key for tokens is no key by its ID either, even by force', async (t) => {
  const { own, orders } = await open(t);
  const before = own.keys();
  const id = before.find(({ kind }) => kind === 'jwt')?.id ?? '';
  t.not(id, '');
  for (const order of [orders.taint({ id, force: true }), orders.revoke({ id })]) t.like(await order, { kind: 'refused', code: 'no_such_key' });
  t.deepEqual(own.keys(), before);
});

test('orders about the CA are obeyed, and only taints of it are told', async (t) => {
  const { own, orders } = await open(t);
  const told: Taint[] = [];
  const stop = orders.onTaint((taint) => void told.push(taint));
  t.is((await orders.prepare({ kind: 'x509' })).kind, 'done');
  t.is((await orders.activate({ kind: 'x509', force: true })).kind, 'done');
  const old = orders.keys().find(({ state }) => state === 'old')?.id ?? '';
  t.is((await orders.taint({ id: old.slice(0, 12), force: true })).kind, 'done');
  t.deepEqual(told.map(({ kind }) => kind), ['x509']);
  const token = own.keys().find(({ kind }) => kind === 'jwt')?.id ?? '';
  await own.taint({ id: token, force: true });
  t.is(told.length, 1);
  stop();
});
