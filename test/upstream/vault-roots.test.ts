import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { VaultIntermediate } from '../../src/upstream/vault/intermediate.ts';
import { chainOf } from '../../src/upstream/vault/issuers.ts';
import { asking, leafOf, openIntermediate, openNode, openssl } from '../support/vault-intermediates.ts';
import { startVault, vaultMissing, type VaultServer } from '../support/vault-server.ts';
import { directory, pkiMount, until } from '../support/vault-upstream.ts';

const missing = vaultMissing();
const title = (text: string): string => (missing === undefined ? text : `${text} (${missing})`);
const testIf = missing === undefined ? test : test.skip;
const PATIENCE = (): AbortSignal => AbortSignal.timeout(20_000);

let vault: VaultServer;
test.before(async () => {
  if (missing === undefined) vault = await startVault();
});
test.after.always(async () => {
  await vault?.close();
});

testIf(title('a new root is in the bundle before it is the default, and the old one stays: ca_chain alone has neither'), async (t) => {
  const mount = await pkiMount(t, vault);
  const { upstream } = await openIntermediate(t, vault, mount);
  await until(t, 'the issuers are read', () => upstream.roots().length === 1);
  const [first] = upstream.roots();
  await vault.api('POST', `${mount}/root/rotate/internal`, { common_name: 'second', organization: 'Tests', ttl: '87600h', key_type: 'ec', issuer_name: 'root-2' });
  await until(t, 'the new root is seen', () => upstream.roots().length === 2);
  t.deepEqual(upstream.issuer(), first);
  let changes = 0;
  upstream.onChange(() => void (changes += 1));
  await vault.api('POST', `${mount}/root/replace`, { default: 'root-2' });
  await until(t, 'the new issuer is seen', () => upstream.issuer()?.equals(first ?? Buffer.alloc(0)) === false);
  t.is(upstream.roots().length, 2);
  t.true(changes > 0);
  const alone = chainOf((await vault.api('GET', `${mount}/cert/ca_chain`)).data ?? {});
  t.false(alone.some((der) => der.equals(first ?? Buffer.alloc(0))));
});

testIf(title('a node CA under a new root signs only after the overlap; until then the old one does'), async (t) => {
  const mount = await pkiMount(t, vault);
  // A look takes time, and the old one must still be found signing after it.
  const opened = await openIntermediate(t, vault, mount, { options: { pollMs: 2_000 } });
  const node = await openNode(t, opened);
  const before = node.issuer().certificate;
  await vault.api('POST', `${mount}/root/rotate/internal`, { common_name: 'second', organization: 'Tests', ttl: '87600h', key_type: 'ec', issuer_name: 'root-2' });
  await vault.api('POST', `${mount}/root/replace`, { default: 'root-2' });
  await until(t, 'both roots are in the bundle', () => node.current().x509Authorities.length === 2);
  t.deepEqual(node.issuer().certificate, before);
  await until(t, 'the new node CA signs', () => !node.issuer().certificate.equals(before));
  t.is(node.current().x509Authorities.length, 2);
  t.regex(openssl(t, [await leafOf(node), ...node.intermediates()], node.current().x509Authorities), /: OK/);
});

testIf(title('a pinned issuer goes on signing when another one becomes the default'), async (t) => {
  const mount = await pkiMount(t, vault);
  const opened = await openIntermediate(t, vault, mount, { setup: { ISSUER: 'root-1' }, options: { issuer: 'root-1' } });
  const node = await openNode(t, opened);
  await vault.api('POST', `${mount}/root/rotate/internal`, { common_name: 'second', organization: 'Tests', ttl: '87600h', key_type: 'ec', issuer_name: 'root-2' });
  await vault.api('POST', `${mount}/root/replace`, { default: 'root-2' });
  await until(t, 'both roots are seen', () => opened.upstream.roots().length === 2);
  const { chain } = await opened.upstream.sign(await asking(), PATIENCE());
  const [ca = Buffer.alloc(0)] = chain;
  const signer = new X509Certificate(opened.upstream.issuer() ?? Buffer.alloc(0));
  t.true(new X509Certificate(ca).verify(signer.publicKey));
  t.deepEqual(node.intermediates().length, 1);
});

testIf(title('roots in a file that cannot be read are told, and the last good ones go on'), async (t) => {
  const mount = await pkiMount(t, vault);
  const file = join(directory(t), 'root.crt');
  const other = await pkiMount(t, vault);
  const [pem] = (await vault.api('GET', `${other}/issuer/default/json`)).data?.['ca_chain'] as string[];
  writeFileSync(file, pem ?? '');
  const { upstream, told } = await openIntermediate(t, vault, mount, { options: { roots: [file] } });
  await until(t, 'both roots are there', () => upstream.roots().length === 2);
  writeFileSync(file, 'nonsense');
  await until(t, 'it is told', () => told.lines.some(({ reason }) => reason?.includes(file) === true));
  t.is(upstream.roots().length, 2);
  t.regex(upstream.problem() ?? '', /holds no certificate/);
  await t.throwsAsync(VaultIntermediate.check({ mount, issuer: 'default', roots: [file] }), { code: 'state_refused' });
  writeFileSync(file, pem ?? '');
  await until(t, 'it is good again', () => upstream.problem() === undefined);
});

testIf(title('a root of another trust domain in the mount is left out, and told once'), async (t) => {
  const mount = await pkiMount(t, vault);
  await vault.api('POST', `${mount}/root/rotate/internal`, { common_name: 'foreign', ttl: '87600h', key_type: 'ec', issuer_name: 'foreign', uri_sans: 'spiffe://evil.org', exclude_cn_from_sans: true });
  const { upstream, told } = await openIntermediate(t, vault, mount);
  const isWarning = ({ reason = '' }: { reason?: string }): boolean => /is left out: its SPIFFE ID is spiffe:\/\/evil\.org/.test(reason);
  await until(t, 'it is told', () => told.lines.some(isWarning));
  await until(t, 'the own root is there', () => upstream.roots().length === 1);
  await vault.api('POST', `${mount}/root/rotate/internal`, { common_name: 'second', ttl: '87600h', key_type: 'ec', issuer_name: 'root-2' });
  await until(t, 'another look', () => upstream.roots().length === 2);
  t.is(told.lines.filter(isWarning).length, 1);
});
