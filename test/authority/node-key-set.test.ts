import { generateKeyPairSync } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { compactVerify, importX509 } from 'jose';
import { LARGEST_KEY_SET, signNodeKeys, verifyNodeKeys } from '../../src/authority/node-key-set.ts';
import { jwtAuthority, newKeyPair } from '../../src/authority/keys.ts';
import { NodeX509Signer } from '../../src/authority/x509-signer.ts';
import { issuerFrom, spkiOf } from '../../src/authority/certificate.ts';
import { SignetError } from '../../src/errors.ts';
import { systemRandom } from '../../src/random.ts';
import { parseSpiffeId, parseTrustDomain } from '../../src/spiffe/id.ts';
import { readJwt } from '../../src/spiffe/jwt.ts';
import { certificatePem, testCa, type TestCa } from '../support/authorities.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { DAY, exampleOrg, jwtKey, keySet, nodeCa, NOW, partsOf, rawJws, signedSet } from '../support/node-key-sets.ts';

const root = await testCa({ name: 'CN=root' });
const middle = await testCa({ name: 'CN=middle', parent: root });
const ca = await nodeCa(middle, { name: 'CN=node' });
const [one, two] = [await jwtKey(), await jwtKey(NOW + DAY / 2)];
const good = signedSet(ca, keySet([one, two]), [middle]);
const trust = { roots: [root.certificate], trustDomain: exampleOrg };

function refuses(t: ExecutionContext, jws: string, message: RegExp, now = NOW, believed = trust): void {
  const error = t.throws(() => verifyNodeKeys(jws, believed, now), { instanceOf: SignetError, message }, message.source);
  t.is((error as SignetError | undefined)?.code, 'profile_violation');
}

/** The good set with another payload or header, signed by `by`. */
function changed(change: { header?: Record<string, unknown>; payload?: Record<string, unknown> }, by: TestCa = ca): string {
  const { header, payload } = partsOf(good);
  return rawJws(by.privateKey, { ...header, ...change.header }, { ...payload, ...change.payload });
}

const keysOf = (jws: string): Record<string, unknown>[] => partsOf(jws).payload['keys'] as Record<string, unknown>[];

test('a set is what was signed, with the root that verified it and the first end above it', (t) => {
  const set = verifyNodeKeys(good, trust, NOW);
  t.like(set, { trustDomain: 'example.org', node: 'node-a', instance: '0123456789ab', issuedAt: NOW, expiresAt: NOW + DAY, chainNotAfter: NOW + DAY });
  t.deepEqual(set.keys.map(({ kid, notAfter }) => [kid, notAfter]), [[one.kid, NOW + DAY], [two.kid, NOW + DAY / 2]]);
  t.true(set.root.equals(root.certificate));
  t.true(set.keys[0]?.publicKey.equals(one.publicKey));
});

for (const keyType of ['ec-p256', 'ec-p384', 'rsa-2048'] as const) {
  test(`a set of a node CA with a key ${keyType} verifies here and with another library`, async (t) => {
    const other = await nodeCa(root, { keyType });
    const jws = signedSet(other, keySet([one]));
    t.is(verifyNodeKeys(jws, trust, NOW).keys.length, 1);
    const { alg } = partsOf(jws).header as { alg: string };
    const verified = await compactVerify(jws, await importX509(certificatePem(other.certificate), alg));
    t.is(verified.protectedHeader.typ, 'signet-node-keys+jws');
  });
}

test('what is published holds no private member, and every key says what it is for', (t) => {
  for (const key of keysOf(good)) t.deepEqual(Object.keys(key).sort(), ['crv', 'exp', 'kid', 'kty', 'use', 'x', 'y']);
  t.deepEqual(keysOf(good).map(({ use }) => use), ['jwt-svid', 'jwt-svid']);
  t.is((partsOf(good).header['x5c'] as string[]).length, 2);
});

test('JS-03, JS-10: a set is never a JWT-SVID', (t) => {
  t.throws(() => readJwt(good), { message: /^JS-/ });
});

test('a set of a node CA under a foreign root is refused, also one with the same name', async (t) => {
  const foreign = await testCa({ name: 'CN=root' });
  refuses(t, signedSet(await nodeCa(foreign), keySet([one])), /no root that is given verifies it/);
  const withIt = rawJws(foreign.privateKey, { ...partsOf(good).header, x5c: [foreign.certificate.toString('base64')] }, partsOf(good).payload);
  refuses(t, withIt, /root that is not among those that are believed/);
});

test('a set that a root has signed itself is refused', async (t) => {
  const marked = await testCa({ uris: ['spiffe://example.org'] });
  refuses(t, signedSet(marked, keySet([one])), /a root has signed it, and not a node CA/, NOW, { ...trust, roots: [marked.certificate] });
});

