import test from 'ava';
import { JwtIdentities } from '../../src/identity/jwt-identities.ts';
import type { JwtRequest, JwtSigner, SignedJwt } from '../../src/spiffe/signing.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { evenRandom, newEvents, settle, testEntry } from '../support/signers.ts';

const TTL = 300_000;

/** Signs with the key that a test names. */
class KeyedSigner implements JwtSigner {
  readonly #clock: FakeClock;
  kid = 'old';
  count = 0;
  gate: Promise<void> = Promise.resolve();

  constructor(clock: FakeClock) {
    this.#clock = clock;
  }

  async sign({ ttlMs }: JwtRequest): Promise<SignedJwt> {
    const { kid } = this;
    this.count += 1;
    const token = `${kid} ${this.count}`;
    await this.gate;
    return { token, kid, issuedAt: this.#clock.now(), expiresAt: this.#clock.now() + ttlMs };
  }
}

function setUp() {
  const clock = new FakeClock();
  const signer = new KeyedSigner(clock);
  const jwt = new JwtIdentities({ ttlMs: TTL, perIdentity: 10, identities: 10 }, { signer, clock, random: evenRandom, events: newEvents() });
  const fetch = async (path: string, ...audience: string[]): Promise<string> => (await jwt.fetch(testEntry(path), audience)).token;
  return { clock, signer, jwt, fetch };
}

test('tokens of a tainted key are not answered any more, those of others are', async (t) => {
  const { signer, jwt, fetch } = setUp();
  t.deepEqual([await fetch('a', 'x'), await fetch('a', 'y')], ['old 1', 'old 2']);
  signer.kid = 'new';
  t.is(await fetch('b', 'x'), 'new 3');
  jwt.dropSignedBy('old');
  t.is(jwt.describeAll().tokens, 1);
  t.deepEqual([await fetch('a', 'x'), await fetch('a', 'y'), await fetch('b', 'x')], ['new 4', 'new 5', 'new 3']);
});

test('a token that a key was making when it was tainted is made again by the one that follows', async (t) => {
  const { signer, jwt, fetch } = setUp();
  const open = Promise.withResolvers<void>();
  signer.gate = open.promise;
  const asked = fetch('a', 'x');
  await settle();
  signer.kid = 'new';
  jwt.dropSignedBy('old');
  open.resolve();
  t.is(await asked, 'new 2');
  t.is(await fetch('a', 'x'), 'new 2', 'it is the one that is kept');
});

test('a renewal that was under way when the key was tainted does not bring its token back', async (t) => {
  const { clock, signer, jwt, fetch } = setUp();
  await fetch('a', 'x');
  clock.advance(TTL / 2);
  const open = Promise.withResolvers<void>();
  signer.gate = open.promise;
  t.is(await fetch('a', 'x'), 'old 1', 'it is renewed behind the answer');
  signer.kid = 'new';
  jwt.dropSignedBy('old');
  const asked = fetch('a', 'x');
  open.resolve();
  t.is(await asked, 'new 3');
  t.is(signer.count, 3);
});

test('a signer that still signs with a tainted key is not believed', async (t) => {
  const { jwt, fetch } = setUp();
  jwt.dropSignedBy('old');
  await t.throwsAsync(fetch('a', 'x'), { code: 'authority_unavailable', message: /not to be relied on/ });
  t.is(jwt.describeAll().tokens, 0);
});
