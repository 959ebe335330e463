import test from 'ava';
import { decodeProtectedHeader } from 'jose';
import { NodeJwtSigner } from '../../src/authority/jwt-signer.ts';
import { SignetError } from '../../src/errors.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import { PublishedJwtKeys, type JwtSigningKeys } from '../../src/trust/published-jwt-keys.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { DAY, exampleOrg, jwtKey, NOW, type OwnJwtKey } from '../support/node-key-sets.ts';

const HOUR = 3_600_000;
const [old, now, next] = [await jwtKey(NOW + HOUR, NOW - 2 * HOUR), await jwtKey(NOW + DAY, NOW), await jwtKey(NOW + 2 * DAY, NOW + HOUR)];

function setUp(keys: readonly (OwnJwtKey & { readonly taintedAt?: number })[], active: OwnJwtKey | undefined) {
  const clock = new FakeClock(NOW);
  const published = new Set<string>();
  const asked: string[] = [];
  const gate = Promise.withResolvers<void>();
  const source: JwtSigningKeys<OwnJwtKey> = {
    ready: () => Promise.resolve(),
    jwtKeys: () => keys,
    jwtKey: () => {
      if (active === undefined) throw new SignetError('authority_unavailable', 'there is no JWT key');
      return active;
    },
  };
  const publication = {
    isPublished: (kid: string) => published.has(kid),
    isReady: (kid: string) => published.has(kid),
    ready: (kid: string) => (asked.push(kid), gate.promise),
  };
  const signing = new PublishedJwtKeys(source, publication, clock);
  const signer = new NodeJwtSigner(signing, exampleOrg, undefined, clock);
  const sign = async (): Promise<string | undefined> => {
    const request = { id: parseSpiffeId('spiffe://example.org/a'), audience: ['x'], ttlMs: 300_000 };
    const { token } = await signer.sign(request, new AbortController().signal);
    return decodeProtectedHeader(token).kid;
  };
  return { clock, published, asked, open: gate.resolve, signing, sign };
}

test('a published key signs, and nobody waits', async (t) => {
  const { published, asked, sign } = setUp([old, now, next], now);
  published.add(now.kid).add(old.kid);
  t.is(await sign(), now.kid);
  t.deepEqual(asked, []);
});

test('FED-03: until a new key is published the newest published one before it signs, and nobody waits', async (t) => {
  const { published, asked, sign, clock } = setUp([old, now, next], next);
  clock.advance(HOUR - 60_000);
  published.add(old.kid).add(now.kid);
  t.is(await sign(), now.kid);
  t.deepEqual(asked, []);
  published.delete(now.kid);
  t.is(await sign(), old.kid);
});

test('a tainted key does not stand in', async (t) => {
  const { published, asked, open, sign } = setUp([{ ...old, taintedAt: NOW }, now], now);
  published.add(old.kid);
  open();
  t.is(await sign(), now.kid);
  t.deepEqual(asked, [now.kid]);
});

test('a key that has not begun, or that is about to end, does not stand in', async (t) => {
  const { published, asked, open, sign, clock } = setUp([old, now, next], now);
  published.add(old.kid).add(next.kid);
  clock.advance(HOUR - 9_000);
  open();
  t.is(await sign(), now.kid);
  t.deepEqual(asked, [now.kid]);
});

test('the very first key is waited for', async (t) => {
  const { asked, open, sign } = setUp([now], now);
  const signed = sign();
  await new Promise((resolve) => setImmediate(resolve));
  t.deepEqual(asked, [now.kid]);
  open();
  t.is(await signed, now.kid);
});

test('without any key it is said why', async (t) => {
  const { sign, signing } = setUp([], undefined);
  await t.notThrowsAsync(signing.ready());
  await t.throwsAsync(sign(), { message: 'there is no JWT key' });
});
