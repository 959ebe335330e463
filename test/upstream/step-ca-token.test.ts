import { createHash, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { decodeProtectedHeader, jwtVerify, type JWTPayload } from 'jose';
import type { LogFields } from '../../src/log.ts';
import { systemRandom } from '../../src/random.ts';
import { readCredential, type Credential } from '../../src/upstream/step-ca/credential.ts';
import { refusedToken } from '../../src/upstream/step-ca/diagnosis.ts';
import { ServerClock } from '../../src/upstream/step-ca/server-clock.ts';
import { oneTimeToken } from '../../src/upstream/step-ca/token.ts';
import { certificatePem, keyPem, testCa } from '../support/authorities.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { directory } from '../support/vault-upstream.ts';

const NOW = Date.UTC(2030, 0, 1, 12);
const CSR = Buffer.from('a request');
const AUDIENCE = 'https://ca:9000/1.0/sign';
const jwk = { type: 'jwk', name: 'node ca' } as const;
const x5c = { type: 'x5c', name: 'node ca', certificate: '/c', key: '/k' } as const;
const nobody = () => Promise.resolve(undefined);

function tokenWith(credential: Credential, provisioner: typeof jwk | typeof x5c = jwk): Promise<string> {
  return oneTimeToken({ provisioner, credential, audience: AUDIENCE, subject: 'spiffe://example.org', csr: CSR, now: NOW }, systemRandom);
}

async function claimsOf(token: string, key: KeyObject): Promise<JWTPayload> {
  return (await jwtVerify(token, createPublicKey(key), { currentDate: new Date(NOW) })).payload;
}

test('a token is for one request, one subject, two minutes and one use', async (t) => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const tokens = [await tokenWith({ privateKey, keyId: 'k', notAfter: Infinity }), await tokenWith({ privateKey, keyId: 'k', notAfter: Infinity })];
  const [claims, others] = await Promise.all(tokens.map((token) => claimsOf(token, privateKey)));
  t.deepEqual(decodeProtectedHeader(tokens[0] ?? ''), { alg: 'ES256', typ: 'JWT', kid: 'k' });
  const { jti, ...rest } = claims ?? {};
  t.deepEqual(rest, {
    sans: ['spiffe://example.org'],
    cnf: { 'x5rt#S256': createHash('sha256').update(CSR).digest('base64url') },
    iss: 'node ca',
    aud: AUDIENCE,
    sub: 'spiffe://example.org',
    iat: NOW / 1000,
    nbf: NOW / 1000,
    exp: NOW / 1000 + 120,
  });
  t.regex(jti ?? '', /^[0-9a-f]{64}$/);
  t.not(jti, others?.jti);
});

test('an X5C token carries its chain, and names the provisioner in the audience', async (t) => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' });
  const token = await tokenWith({ privateKey, chain: [Buffer.of(1, 2), Buffer.of(3)], notAfter: NOW }, x5c);
  t.deepEqual(decodeProtectedHeader(token), { alg: 'ES384', typ: 'JWT', x5c: ['AQI=', 'Aw=='] });
  t.is((await claimsOf(token, privateKey)).aud, `${AUDIENCE}#x5c/node%20ca`);
});

test('keys of all kinds that step-ca takes sign; others are named', async (t) => {
  const kinds = [generateKeyPairSync('rsa', { modulusLength: 2048 }), generateKeyPairSync('ed25519'), generateKeyPairSync('ec', { namedCurve: 'P-521' })];
  const algorithms = [];
  for (const { privateKey } of kinds) algorithms.push(decodeProtectedHeader(await tokenWith({ privateKey, notAfter: Infinity })).alg);
  t.deepEqual(algorithms, ['RS256', 'EdDSA', 'ES512']);
  const odd = generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).privateKey;
  await t.throwsAsync(tokenWith({ privateKey: odd, notAfter: Infinity }), { message: /of the type ec secp256k1, with which step-ca takes no token/ });
  const weak = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey;
  await t.throwsAsync(tokenWith({ privateKey: weak, notAfter: Infinity }), { message: /no token can be signed with the key of the provisioner node ca: / });
});

