import test from 'ava';
import { SignJWT } from 'jose';
import { EventBus } from '../../src/events.ts';
import { validateJwt, UnknownKeyError } from '../../src/trust/jwt-validation.ts';
import { TrustStore } from '../../src/trust/trust-store.ts';
import { UnknownKeyWaits } from '../../src/trust/unknown-key-waits.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { jwtKey, NOW } from '../support/node-key-sets.ts';
import { turn } from '../registration/status/memory-api.ts';
import { OwnBundle } from './nodes.ts';

const [own, other] = [await jwtKey(), await jwtKey()];
const SECONDS = NOW / 1000;
const CLAIMS = { sub: 'spiffe://example.org/a', aud: ['x'], exp: SECONDS + 300 };

function setUp(options = {}) {
  const [clock, source] = [new FakeClock(NOW), new OwnBundle([], [own])];
  const trust = new TrustStore(source, new EventBus());
  const waits = new UnknownKeyWaits(trust, clock, options);
  const validate = (token: string, audience = 'x') => validateJwt(token, audience, (name) => trust.bundleOf(name), clock.now());
  return { clock, source, trust, waits, validate, learn: () => source.become({ jwtAuthorities: [own, other] }) };
}

function sign(claims: object = CLAIMS, kid: string | undefined = other.kid): Promise<string> {
  return new SignJWT({ ...claims }).setProtectedHeader({ alg: 'ES256', ...(kid === undefined ? {} : { kid }) }).sign(other.privateKey);
}

test('whoever can ask for keys is told of each token that waits, and of no other', (t) => {
  let asked = 0;
  const { waits } = setUp({ onWait: () => void (asked += 1), perOwner: 1 });
  void waits.wait(other.kid, 'uid:1');
  t.is(waits.wait(other.kid, 'uid:1'), undefined);
  t.is(asked, 1);
});

test('a token whose key is on its way waits for it and is valid then', async (t) => {
  const { waits, validate, learn } = setUp();
  const token = await sign();
  const error = t.throws(() => validate(token), { instanceOf: UnknownKeyError, code: 'invalid_token', message: /^JS-23/ });
  t.is(error?.kid, other.kid);
  const waiting = waits.wait(other.kid, 'uid:1');
  t.is(waits.size, 1);
  learn();
  t.true(await waiting);
  t.is(waits.size, 0);
  t.is(String(validate(token).id), 'spiffe://example.org/a');
});

test('a key that never comes is waited for two seconds, whatever else changes', async (t) => {
  const { waits, clock, source } = setUp();
  let known: boolean | undefined;
  void waits.wait('never', 'uid:1')?.then((is) => (known = is));
  source.become({ jwtAuthorities: [] });
  clock.advance(1_999);
  await turn();
  t.is(known, undefined);
  clock.advance(1);
  await turn();
  t.is(known, false);
  t.is(clock.pending, 0);
});

test('a key that came in between is not waited for', async (t) => {
  const { waits, learn, clock } = setUp();
  learn();
  t.true(await waits.wait(other.kid, 'uid:1'));
  t.is(clock.pending, 0);
});

test('one owner holds four, and all together sixty-four; who has waited makes room', async (t) => {
  const { waits, clock } = setUp();
  const first = Array.from({ length: 4 }, (_, index) => waits.wait(`k${index}`, 'uid:1'));
  t.is(waits.wait('k4', 'uid:1'), undefined);
  for (let owner = 2; owner <= 16; owner++) for (let index = 0; index < 4; index++) t.truthy(waits.wait('k', `uid:${owner}`));
  t.is(waits.size, 64);
  t.is(waits.wait('k', 'uid:99'), undefined);
  clock.advance(2_000);
  t.deepEqual(await Promise.all(first), [false, false, false, false]);
  t.is(waits.size, 0);
  t.truthy(waits.wait('k', 'uid:1'));
  waits.close();
});

test('after closing nobody waits', async (t) => {
  const { waits } = setUp();
  const waiting = waits.wait('k', 'uid:1');
  waits.close();
  t.false(await waiting);
  t.is(waits.wait('k', 'uid:1'), undefined);
});

test('JS-16, JS-21, JS-35, ID-26: a token that no key could make valid is refused at once', async (t) => {
  const { validate } = setUp();
  const refused: readonly (readonly [string, string])[] = [
    [await sign({ ...CLAIMS, exp: SECONDS - 5 }), 'x'],
    [await sign({ ...CLAIMS, nbf: SECONDS + 60 }), 'x'],
    [await sign(), 'y'],
    [await sign(CLAIMS, own.kid), 'x'],
    [await sign({ ...CLAIMS, sub: 'spiffe://other.org/a' }), 'x'],
    [await new SignJWT({ ...CLAIMS }).setProtectedHeader({ alg: 'ES256' }).sign(other.privateKey), 'x'],
  ];
  for (const [token, audience] of refused) {
    const error = t.throws(() => validate(token, audience));
    t.false(error instanceof UnknownKeyError, error?.message);
  }
});
