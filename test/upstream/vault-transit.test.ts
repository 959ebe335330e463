import { sign as signBytes, type KeyObject } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { calculateJwkThumbprint, jwtVerify } from 'jose';
import { jwtAuthority, newKeyPair } from '../../src/authority/keys.ts';
import type { JsonObject } from '../../src/kubernetes/json.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import type { JwtRequest } from '../../src/spiffe/signing.ts';
import { validateJwt } from '../../src/trust/jwt-validation.ts';
import { TwoPartBundle } from '../../src/upstream/vault/bundle.ts';
import { TransitJwtSigner, type TransitOptions } from '../../src/upstream/vault/transit.ts';
import type { TransitKeysTools, VersionStore } from '../../src/upstream/vault/transit-keys.ts';
import type { KnownVersion } from '../../src/upstream/vault/transit-versions.ts';
import { vaultMissing } from '../support/vault-server.ts';
import { agentTools, clientOf, never, prepareVault, trustDomain, until, type AgentTools, type PreparedVault } from './vault-tools.ts';

const missing = vaultMissing({ own: true });
const given = anyTest as TestFn<PreparedVault>;
const test = missing === undefined ? given.serial : given.serial.skip;
if (missing !== undefined) anyTest.skip(`JWT-SVIDs by Vault's transit engine: ${missing}`, () => undefined);

given.before(async (t) => {
  if (missing === undefined) t.context = await prepareVault();
});
given.after.always((t) => t.context.close?.());

const REQUEST: JwtRequest = { id: parseSpiffeId('spiffe://example.org/a'), audience: ['one', 'two'], ttlMs: 300_000 };

class Memory implements VersionStore {
  versions: readonly KnownVersion[] = [];
  saved = 0;

  load(): Promise<readonly KnownVersion[]> {
    return Promise.resolve(this.versions);
  }

  save(versions: readonly KnownVersion[]): Promise<void> {
    this.versions = versions;
    this.saved += 1;
    return Promise.resolve();
  }
}

async function transit(t: ExecutionContext<PreparedVault>, options: Partial<TransitOptions> & { client?: TransitKeysTools['client']; store?: VersionStore; tools?: AgentTools } = {}) {
  const { client, store, tools = agentTools(), ...rest } = options;
  const jwt = await TransitJwtSigner.open(
    { trustDomain, mount: 'transit', key: 'signet-jwt', longestTtlMs: 3_600_000, pollMs: 200, ...rest },
    { ...tools, client: client ?? clientOf(t, t.context, tools), jwtAuthority, ...(store === undefined ? {} : { store }) },
  );
  t.teardown(() => jwt.close());
  const bundle = new TwoPartBundle(trustDomain, { roots: () => [], onChange: () => () => undefined }, jwt);
  t.teardown(() => bundle.close());
  const validate = (token: string): unknown => validateJwt(token, 'one', () => bundle.current(), Date.now());
  return { jwt, bundle, validate, ...tools };
}