test('files that prove nothing are told by their names, and without what is in them', async (t) => {
  const place = directory(t);
  const file = (name: string, text: string): string => {
    writeFileSync(join(place, name), text);
    return join(place, name);
  };
  const read = (more: object) => readCredential({ ...jwk, ...more }, nobody, NOW);
  await t.throwsAsync(read({ key: join(place, 'none') }), { message: /the provisioner key in .*none cannot be used: ENOENT/ });
  await t.throwsAsync(read({ key: file('empty', '') }), { message: /it is empty/ });
  for (const [name, text] of [['odd', 'secret words'], ['json', '{"d": "secret"'], ['list', '["secret"]'], ['pem', '-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----']] as const) {
    const error = await t.throwsAsync(read({ key: file(name, text) }), { message: /cannot be used: it is no private key as PEM or JWK, or it is encrypted and provisioner\.passwordFile is not set/ });
    t.false(`${error?.message} ${String(error?.cause)}`.includes('secret'), name);
  }
  const huge = `${Buffer.from(JSON.stringify({ alg: 'PBES2-HS256+A128KW', enc: 'A256GCM', p2c: 2_000_000_000, p2s: 'AAAAAAAAAAAAAAAAAAAAAA' })).toString('base64url')}.AA.AA.AA.AA`;
  await t.throwsAsync(read({ key: file('huge', huge), passwordFile: file('password', 'p') }), { message: /the password in .* does not open it/ });
  await t.throwsAsync(read({ passwordFile: join(place, 'password') }), { message: /step-ca has no provisioner node ca/ });
  await t.throwsAsync(readCredential({ ...jwk, passwordFile: join(place, 'password') }, () => Promise.resolve({ name: 'node ca' }), NOW), { message: /step-ca keeps no encrypted key for the provisioner node ca/ });
});

test('an X5C certificate that is not valid yet waits; one without a certificate is refused', async (t) => {
  const place = directory(t);
  const later = await testCa({ ca: false, from: NOW + 60_000, to: NOW + 120_000 });
  const files = { certificate: join(place, 'crt'), key: join(place, 'key') };
  writeFileSync(files.certificate, certificatePem(later.certificate));
  writeFileSync(files.key, keyPem(later));
  await t.throwsAsync(readCredential({ ...x5c, ...files }, nobody, NOW), { message: /is not valid before 2030-01-01T12:01:00\.000Z\. What to do: wait, or set the clock/ });
  t.is((await readCredential({ ...x5c, ...files }, nobody, NOW + 90_000)).notAfter, NOW + 120_000);
  writeFileSync(files.certificate, keyPem(later));
  await t.throwsAsync(readCredential({ ...x5c, ...files }, nobody, NOW), { message: /holds no certificate in PEM/ });
});

test('the clock of the server: whole seconds are no difference, and a difference is told once', (t) => {
  const clock = new FakeClock(NOW);
  const lines: LogFields[] = [];
  const note = (fields: LogFields): void => void lines.push(fields);
  const server = new ServerClock(clock, { debug: note, info: note, warn: note, error: note });
  const says = (ms: number): void => server.note(new Date(NOW + ms).toUTCString());
  for (const odd of [undefined, '', 'yesterday']) server.note(odd);
  t.is(server.now(), NOW);
  says(0);
  t.is(server.now(), NOW);
  says(-4_000);
  t.is(server.describe(), undefined);
  says(90_000);
  t.is(server.now(), NOW + 90_000);
  t.is(server.describe(), 'the clock of this machine is 90 s behind that of step-ca');
  server.tell();
  server.tell();
  t.is(lines.length, 1);
  says(-90_000);
  t.regex(server.describe() ?? '', /^the clock of this machine is 89 s ahead of that of step-ca$/);
  says(0);
  says(90_000);
  server.tell();
  t.is(lines.length, 2);
});

test('a refusal of which nothing is known names the clock where that differs', async (t) => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const parts = { provisioner: jwk, credential: { privateKey, keyId: 'k', notAfter: Infinity }, found: 'unknown', audience: AUDIENCE } as const;
  t.regex(await refusedToken('401', { ...parts, lag: undefined }), /does not say why\. What it has for a provisioner cannot be read\. Perhaps .*dnsNames of step-ca \(the token says https:\/\/ca:9000/);
  t.regex(await refusedToken('401', { ...parts, lag: 'the clock is 90 s behind' }), /does not say why\. The clock is 90 s behind\. Its log has more/);
  const odd = { type: 'JWK', name: 'node ca', key: { kty: 'none', kid: 'x' } };
  t.regex(await refusedToken('401', { ...parts, found: odd, lag: undefined }), /has another key \(x\) than ours \(k\): it was replaced/);
});