test('a set is refused once its node CA, or one above it, has ended, and before it begins', async (t) => {
  refuses(t, good, /it has expired at/, NOW + DAY);
  const short = await testCa({ parent: root, to: NOW + 1_000 });
  const under = signedSet(await nodeCa(short), keySet([one]), [short]);
  t.is(verifyNodeKeys(under, trust, NOW).chainNotAfter, NOW + 1_000);
  refuses(t, under, /above it stands/, NOW + 1_000);
  refuses(t, signedSet(await nodeCa(root, { from: NOW + 1_000 }), keySet([one])), /not valid before/);
});

test('the key of a leaf, and of any certificate that is no CA, signs no set', async (t) => {
  const keys = await newKeyPair('ec-p256');
  const issuer = issuerFrom(ca.certificate, ca);
  const source = { ready: () => Promise.resolve(), issuer: () => issuer, intermediates: () => [ca.certificate, middle.certificate] };
  const signer = new NodeX509Signer(source, exampleOrg, new FakeClock(NOW), systemRandom);
  const id = parseSpiffeId('spiffe://example.org/workload');
  const { chain } = await signer.sign({ id, publicKey: spkiOf(keys.publicKey), ttlMs: 3_600_000, dnsNames: [], csr: () => Promise.reject(new Error('nobody asks')) }, new AbortController().signal);
  refuses(t, signNodeKeys(keys, chain, keySet([one])), /it is not a CA/);
  const isNoCa = await nodeCa(root, { ca: false });
  refuses(t, signedSet(isNoCa, keySet([one])), /it is not a CA/);
  refuses(t, signedSet(await nodeCa(root, { uses: 0x80 }), keySet([one])), /lacks the key usage keyCertSign/);
});

test('a CA without the trust domain\'s ID, with another one, or with two is no node CA', async (t) => {
  refuses(t, signedSet(middle, keySet([one])), /it is no node CA/);
  refuses(t, signedSet(await nodeCa(root, { uris: ['spiffe://other.org'] }), keySet([one])), /its SPIFFE ID is spiffe:\/\/other\.org/);
  refuses(t, signedSet(await nodeCa(root, { uris: ['spiffe://example.org', 'https://a'] }), keySet([one])), /it is no node CA/);
});

test('a set of another trust domain is refused', (t) => {
  const other = parseTrustDomain('other.org');
  refuses(t, signedSet(ca, keySet([one], { trustDomain: other }), [middle]), /of the trust domain "other\.org" and not of example\.org/);
  refuses(t, good, /its SPIFFE ID is spiffe:\/\/example\.org and not spiffe:\/\/other\.org/, NOW, { ...trust, trustDomain: other });
});

test('a set from the future or past its last key is refused', (t) => {
  t.notThrows(() => verifyNodeKeys(signedSet(ca, keySet([one], { issuedAt: NOW + 300_000 }), [middle]), trust, NOW));
  refuses(t, signedSet(ca, keySet([one], { issuedAt: NOW + 301_000 }), [middle]), /in the future/);
  refuses(t, signedSet(ca, keySet([{ ...one, notAfter: NOW + 5_000 }]), [middle]), /it has expired at/, NOW + 5_000);
  refuses(t, changed({ payload: { exp: (NOW + 10 * DAY) / 1000 } }), /and its last key at/);
});

test('a key under the kid of another one is refused, and so is one that comes twice', (t) => {
  const [first = {}, second = {}] = keysOf(good);
  refuses(t, changed({ payload: { keys: [{ ...first, kid: second['kid'] }, second] } }), /is not the RFC 7638 thumbprint of its key/);
  refuses(t, changed({ payload: { keys: [first, first] } }), /it has a key twice/);
  refuses(t, changed({ payload: { keys: [{ ...first, kid: 'x'.repeat(5_000) }] } }), /^.{1,300}$/);
});

test('keys that nobody may sign tokens with are refused', async (t) => {
  const [first = {}] = keysOf(good);
  const exp = first['exp'];
  const jwkOf = (pair: { publicKey: import('node:crypto').KeyObject }): object => ({ ...pair.publicKey.export({ format: 'jwk' }), use: 'jwt-svid', exp, kid: 'k' });
  const bad: readonly (readonly [object, RegExp])[] = [
    [{ ...first, d: 'AA' }, /it holds a private key/],
    [{ ...first, use: 'x509-svid' }, /keys\.0\.use is not what it should be/],
    [{ ...first, use: undefined }, /keys\.0\.use is not/],
    [{ ...first, y: first['x'] }, /cannot be read/],
    [{ kty: 'oct', k: 'AAAA', use: 'jwt-svid', kid: 'k', exp }, /it holds a private key/],
    [{ kty: 'EC', use: 'jwt-svid', kid: 'k', exp }, /cannot be read/],
    [jwkOf(generateKeyPairSync('ed25519')), /of the type ed25519/],
    [jwkOf(generateKeyPairSync('ec', { namedCurve: 'secp256k1' })), /on the curve secp256k1/],
    [jwkOf(generateKeyPairSync('rsa', { modulusLength: 1024 })), /has 1024 bits/],
    [{ ...jwkOf(generateKeyPairSync('rsa', { modulusLength: 2048 })), n: Buffer.alloc(1025, 0xff).toString('base64url') }, /bits, more than 4096/],
  ];
  for (const [key, message] of bad) refuses(t, changed({ payload: { keys: [key] } }), message);
  refuses(t, signedSet(ca, keySet([{ ...jwtAuthority(ca.publicKey), notAfter: NOW + DAY }]), [middle]), /one of its keys is that of a CA/);
});

