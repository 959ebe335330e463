import test from 'ava';
import { X509Identities } from '../../src/identity/x509-identities.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { evenRandom, fixedKeys, newEvents, ScriptedSigner, settle, testEntry } from '../support/signers.ts';
import { observe } from './observed.ts';
import { scrape } from './scrape.ts';

const MINUTE = 60_000;

test('only an SVID that somebody reads counts, from its issuance and not from its back-dated beginning', async (t) => {
  const clock = new FakeClock();
  const tools = { signer: new ScriptedSigner(clock), newKeyPair: fixedKeys, clock, random: evenRandom, events: newEvents() };
  const identities = new X509Identities({ keyType: 'ec-p256', ttlMs: 10 * MINUTE, capacity: 10 }, tools);
  t.teardown(() => identities.close());
  const { telemetry, address } = await observe((_, time) => {
    // The clock of the scrape is the one that the identities have.
    time.now = () => clock.now();
    return { identities: () => ({ x509: identities.size, jwt: 0, lives: identities.lives() }) };
  });
  t.teardown(() => telemetry.close());
  const figures = async (): Promise<(number | undefined)[]> => {
    const scraped = await scrape(address);
    return ['signet_identities{kind="x509"}', 'signet_x509_svid_soonest_expiry_seconds', 'signet_x509_svid_least_life_left_ratio'].map((name) => scraped.of(name));
  };
  t.deepEqual(await figures(), [0, undefined, undefined]);
  const lease = identities.acquire(testEntry('a'), () => undefined);
  await settle();
  clock.advance(4 * MINUTE);
  t.deepEqual(await figures(), [1, 360, 0.6]);
  // Renewed at half of its life.
  clock.advance(MINUTE);
  await settle();
  t.deepEqual(await figures(), [1, 600, 1]);
  tools.signer.isAway = true;
  clock.advance(8 * MINUTE);
  await settle();
  t.deepEqual(await figures(), [1, 120, 0.2]);
  lease.release();
  t.deepEqual(await figures(), [1, undefined, undefined]);
});
