import test from 'ava';
import { EventBus, type Events } from '../../src/events.ts';
import type { TrustBundle } from '../../src/spiffe/bundle.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { TrustStore } from '../../src/trust/trust-store.ts';

const bundle = (...roots: string[]): TrustBundle => ({ trustDomain: parseTrustDomain('example.org'), x509Authorities: roots.map((root) => Buffer.from(root)), jwtAuthorities: [] });

function setUp() {
  const listeners = new Set<(next: TrustBundle) => void>();
  const source = { current: () => bundle('1'), onChange: (listener: (next: TrustBundle) => void) => (listeners.add(listener), () => void listeners.delete(listener)) };
  const events = new EventBus();
  const facts: Events['bundleChanged'][] = [];
  events.on('bundleChanged', (fact) => void facts.push(fact));
  return { store: new TrustStore(source, events), facts, become: (next: TrustBundle) => listeners.forEach((listener) => listener(next)) };
}

test('TD-02, FED-12: the bundle is that of the trust domain asked for, and of another one nothing is believed', (t) => {
  const { store } = setUp();
  t.is(store.bundleOf(parseTrustDomain('example.org')), store.own());
  for (const name of ['partner.test', 'example.org.', 'a.example.org']) t.is(store.bundleOf(parseTrustDomain(name)), undefined, name);
});

test('a change is told after it counts, with what there is then', (t) => {
  const { store, facts, become } = setUp();
  const seen: number[] = [];
  const stop = store.onChange(() => seen.push(store.own().x509Authorities.length));
  become(bundle('1', '2'));
  t.deepEqual(seen, [2]);
  t.deepEqual(facts, [{ trustDomain: 'example.org', x509Authorities: 2, jwtAuthorities: 0 }]);
  stop();
  become(bundle('2'));
  t.deepEqual(seen, [2]);
});

test('a store that was closed keeps what it has', (t) => {
  const { store, become } = setUp();
  store.close();
  become(bundle('1', '2'));
  t.is(store.own().x509Authorities.length, 1);
});