test('nine keys, no key, and more than 16 KiB are refused, unread', async (t) => {
  const nine = await Promise.all(Array.from({ length: 9 }, () => jwtKey()));
  t.throws(() => signedSet(ca, keySet(nine), [middle]), { message: /it has 9 keys, and 1 to 8 are allowed/ });
  t.throws(() => signedSet(ca, keySet([]), [middle]), { message: /it has 0 keys/ });
  const nineSigned = keysOf(good)[0];
  refuses(t, changed({ payload: { keys: Array.from({ length: 9 }, () => nineSigned) } }), /keys is not what it should be/);
  refuses(t, changed({ payload: { keys: [] } }), /keys is not what it should be/);
  refuses(t, `${'e'.repeat(LARGEST_KEY_SET)}.e.e`, /more than 16384/);
  t.is(verifyNodeKeys(signedSet(ca, keySet(nine.slice(1)), [middle]), trust, NOW).keys.length, 8);
});

test('the header says exactly what it must', (t) => {
  const { header } = partsOf(good);
  for (const [change, message] of [
    [{ typ: 'JWT' }, /in its header, typ is not/],
    [{ typ: undefined }, /in its header, typ is not/],
    [{ alg: 'none' }, /its alg is "none"/],
    [{ alg: 'HS256' }, /its alg is "HS256"/],
    [{ alg: 'ES384' }, /its alg is "ES384", and the key of ".+" signs ES256/],
    [{ crit: ['b64'], b64: false }, /in its header/],
    [{ jwk: keysOf(good)[0] }, /in its header, jwk is not/],
    [{ kid: one.kid }, /in its header, kid is not/],
    [{ x5c: [] }, /in its header, x5c is not/],
    [{ x5c: Array.from({ length: 6 }, () => (header['x5c'] as string[])[0]) }, /in its header, x5c is not/],
    [{ x5c: ['AAAA'] }, /holds no certificate/],
    [{ x5c: ['****'] }, /is not base64/],
    [{ x5c: (header['x5c'] as string[]).toReversed() }, /is not signed by/],
    [{ x5c: [(header['x5c'] as string[])[0]] }, /no root that is given verifies it/],
  ] as const) refuses(t, changed({ header: change }), message);
});

test('one flipped bit anywhere, and a signature of somebody else, are refused', async (t) => {
  const flip = (at: number): string => good.slice(0, at) + (good[at] === 'A' ? 'B' : 'A') + good.slice(at + 1);
  const [first, second] = [good.indexOf('.'), good.lastIndexOf('.')];
  for (const at of [5, first - 20, first + 5, second - 5, second + 5]) t.throws(() => verifyNodeKeys(flip(at), trust, NOW), { instanceOf: SignetError });
  refuses(t, changed({}, await nodeCa(root)), /has not signed it/);
});

test('garbage is refused, never thrown over', (t) => {
  const seed = Number(process.env['SIGNET_SEED'] ?? 7);
  let state = seed;
  const next = (below: number): number => (state = (state * 48_271) % 2_147_483_647) % below;
  t.log(`SIGNET_SEED=${seed}`);
  for (const text of ['', '.', '..', '...', 'a.b.c', 'e30.e30.e30', 'bnVsbA.bnVsbA.AA', `${good}.`, ` ${good}`, `${good}=`]) refuses(t, text, /./);
  for (let round = 0; round < 300; round++) {
    const bytes = Buffer.from(good);
    for (let i = 0; i < 1 + next(4); i++) bytes[next(bytes.length)] = next(128);
    const text = bytes.toString('latin1');
    if (text !== good) t.throws(() => verifyNodeKeys(text, trust, NOW), { instanceOf: SignetError, code: 'profile_violation' }, `round ${round}`);
  }
});

test('certificates that sign each other in a circle do not keep the verifier busy', async (t) => {
  const [left, right] = [await newKeyPair('ec-p256'), await newKeyPair('ec-p256')];
  const [a, b] = [{ name: 'CN=a', keys: left }, { name: 'CN=b', keys: right }];
  const x = await testCa(a);
  const above = await testCa({ ...b, parent: x });
  const more = await testCa({ ...a, parent: above });
  const circle = [await testCa({ ...b, parent: more, uris: ['spiffe://example.org'] }), more, above, more, above];
  const jws = rawJws(right.privateKey, { ...partsOf(good).header, x5c: circle.map(({ certificate }) => certificate.toString('base64')) }, partsOf(good).payload);
  refuses(t, jws, /./);
});
