import test from 'ava';
import { EventBus } from '../../src/events.ts';
import { JwtIdentities } from '../../src/identity/jwt-identities.ts';
import { X509Identities } from '../../src/identity/x509-identities.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { until } from '../support/kernel-processes.ts';
import { entry } from './filled-source.ts';
import { newEncodedKeyPair } from '../../src/authority/keys.ts';

const HERE = entry('spiffe://example.org/here', ['unix:uid:1']);
const OTHER = entry('spiffe://example.org/other', ['unix:uid:1']);
const HOUR = 3_600_000;

function x509(clock: FakeClock): X509Identities {
  const sign = async () => ({ chain: [], serial: 'abc', notBefore: clock.now(), notAfter: clock.now() + HOUR });
  const random = { bytes: (count: number) => Buffer.alloc(count), fraction: () => 0.5 };
  const options = { keyType: 'ec-p256', ttlMs: HOUR, capacity: 10 } as const;
  return new X509Identities(options, {
    signer: { sign, horizon: () => Infinity },
    newKeyPair: newEncodedKeyPair,
    clock,
    random,
    events: new EventBus(),
  });
}

test('an X.509 identity is described without its key, and asking changes nothing', async (t) => {
  const clock = new FakeClock();
  const identities = x509(clock);
  t.teardown(() => identities.close());
  t.is(identities.describe(HERE), undefined);
  t.is(identities.size, 0);
  const lease = identities.acquire(HERE, () => undefined);
  await until(() => lease.current() !== undefined, 'the SVID is made');
  const now = clock.now();
  const svid = { serial: 'abc', notBefore: now, notAfter: now + HOUR };
  t.deepEqual(identities.describe(HERE), { id: HERE.id, svid, renewAt: now + HOUR / 2, readers: 1, failures: 0 });
  t.is(identities.describe(OTHER), undefined);
  lease.release();
  t.deepEqual(identities.describe(HERE), { id: HERE.id, svid, renewAt: undefined, readers: 0, failures: 0 });
  clock.advance(HOUR);
  t.like(identities.describe(HERE), { svid: undefined });
  t.deepEqual(
    identities.describeAll().map(({ id }) => id),
    [HERE.id],
  );
});

test('the tokens of an identity are counted while they are valid', async (t) => {
  const clock = new FakeClock();
  const sign = async ({ audience }: { audience: readonly string[] }) => ({
    token: 'secret',
    kid: 'k',
    issuedAt: clock.now(),
    expiresAt: clock.now() + (audience.length === 1 ? HOUR : 2 * HOUR),
  });
  const random = { bytes: (count: number) => Buffer.alloc(count), fraction: () => 0.5 };
  const identities = new JwtIdentities(
    { ttlMs: HOUR, perIdentity: 4, identities: 4 },
    { signer: { sign }, clock, random, events: new EventBus() },
  );
  t.teardown(() => identities.close());
  t.deepEqual(identities.describe(HERE), { tokens: 0, soonestExpiry: undefined });
  const now = clock.now();
  await identities.fetch(HERE, ['a', 'b']);
  await identities.fetch(HERE, ['a']);
  await identities.fetch(OTHER, ['a', 'b']);
  t.deepEqual(identities.describe(HERE), { tokens: 2, soonestExpiry: now + HOUR });
  t.deepEqual(identities.describeAll(), { tokens: 3, soonestExpiry: now + HOUR });
  clock.advance(HOUR);
  t.deepEqual(identities.describe(HERE), { tokens: 1, soonestExpiry: now + 2 * HOUR });
  t.false(JSON.stringify(identities.describeAll()).includes('secret'));
});
