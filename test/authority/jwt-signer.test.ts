import { decodeJwt, decodeProtectedHeader, jwtVerify, SignJWT } from 'jose';
import test from 'ava';
import { jwtAuthority, newKeyPair } from '../../src/authority/keys.ts';
import { NodeJwtSigner, type JwtKeySource } from '../../src/authority/jwt-signer.ts';
import { parseSpiffeId, parseTrustDomain } from '../../src/spiffe/id.ts';
import type { JwtRequest } from '../../src/spiffe/signing.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { SeededRandom } from '../support/kernel-random.ts';

const MINUTE = 60_000;
const ID = parseSpiffeId('spiffe://example.org/a');
const keys = await newKeyPair('ec-p256');
const { kid } = jwtAuthority(keys.publicKey);
const { signal } = new AbortController();

function setUp(lifeMs = 24 * 60 * MINUTE, issuer?: string): { clock: FakeClock; signer: NodeJwtSigner } {
  const clock = new FakeClock();
  const notAfter = clock.now() + lifeMs;
  const source: JwtKeySource = { ready: async () => undefined, jwtKey: () => ({ ...keys, kid, notAfter }) };
  return { clock, signer: new NodeJwtSigner(source, parseTrustDomain('example.org'), issuer, clock) };
}

function request(more: Partial<JwtRequest> = {}): JwtRequest {
  return { id: ID, audience: ['x'], ttlMs: 5 * MINUTE, ...more };
}

test('JS-01, JS-03, JS-13: a token is three parts without padding, its header has alg, kid and typ, its payload what was asked for', async (t) => {
  const { clock, signer } = setUp();
  const { token, ...signed } = await signer.sign(request({ audience: ['b', 'a'] }), signal);
  t.regex(token, /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}$/);
  const now = clock.now() / 1000;
  t.deepEqual(decodeProtectedHeader(token), { alg: 'ES256', kid, typ: 'JWT' });
  t.deepEqual(decodeJwt(token), { sub: ID, aud: ['b', 'a'], exp: now + 300, iat: now });
  t.deepEqual(signed, { kid, issuedAt: clock.now(), expiresAt: clock.now() + 5 * MINUTE });
  await t.notThrowsAsync(jwtVerify(token, keys.publicKey, { currentDate: new Date(clock.now()) }));
});

test('SP-02: with one bit changed in its payload a token does not verify', async (t) => {
  const { clock, signer } = setUp();
  const { token } = await signer.sign(request(), signal);
  const [header, payload = '', signature] = token.split('.');
  const bytes = Buffer.from(payload, 'base64url');
  bytes.writeUInt8(bytes.readUInt8(12) ^ 1, 12);
  await t.throwsAsync(jwtVerify([header, bytes.toString('base64url'), signature].join('.'), keys.publicKey, { currentDate: new Date(clock.now()) }));
});

test('JS-19: a token does not outlive its key, and an ended key signs nothing', async (t) => {
  const { clock, signer } = setUp(2 * MINUTE);
  t.is((await signer.sign(request(), signal)).expiresAt, clock.now() + 2 * MINUTE);
  clock.advance(2 * MINUTE);
  await t.throwsAsync(signer.sign(request(), signal), { code: 'authority_unavailable' });
});

test('JS-19: times are whole seconds, and a token is never told to live longer than it does', async (t) => {
  const { clock, signer } = setUp();
  clock.advance(999);
  const { token, issuedAt, expiresAt } = await signer.sign(request({ ttlMs: 10_500 }), signal);
  const { iat = 0, exp = 0 } = decodeJwt(token);
  t.true(Number.isInteger(iat) && Number.isInteger(exp));
  t.deepEqual([issuedAt, expiresAt], [iat * 1000, exp * 1000]);
  t.is(exp - iat, 10);
});

test('the issuer stands in the token when there is one', async (t) => {
  t.is(decodeJwt((await setUp(MINUTE, 'https://issuer.test').signer.sign(request(), signal)).token).iss, 'https://issuer.test');
});

for (const [rule, what, more] of [
  ['ID-27', 'a subject of another trust domain', { id: parseSpiffeId('spiffe://partner.test/a') }],
  ['JS-13', 'a subject without a path', { id: parseSpiffeId('spiffe://example.org') }],
  ['JS-14', 'no audience', { audience: [] }],
] as const) {
  test(`${rule}: ${what} is not signed`, async (t) => {
    await t.throwsAsync(setUp().signer.sign(request(more), signal), { code: 'profile_violation' });
  });
}

test('an aborted request is not signed', async (t) => {
  await t.throwsAsync(setUp().signer.sign(request(), AbortSignal.abort(new Error('enough'))), { message: 'enough' });
});

/** Letters that JSON escapes, that UTF-8 writes in several octets, halves of pairs, and what ends a text too soon. */
const AWKWARD = 'ab"\\/\b\f\n\r\t\0\u0001\u001f\u007f\u0080\u2028\u2029é日😀\ud800\udc00\ufeff\uffff{}[],:\'';

test('JS-14: whatever the audiences are, header and claims are the octets that jose writes, and jose verifies the token', async (t) => {
  const dice = new SeededRandom(t.log);
  for (let round = 0; round < 400; round += 1) {
    const issuer = dice.below(2) === 0 ? undefined : `https://${dice.text(AWKWARD, dice.below(10))}`;
    const { clock, signer } = setUp(24 * 60 * MINUTE, issuer);
    const audience = Array.from({ length: 1 + dice.below(4) }, () => dice.text(AWKWARD, 1 + dice.below(30)));
    const { token, issuedAt, expiresAt } = await signer.sign(request({ audience, ttlMs: 1_000 * (1 + dice.below(3_600)) }), signal);
    const claims = { sub: ID, aud: audience, exp: expiresAt / 1000, iat: issuedAt / 1000, ...(issuer === undefined ? {} : { iss: issuer }) };
    const expected = await new SignJWT(claims).setProtectedHeader({ alg: 'ES256', kid, typ: 'JWT' }).sign(keys.privateKey);
    t.deepEqual(token.split('.').slice(0, 2), expected.split('.').slice(0, 2), JSON.stringify(audience));
    const { payload } = await jwtVerify(token, keys.publicKey, { currentDate: new Date(clock.now()), algorithms: ['ES256'] });
    t.is(payload.sub, ID);
  }
});

test('a token names the key that has signed it, also when keys change places', async (t) => {
  const clock = new FakeClock();
  const other = await newKeyPair('ec-p256');
  const both = [{ ...keys, kid, notAfter: clock.now() + 24 * 60 * MINUTE }, { ...other, kid: jwtAuthority(other.publicKey).kid, notAfter: clock.now() + 24 * 60 * MINUTE }] as const;
  let turn = 0;
  const source: JwtKeySource = { ready: async () => undefined, jwtKey: () => both[turn % 2 === 0 ? 0 : 1] };
  const signer = new NodeJwtSigner(source, parseTrustDomain('example.org'), undefined, clock);
  for (; turn < 6; turn += 1) {
    const key = source.jwtKey();
    const { token, kid: told } = await signer.sign(request(), signal);
    t.is(told, key.kid);
    t.is(decodeProtectedHeader(token).kid, key.kid);
    await t.notThrowsAsync(jwtVerify(token, key.publicKey, { currentDate: new Date(clock.now()) }));
  }
});
