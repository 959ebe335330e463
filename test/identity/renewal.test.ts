import test from 'ava';
import { backoffOf, isWorthRenewing, renewalOf } from '../../src/identity/renewal.ts';
import { X509Identities } from '../../src/identity/x509-identities.ts';
import type { Random } from '../../src/random.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { fixedKeys, newEvents, ScriptedSigner, settle, testEntry } from '../support/signers.ts';

const drawing = (fraction: number): Random => ({ bytes: (count) => Buffer.alloc(count), fraction: () => fraction });

test('renewal is half of life after issuance, at most a tenth of life earlier or later', (t) => {
  const at = [0, 0.25, 0.5, 0.75, 1].map((fraction) => renewalOf(5_000, 6_000, drawing(fraction)));
  t.deepEqual(at, [5_400, 5_450, 5_500, 5_550, 5_600]);
});

test('a renewal is worth it from a gain of a tenth of the TTL on, and no further than the issuer lives', (t) => {
  t.true(isWorthRenewing(1_000, 100, 1_000, Infinity));
  t.false(isWorthRenewing(1_000, 99, 1_000, Infinity));
  t.true(isWorthRenewing(1_000, 900, 1_000, 1_100));
  t.false(isWorthRenewing(1_000, 900, 1_000, 1_099));
});

test('the wait doubles from half a second to half a minute, and a quarter of it is drawn', (t) => {
  const waits = (fraction: number): number[] => [1, 2, 3, 4, 5, 6, 7, 8, 1_000].map((failures) => backoffOf(failures, drawing(fraction)));
  const full = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000];
  t.deepEqual(waits(1), full);
  t.deepEqual(waits(0), full.map((wait) => wait * 0.75));
});

test('the jitter is drawn once for an SVID, however many readers come', async (t) => {
  const clock = new FakeClock();
  const signer = new ScriptedSigner(clock);
  let draws = 0;
  const random: Random = { ...drawing(0), fraction: () => ((draws += 1), 0.5) };
  const identities = new X509Identities({ keyType: 'ec-p256', ttlMs: 1_000_000, capacity: 10 }, { signer, newKeyPair: fixedKeys, clock, random, events: newEvents() });
  for (let reader = 0; reader < 20; reader += 1) {
    identities.acquire(testEntry('a'), () => undefined);
    await settle();
    clock.advance(1_000);
  }
  t.is(draws, 1);
  clock.advance(480_000);
  await settle();
  t.deepEqual([signer.count, draws], [2, 2]);
});
