import { copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { createCsr } from '../../src/authority/certificate.ts';
import { newKeyPair } from '../../src/authority/keys.ts';
import { NodeAuthority } from '../../src/authority/node-authority.ts';
import { systemRandom } from '../../src/random.ts';
import type { UpstreamAnswer } from '../../src/upstream/upstream.ts';
import { VaultIntermediate } from '../../src/upstream/vault/intermediate.ts';
import { makePki } from '../support/kubernetes-pki.ts';
import { startVault, vaultMissing, type VaultServer } from '../support/vault-server.ts';
import { connect, directory, freshName, judgeRoot, pkiMount, trustDomain, until, type Told } from '../support/vault-upstream.ts';

const missing = vaultMissing({ own: true });
const title = (text: string): string => (missing === undefined ? text : `${text} (${missing})`);
// Each stops, seals or changes the one server.
const testIf = missing === undefined ? test.serial : test.serial.skip;

let vault: VaultServer;
test.before(async () => {
  if (missing === undefined) vault = await startVault({ tls: true, own: true });
  if (missing === undefined) await vault.api('POST', 'sys/auth/approle', { type: 'approle' });
});
test.after.always(async () => {
  await vault?.close();
});

interface Scene {
  readonly mount: string;
  readonly policy: string;
  readonly role: string;
  readonly caFile: string;
  readonly roleIdFile: string;
  readonly secretIdFile: string;
  readonly told: Told;
  readonly upstream: VaultIntermediate;
  sign(): Promise<UpstreamAnswer>;
}

/** An upstream that has signed once, with an own CA file and an own AppRole. */
async function scene(t: ExecutionContext): Promise<Scene> {
  const dir = directory(t);
  const names = { mount: await pkiMount(t, vault), policy: freshName('policy'), role: freshName('role') };
  const [caFile, roleIdFile, secretIdFile] = ['ca.crt', 'role-id', 'secret-id'].map((name) => join(dir, name)) as [string, string, string];
  const { mount } = names;
  copyFileSync(vault.caFile ?? '', caFile);
  await writeRole({ ...names, roleIdFile, secretIdFile });
  const { client, told } = connect(t, { address: vault.address, caFile }, { method: 'approle', mount: 'approle', roleIdFile, secretIdFile });
  const upstream = new VaultIntermediate({ mount, issuer: 'default', pollMs: 500 }, { ...told.tools, client, judgeRoot });
  t.teardown(() => upstream.close());
  const keys = await newKeyPair('ec-p256');
  const request = { trustDomain, publicKey: keys.publicKey, ttlMs: 3_600_000, nameConstraint: 'none', csr: () => createCsr(keys, trustDomain, systemRandom) } as const;
  const sign = (): Promise<UpstreamAnswer> => upstream.sign(request, AbortSignal.timeout(20_000));
  await sign();
  return { ...names, caFile, roleIdFile, secretIdFile, told, upstream, sign };
}

/** The role of the login as documented, and what it is proved by. */
async function writeRole({ mount, policy, role, roleIdFile, secretIdFile }: Pick<Scene, 'mount' | 'policy' | 'role' | 'roleIdFile' | 'secretIdFile'>): Promise<void> {
  await vault.setup({ TRUST_DOMAIN: trustDomain, PKI_MOUNT: mount, POLICY: policy, AUTH: 'approle', AUTH_ROLE: role });
  writeFileSync(roleIdFile, String((await vault.api('GET', `auth/approle/role/${role}/role-id`)).data?.['role_id']));
  writeFileSync(secretIdFile, String((await vault.api('POST', `auth/approle/role/${role}/secret-id`, {})).data?.['secret_id']));
}

const hasLine = (told: Told, pattern: RegExp): boolean => told.failed.some((text) => pattern.test(text));
const isTold = (t: ExecutionContext, told: Told, pattern: RegExp): Promise<void> => until(t, `${pattern} is told`, () => hasLine(told, pattern));

/** Waits until whoever listens is told to ask again and nothing is wrong; then it must work. */
async function recovers(t: ExecutionContext, { upstream, told, sign }: Scene, cause: () => Promise<void>): Promise<void> {
  let nudges = 0;
  const stop = upstream.onChange(() => void (nudges += 1));
  await cause();
  await until(t, 'it is worth asking again', () => nudges > 0);
  await sign();
  await until(t, 'no problem is left', () => upstream.problem() === undefined);
  t.true(told.lines.some(({ event }) => event === 'upstream.returned'));
  stop();
}

testIf(title('Vault stopped: told once as unreachable, and found again when it is back'), async (t) => {
  const it = await scene(t);
  const { told, upstream, sign } = it;
  const [roots, issuer] = [upstream.roots(), upstream.issuer()];
  await vault.stop();
  await isTold(t, told, /^https:\/\/127\.0\.0\.1:\d+ cannot be reached: ECONNREFUSED/);
  await t.throwsAsync(sign(), { code: 'authority_unavailable', message: /cannot be reached/ });
  t.regex(upstream.problem() ?? '', /cannot be reached/);
  // What was known stays: roots that vanish would look like a rotation.
  t.deepEqual(upstream.roots(), roots);
  t.deepEqual(upstream.issuer(), issuer);
  await recovers(t, it, () => vault.start());
  t.is(told.failed.filter((text) => text.includes('ECONNREFUSED')).length, 1);
});

testIf(title('Vault sealed: told as such, and found again when it is unsealed'), async (t) => {
  const it = await scene(t);
  await vault.seal();
  await isTold(t, it.told, /503: Vault is sealed: What to do: unseal it/);
  await t.throwsAsync(it.sign(), { message: /Vault is sealed/ });
  await recovers(t, it, () => vault.unseal());
});

testIf(title('the token revoked: told, and replaced by a new login within the same request'), async (t) => {
  const { told, sign, upstream } = await scene(t);
  await vault.api('POST', 'sys/leases/revoke-prefix/auth/approle/login', {});
  await sign();
  t.true(hasLine(told, /Vault does not take our token any more: it was revoked/));
  t.is(upstream.problem(), undefined);
});

testIf(title('the policy changed: told with the path and where the right one is, and found again when it is back'), async (t) => {
  const it = await scene(t);
  await vault.api('POST', `sys/policies/acl/${it.policy}`, { policy: 'path "auth/token/renew-self" { capabilities = ["update"] }' });
  await t.throwsAsync(it.sign(), { code: 'authority_unavailable', message: /sign-intermediate: 403: .*permission denied.*deploy\/vault/ });
  await isTold(t, it.told, /sign-intermediate: 403/);
  await recovers(t, it, async () => void (await vault.setup({ TRUST_DOMAIN: trustDomain, PKI_MOUNT: it.mount, POLICY: it.policy })));
});

testIf(title('the role of the login deleted and the token revoked: told as a refused login, and found again when the role is back'), async (t) => {
  const it = await scene(t);
  await vault.api('DELETE', `auth/approle/role/${it.role}`);
  await vault.api('POST', 'sys/leases/revoke-prefix/auth/approle/login', {});
  await t.throwsAsync(it.sign(), { message: /Vault refuses the login by approle at auth\/approle \(400: .*\)\. What to do: compare the role/ });
  await isTold(t, it.told, /refuses the login by approle/);
  t.regex(it.upstream.problem() ?? '', /refuses the login/);
  await recovers(t, it, () => writeRole(it));
});

testIf(title("the listener's CA swapped: told as a certificate that is not verified, and found again when caFile has the new CA"), async (t) => {
  const it = await scene(t);
  const pki = await makePki();
  await vault.stop();
  vault.certify(pki);
  await vault.start();
  await isTold(t, it.told, /TLS fails: .*The certificate of the server is not verified by .*ca\.crt\. What to do: put the CA of the server there/);
  await t.throwsAsync(it.sign(), { message: /TLS fails/ });
  await recovers(t, it, async () => writeFileSync(it.caFile, pki.ca));
  writeFileSync(vault.caFile ?? '', pki.ca);
});

testIf(title('a certificate for another name: told with the setting that helps'), async (t) => {
  const { told } = connect(t, vault, { method: 'token', tokenFile: '/nonexistent' });
  const { client } = connect(t, vault, { method: 'token', tokenFile: '/nonexistent' }, { serverName: 'vault.example' });
  await t.throwsAsync(client.requestOpen('GET', 'sys/health'), { message: /ERR_TLS_CERT_ALTNAME_INVALID.*set serverName/ });
  const { client: right } = connect(t, vault, { method: 'token', tokenFile: '/nonexistent' }, { serverName: 'node-1' });
  await t.notThrowsAsync(right.requestOpen('GET', 'sys/health'));
  t.deepEqual(told.failed, []);
});

testIf(title('a node goes on signing while Vault is away, says so from the first failure, and renews when it is back'), async (t) => {
  const it = await scene(t);
  const options = { trustDomain, privateDir: directory(t), ttlMs: 30_000, nameConstraint: 'none' } as const;
  const node = await NodeAuthority.open(options, { ...it.told.tools, upstream: it.upstream });
  t.teardown(() => node.close());
  const first = node.issuer().certificate;
  await vault.stop();
  await until(t, 'the failure is told', () => node.status().failing !== undefined);
  t.deepEqual(node.issuer().certificate, first);
  // A restart of the agent meanwhile finds what was kept.
  await node.close();
  const again = await NodeAuthority.open(options, { ...it.told.tools, upstream: it.upstream });
  t.teardown(() => again.close());
  t.deepEqual(again.issuer().certificate, first);
  await vault.start();
  await until(t, 'a new node CA signs', () => !again.issuer().certificate.equals(first));
  t.is(again.status().failing, undefined);
});

testIf(title('a node that starts while Vault is away opens, waits, and signs when it is back'), async (t) => {
  const it = await scene(t);
  await vault.stop();
  const options = { trustDomain, privateDir: directory(t), ttlMs: 60_000, nameConstraint: 'none' } as const;
  const upstream = new VaultIntermediate({ mount: it.mount, issuer: 'default', pollMs: 500 }, { ...it.told.tools, client: connectAgain(t, it), judgeRoot });
  t.teardown(() => upstream.close());
  const node = await NodeAuthority.open(options, { ...it.told.tools, upstream });
  t.teardown(() => node.close());
  t.throws(() => node.issuer(), { code: 'authority_unavailable', message: /cannot be reached/ });
  await vault.start();
  await until(t, 'it signs', () => node.status().nodeCaNotAfter !== undefined);
});

function connectAgain(t: ExecutionContext, { caFile }: Scene): ReturnType<typeof connect>['client'] {
  const tokenFile = join(directory(t), 'token');
  writeFileSync(tokenFile, vault.token);
  return connect(t, { address: vault.address, caFile }, { method: 'token', tokenFile }).client;
}
