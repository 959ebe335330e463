import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { jwtAuthority, newKeyPair } from '../../src/authority/keys.ts';
import { PublicKeyStore, type StoredVersion } from '../../src/authority/public-key-store.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';

const trustDomain = parseTrustDomain('example.org');
const NOW = Date.UTC(2030, 0, 1);
const authority = jwtAuthority((await newKeyPair('ec-p256')).publicKey);
const VERSIONS: readonly StoredVersion[] = [
  { version: 1, authority, since: NOW, goneAt: NOW + 1 },
  { version: 2, authority, since: NOW + 1, goneAt: undefined },
];

function directoryOf(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'signet-public-keys-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

test('what is kept is found again, in a file for nobody else and without any private key', async (t) => {
  const directory = directoryOf(t);
  const store = new PublicKeyStore(directory, trustDomain, 'transit/k');
  t.deepEqual(await store.load(), []);
  await store.save(VERSIONS);
  const found = await new PublicKeyStore(directory, trustDomain, 'transit/k').load();
  t.deepEqual(found.map(({ authority: { kid }, ...rest }) => ({ kid, ...rest })), VERSIONS.map(({ authority: { kid }, ...rest }) => ({ kid, ...rest })));
  const path = join(directory, 'transit-keys.json');
  t.is(statSync(path).mode & 0o777, 0o600);
  t.notRegex(readFileSync(path, 'utf8'), /PRIVATE/);
});

test("another key's versions, and another trust domain's, are none of ours", async (t) => {
  const directory = directoryOf(t);
  await new PublicKeyStore(directory, trustDomain, 'transit/k').save(VERSIONS);
  t.deepEqual(await new PublicKeyStore(directory, trustDomain, 'transit/other').load(), []);
  t.deepEqual(await new PublicKeyStore(directory, parseTrustDomain('other.test'), 'transit/k').load(), []);
});

test('a damaged file is refused with what to do', async (t) => {
  const directory = directoryOf(t);
  writeFileSync(join(directory, 'transit-keys.json'), '{"version":1', { mode: 0o600 });
  await t.throwsAsync(new PublicKeyStore(directory, trustDomain, 'transit/k').load(), { code: 'state_refused', message: /move it away/ });
});
