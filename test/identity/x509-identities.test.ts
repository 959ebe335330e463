import test from 'ava';
import type { Events } from '../../src/events.ts';
import { renewalOf } from '../../src/identity/renewal.ts';
import { X509Identities, type X509Lease } from '../../src/identity/x509-identities.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { evenRandom, fixedKeys, newEvents, ScriptedSigner, settle, testEntry } from '../support/signers.ts';

const TTL = 1_000_000;

function setUp(capacity = 100) {
  const clock = new FakeClock();
  const signer = new ScriptedSigner(clock);
  const events = newEvents();
  const failures: Events['issuanceFailed'][] = [];
  events.on('issuanceFailed', (fact) => void failures.push(fact));
  const identities = new X509Identities({ keyType: 'ec-p256', ttlMs: TTL, capacity }, { signer, newKeyPair: fixedKeys, clock, random: evenRandom, events });
  const read = (path: string): X509Lease & { changes: number } => {
    const lease = { changes: 0 } as X509Lease & { changes: number };
    return Object.assign(lease, identities.acquire(testEntry(path), () => void (lease.changes += 1)));
  };
  return { clock, signer, failures, identities, read };
}

test('renewal is at half of life from issuance, give or take a tenth', (t) => {
  const at = (fraction: number): number => renewalOf(1_000, 2_000, { ...evenRandom, fraction: () => fraction });
  t.deepEqual([at(0), at(0.5), at(1)], [1_400, 1_500, 1_600]);
});

test('one SVID for all readers of an entry, made once', async (t) => {
  const { signer, read } = setUp();
  const [one, two] = [read('a'), read('a')];
  await settle();
  t.is(signer.count, 1);
  t.is(one.current(), two.current());
  t.deepEqual([one.changes, two.changes], [1, 1]);
});

test('it is renewed at half of life while somebody reads, and told to all', async (t) => {
  const { clock, signer, read } = setUp();
  const reader = read('a');
  await settle();
  clock.advance(TTL / 2 - 1);
  await settle();
  t.is(signer.count, 1);
  clock.advance(1);
  await settle();
  t.is(signer.count, 2);
  t.is(reader.changes, 2);
});

test('without readers it is kept but not renewed; who comes back finds it, and it renews then', async (t) => {
  const { clock, signer, read } = setUp();
  const first = read('a');
  await settle();
  first.release();
  clock.advance(TTL * 0.8);
  await settle();
  t.is(signer.count, 1);
  const again = read('a');
  t.is(again.current()?.serial, '1');
  await settle();
  t.is(again.current()?.serial, '2');
});

test('when signing fails the SVID stays to its last second, and is replaced as soon as signing works', async (t) => {
  const { clock, signer, failures, read } = setUp();
  const reader = read('a');
  await settle();
  signer.isAway = true;
  for (let passed = 0; passed < TTL - 1_000; passed += 1_000) {
    clock.advance(1_000);
    await settle();
    if (passed % 100_000 === 0) t.is(reader.current()?.serial, '1');
  }
  t.is(reader.current()?.serial, '1');
  t.true(failures.length > 5 && failures.length < 40, `${failures.length} attempts: it backs off, to 30 seconds at most`);
  clock.advance(1_000);
  t.is(reader.current(), undefined, 'what has ended is not handed out');
  signer.isAway = false;
  clock.advance(30_000);
  await settle();
  t.is(reader.current()?.serial, '2');
});

test('a new reader neither shortens nor prolongs the wait after a failure', async (t) => {
  const { clock, signer, failures, read } = setUp();
  signer.isAway = true;
  read('a');
  await settle();
  t.is(failures.length, 1);
  const wait = failures[0]?.retryMs ?? 0;
  for (let i = 0; i < 20; i += 1) {
    read('a');
    clock.advance(wait / 25);
    await settle();
  }
  t.is(failures.length, 1);
  clock.advance(wait / 4);
  await settle();
  t.is(failures.length, 2);
});

test('a renewal that would gain less than a tenth of the TTL is not made', async (t) => {
  const { clock, signer, read } = setUp();
  signer.end = clock.now() + TTL;
  const reader = read('a');
  await settle();
  clock.advance(TTL * 0.7);
  await settle();
  t.is(signer.count, 1, 'the CA has the same end as the SVID');
  signer.end = clock.now() + TTL;
  clock.advance(TTL / 20);
  await settle();
  t.is(reader.current()?.serial, '2', 'the next CA is used soon');
});

test('when the clock goes back, what is not valid yet is replaced at once', async (t) => {
  const { clock, read } = setUp();
  const reader = read('a');
  await settle();
  clock.step(-30_000);
  await settle();
  t.is(reader.current()?.serial, '1', 'it is back-dated by a minute');
  clock.step(-60_000);
  await settle();
  t.is(reader.current()?.serial, '2');
});

test('when the clock goes forward, what has ended is replaced at once', async (t) => {
  const { clock, read } = setUp();
  const reader = read('a');
  await settle();
  clock.step(TTL * 3);
  await settle();
  t.is(reader.current()?.serial, '2');
});

test('above the capacity those without readers go, the longest unused first; never one that is read', async (t) => {
  const { signer, identities, read } = setUp(2);
  const kept = read('read');
  const [a, b] = [read('a'), read('b')];
  await settle();
  t.is(identities.size, 3, 'all are read');
  a.release();
  b.release();
  const c = read('c');
  await settle();
  t.is(identities.size, 2);
  t.is(kept.current()?.serial, '1');
  t.truthy(c.current());
  const before = signer.count;
  read('a');
  await settle();
  t.is(signer.count, before + 1, 'a was evicted and is made anew');
});

test('what stands in the certificate makes another identity of the same entry', async (t) => {
  const { signer, identities } = setUp();
  identities.acquire(testEntry('a'), () => undefined);
  identities.acquire(testEntry('a', { dnsNames: ['web'] }), () => undefined);
  identities.acquire(testEntry('a', { x509TtlMs: 5_000 }), () => undefined);
  identities.acquire(testEntry('a', { hint: 'only told beside it' }), () => undefined);
  await settle();
  t.is(signer.count, 3);
});