/** A token for everything, in a file. */
function rootTokenFile(t: ExecutionContext<PreparedVault>): string {
  const directory = mkdtempSync(join(tmpdir(), 'signet-root-token-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, 'token');
  writeFileSync(path, t.context.server.token, { mode: 0o600 });
  return path;
}

async function newKey(t: ExecutionContext<PreparedVault>, key: string, settings: object = { type: 'ecdsa-p256' }): Promise<{ key: string; client: TransitKeysTools['client'] }> {
  await t.context.server.api('POST', `transit/keys/${key}`, settings);
  return { key, client: clientOf(t, { ...t.context, tokenFile: rootTokenFile(t) }, agentTools()) };
}

test('a token with the least privilege: its kid is the thumbprint, and it verifies by two libraries', async (t) => {
  const { jwt, bundle, validate, failures } = await transit(t, { issuer: 'https://issuer.test' });
  const signed = await jwt.sign(REQUEST, never);
  t.notThrows(() => validate(signed.token));
  const [authority] = bundle.current().jwtAuthorities;
  t.is(signed.kid, await calculateJwkThumbprint(authority!.jwk));
  const { payload, protectedHeader } = await jwtVerify(signed.token, authority!.publicKey, { audience: 'two' });
  t.deepEqual(protectedHeader, { alg: 'ES256', kid: signed.kid, typ: 'JWT' });
  t.deepEqual(payload, { sub: REQUEST.id, aud: ['one', 'two'], iss: 'https://issuer.test', iat: signed.issuedAt / 1_000, exp: signed.expiresAt / 1_000 });
  t.is(signed.expiresAt - signed.issuedAt, 300_000);
  t.deepEqual(failures, []);
  const { server } = t.context;
  const token = String((await server.api('POST', 'auth/token/create', { policies: ['signet'], no_default_policy: true })).auth?.['client_token']);
  const denied = async (method: string, path: string, body?: object): Promise<number> =>
    (await fetch(new URL(`/v1/${path}`, server.address), { method, headers: { 'x-vault-token': token }, ...(body === undefined ? {} : { body: JSON.stringify(body) }) })).status;
  t.is(await denied('GET', 'transit/export/signing-key/signet-jwt'), 403);
  t.is(await denied('POST', 'transit/keys/signet-jwt/rotate', {}), 403);
  t.is(await denied('POST', 'transit/sign/signet-jwt/sha2-256', { input: 'YQ==', key_version: '1' }), 403, 'without marshaling_algorithm it would be ASN.1');
});

test('a token never lives longer than its key is kept, and is only for workloads of this trust domain', async (t) => {
  const { jwt } = await transit(t, { longestTtlMs: 60_000 });
  const signed = await jwt.sign({ ...REQUEST, ttlMs: 86_400_000 }, never);
  t.is(signed.expiresAt - signed.issuedAt, 60_000);
  for (const wrong of [{ id: parseSpiffeId('spiffe://other.test/a') }, { id: parseSpiffeId('spiffe://example.org') }, { audience: [] }]) {
    await t.throwsAsync(jwt.sign({ ...REQUEST, ...wrong }, never), { code: 'profile_violation' });
  }
});

test('a rotated key is public before it signs, and the one before stays valid', async (t) => {
  const { jwt, bundle, validate } = await transit(t, { ...(await newKey(t, 'rotating')), pollMs: 1_000 });
  const before = await jwt.sign(REQUEST, never);
  await t.context.server.api('POST', 'transit/keys/rotating/rotate', {});
  t.is((await jwt.sign(REQUEST, never)).kid, before.kid, 'the version that is named signs, not the newest');
  await until('the new key is public', () => bundle.current().jwtAuthorities.length === 2);
  const [, next] = bundle.current().jwtAuthorities;
  t.is((await jwt.sign(REQUEST, never)).kid, before.kid, 'not before everybody has the new one');
  let signed = before;
  const deadline = performance.now() + 10_000;
  while (signed.kid === before.kid && performance.now() < deadline) signed = await jwt.sign(REQUEST, never);
  t.is(signed.kid, next?.kid ?? '');
  for (const { token } of [before, signed]) t.notThrows(() => validate(token));
});

test('public keys that Vault has trimmed stay as long as their tokens may live, over a restart too', async (t) => {
  const { server } = t.context;
  const store = new Memory();
  const key = await newKey(t, 'trimmed');
  const first = await transit(t, { ...key, store });
  const old = await first.jwt.sign(REQUEST, never);
  await server.api('POST', 'transit/keys/trimmed/rotate', {});
  await server.api('POST', 'transit/keys/trimmed/config', { min_decryption_version: 2, min_encryption_version: 2 });
  await server.api('POST', 'transit/keys/trimmed/trim', { min_available_version: 2 });
  await until('it is noticed', () => first.bundle.current().jwtAuthorities.length === 2);
  t.notThrows(() => first.validate(old.token));
  await until('it is kept', () => store.versions.some(({ goneAt }) => goneAt !== undefined));
  await first.jwt.close();
  const second = await transit(t, { ...key, store });
  t.notThrows(() => second.validate(old.token), 'before Vault has been asked');
  await second.jwt.sign(REQUEST, never);
  t.notThrows(() => second.validate(old.token));
});

test('a version that may not sign any more is replaced at once, although it is early', async (t) => {
  const { jwt, validate } = await transit(t, { ...(await newKey(t, 'retired')), pollMs: 3_600_000 });
  const before = await jwt.sign(REQUEST, never);
  await t.context.server.api('POST', 'transit/keys/retired/rotate', {});
  await t.context.server.api('POST', 'transit/keys/retired/config', { min_encryption_version: 2 });
  const after = await jwt.sign(REQUEST, never);
  t.not(after.kid, before.kid);
  for (const { token } of [before, after]) t.notThrows(() => validate(token));
});

for (const [what, settings] of [
  ['RSA', { type: 'rsa-2048' }],
  ['Ed25519', { type: 'ed25519' }],
  ['P-384', { type: 'ecdsa-p384' }],
  ['a cipher', { type: 'aes256-gcm96' }],
] as const) {
  test(`a key for ${what} is refused with what to do`, async (t) => {
    const key = await newKey(t, `kind-${settings.type}`, settings);
    const { jwt, failures } = await transit(t, { ...key, guard: { waitMs: 1_000 } });
    await t.throwsAsync(jwt.sign(REQUEST, never), { message: new RegExp(`${settings.type} and cannot sign ES256.*type=ecdsa-p256`) });
    t.regex(jwt.problem() ?? '', /cannot sign ES256/);
    t.deepEqual(jwt.authorities(), []);
    t.is(failures.filter(({ upstream }) => upstream === 'vault-transit-key').length, 1);
  });
}

test('a key that can be taken out of Vault is used with a warning', async (t) => {
  const key = await newKey(t, 'loose', { type: 'ecdsa-p256', exportable: true });
  const { jwt, warnings } = await transit(t, key);
  await t.notThrowsAsync(jwt.sign(REQUEST, never));
  t.is(warnings.filter((text) => text.includes('exportable')).length, 1);
});

test('a key that is missing is told, and used as soon as it is there', async (t) => {
  const { server } = t.context;
  const client = clientOf(t, { ...t.context, tokenFile: rootTokenFile(t) }, agentTools());
  const { jwt } = await transit(t, { key: 'later', client, guard: { waitMs: 20_000, failures: 1 } });
  const waiting = jwt.sign(REQUEST, never);
  await until('it is missed', () => /404/.test(jwt.problem() ?? ''));
  await server.api('POST', 'transit/keys/later', { type: 'ecdsa-p256' });
  t.truthy((await waiting).token);
});

test('a key that was deleted and made again is another key: old tokens stay valid, new ones name it', async (t) => {
  const { server } = t.context;
  const { jwt, validate } = await transit(t, { ...(await newKey(t, 'again')), pollMs: 3_600_000, guard: { waitMs: 20_000 } });
  const before = await jwt.sign(REQUEST, never);
  await server.api('POST', 'transit/keys/again/config', { deletion_allowed: true });
  await server.api('DELETE', 'transit/keys/again');
  await server.api('POST', 'transit/keys/again', { type: 'ecdsa-p256' });
  const after = await jwt.sign(REQUEST, never);
  t.not(after.kid, before.kid);
  for (const { token } of [before, after]) t.notThrows(() => validate(token));
});

test('while Vault is sealed the bundle stays and callers hear why; it signs again once Vault is unsealed', async (t) => {
  const { server } = t.context;
  const { jwt, bundle, failures } = await transit(t, { guard: { waitMs: 500 } });
  await jwt.sign(REQUEST, never);
  await server.seal();
  await t.throwsAsync(jwt.sign(REQUEST, never), { message: /sealed/i });
  t.is(bundle.current().jwtAuthorities.length, 1);
  t.true(failures.some(({ error }) => /sealed/i.test(error)));
  await server.unseal();
  await until('it signs again', () => jwt.problem() === undefined);
  await t.notThrowsAsync(jwt.sign(REQUEST, never));
});

/** What a Vault that is not itself could answer to a request for a signature. */
const ANSWERS: readonly (readonly [what: string, answer: (input: Buffer, other: KeyObject) => JsonObject])[] = [
  ['the signature of another key', (input, key) => ({ signature: `vault:v1:${jws(input, key)}` })],
  ['a signature of something else', (_, key) => ({ signature: `vault:v1:${jws(Buffer.from('else'), key)}` })],
  ['another version', (input, key) => ({ signature: `vault:v2:${jws(input, key)}` })],
  ['ASN.1', (input, key) => ({ signature: `vault:v1:${signBytes('sha256', input, key).toString('base64')}` })],
  ['no signature', () => ({})],
  ['a number', () => ({ signature: 1 })],
  ['an empty one', () => ({ signature: 'vault:v1:' })],
];

function jws(input: Buffer, key: KeyObject): string {
  return signBytes('sha256', input, { key, dsaEncoding: 'ieee-p1363' }).toString('base64url');
}

for (const [what, answer] of ANSWERS) {
  anyTest(`an answer with ${what} in place of the signature never becomes a token`, async (t) => {
    const [pair, other] = [await newKeyPair('ec-p256'), await newKeyPair('ec-p256')];
    const versions = { '1': { public_key: pair.publicKey.export({ format: 'pem', type: 'spki' }), creation_time: '2026-01-01T00:00:00Z' } };
    const client: TransitKeysTools['client'] = {
      onReturn: () => () => undefined,
      request: (method, _, request) => {
        const input = Buffer.from(String(request?.body?.['input'] ?? ''), 'base64');
        const data = method === 'GET' ? { type: 'ecdsa-p256', keys: versions, min_encryption_version: 0 } : answer(input, other.privateKey);
        return Promise.resolve({ data, auth: {}, warnings: [] });
      },
    };
    const { jwt } = await transit(t as ExecutionContext<PreparedVault>, { client, guard: { waitMs: 200, failures: 1 } });
    await t.throwsAsync(jwt.sign(REQUEST, never), { code: 'profile_violation' });
  });
}
