import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { newEncodedKeyPair } from '../../src/authority/keys.ts';
import { X509Identities } from '../../src/identity/x509-identities.ts';
import { KEY_TYPES } from '../../src/spiffe/key-type.ts';
import type { SignedX509 } from '../../src/spiffe/signing.ts';
import { certificatePem } from '../support/authorities.ts';
import { testEntry } from '../support/signers.ts';
import { vaultMissing } from '../support/vault-server.ts';
import { addPki, agentToken, agentTools, clientOf, never, perSvid, prepareVault, runAdvice, until, x509Request, type PreparedVault } from './vault-tools.ts';

const missing = vaultMissing({ own: true });
const given = anyTest as TestFn<PreparedVault>;
const test = missing === undefined ? given.serial : given.serial.skip;
if (missing !== undefined) anyTest.skip(`SVIDs by Vault: ${missing}`, () => undefined);

given.before(async (t) => {
  if (missing === undefined) t.context = await prepareVault();
});
given.after.always((t) => t.context.close?.());

/** A role that is as deploy/vault has it, but for these. */
async function role({ server }: PreparedVault, name: string, changes: object): Promise<void> {
  const { data } = await server.api('GET', 'pki/roles/signet');
  await server.api('POST', `pki/roles/${name}`, { ...data, ...changes });
  await server.api('POST', `sys/policies/acl/signet-${name}`, { policy: `path "pki/issuer/+/sign/${name}" { capabilities = ["update"] }` });
}

/** A signer whose requests fail soon, with a token for everything. */
function impatient(t: ExecutionContext<PreparedVault>, name: string, more: object = {}) {
  const tools = agentTools();
  const { server } = t.context;
  const directory = mkdtempSync(join(tmpdir(), 'signet-root-token-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const tokenFile = join(directory, 'token');
  writeFileSync(tokenFile, server.token, { mode: 0o600 });
  const client = clientOf(t, { ...t.context, tokenFile }, tools);
  return { ...tools, ...perSvid(t, client, tools, { role: name, guard: { waitMs: 2_000, failures: 1 }, ...more }) };
}

function strictlyVerified(t: ExecutionContext, { chain: [leaf, ...between] }: SignedX509, roots: readonly Buffer[]): void {
  const directory = mkdtempSync(join(tmpdir(), 'signet-verify-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const file = (name: string, ders: readonly Buffer[]): string => {
    writeFileSync(join(directory, name), certificatePem(...ders));
    return join(directory, name);
  };
  const more = between.length === 0 ? [] : ['-untrusted', file('between.pem', between)];
  const { status, stdout, stderr } = spawnSync('openssl', ['verify', '-x509_strict', '-CAfile', file('roots.pem', roots), ...more, file('leaf.pem', [leaf!])], { encoding: 'utf8' });
  t.is(status, 0, stdout + stderr);
}

for (const keyType of KEY_TYPES) {
  test(`an SVID for a key of the kind ${keyType}, with the least privilege, that OpenSSL takes by the letter`, async (t) => {
    const tools = agentTools();
    const { signer, bundle } = perSvid(t, clientOf(t, t.context, tools), tools);
    const signed = await signer.sign(await x509Request('a', { keyType, dnsNames: ['web', 'db.example.org'] }), never);
    strictlyVerified(t, signed, bundle.roots());
    const leaf = new X509Certificate(signed.chain[0]!);
    t.is(leaf.subjectAltName, 'DNS:db.example.org, DNS:web, URI:spiffe://example.org/a');
    t.is(signed.serial, leaf.serialNumber.toLowerCase());
    t.is(signed.notAfter, leaf.validToDate.getTime());
    t.is(signer.horizon(), Infinity);
    t.deepEqual(tools.failures, []);
  });
}

test('under an intermediate whose root is in a file the chain ends below that root', async (t) => {
  const { server } = t.context;
  await addPki(server, 'top');
  await server.api('POST', 'sys/mounts/below', { type: 'pki', config: { max_lease_ttl: '8760h' } });
  const { data: asked } = await server.api('POST', 'below/intermediate/generate/internal', { common_name: 'issuing', key_type: 'ec' });
  const { data: signed } = await server.api('POST', 'top/root/sign-intermediate', { csr: asked?.['csr'], common_name: 'issuing', max_path_length: '0', ttl: '8000h' });
  await server.api('POST', 'below/intermediate/set-signed', { certificate: signed?.['certificate'] });
  const { data: settings } = await server.api('GET', 'pki/roles/signet');
  await server.api('POST', 'below/roles/signet', settings);
  const request = await x509Request('a');
  const without = impatient(t, 'signet', { mount: 'below' });
  await t.throwsAsync(without.signer.sign(request, never), { message: /authority\.vault\.pki\.roots/ });
  const directory = mkdtempSync(join(tmpdir(), 'signet-root-file-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, 'root.pem');
  const { data: root } = await server.api('GET', 'top/issuer/default/json');
  writeFileSync(path, String(root?.['certificate']));
  const { signer, bundle } = impatient(t, 'signet', { mount: 'below', roots: [path] });
  const svid = await signer.sign(request, never);
  t.is(svid.chain.length, 2);
  strictlyVerified(t, svid, bundle.roots());
});

/** What keeps a role from producing an X.509-SVID, and what the text must name. */
const DEFECTS: readonly (readonly [what: string, changes: object, advice: RegExp])[] = [
  ['leaves basic constraints out (XS-15)', { basic_constraints_valid_for_non_ca: false }, /basic_constraints_valid_for_non_ca=true/],
  ['leaves digitalSignature out (XS-22)', { key_usage: ['KeyAgreement'] }, /key_usage=DigitalSignature/],
  ['has no key usage at all (XS-19)', { key_usage: [] }, /key_usage=DigitalSignature/],
  ['is for servers only (XS-27)', { client_flag: false }, /client_flag=true/],
  ['ignores the names of the request (XS-01)', { use_csr_sans: false }, /use_csr_sans=true/],
  ['allows no URI', { allowed_uri_sans: [] }, /allowed_uri_sans="spiffe:\/\/example\.org\/\*"/],
  ['wants a common name', { require_cn: true }, /require_cn=false/],
  ['takes RSA keys only', { key_type: 'rsa', key_bits: 2048 }, /key_type=any/],
  ['has a fixed end far away', { not_after: '2035-01-01T00:00:00Z' }, /not_after=""/],
];

for (const [index, [what, changes, advice]] of DEFECTS.entries()) {
  test(`a role that ${what} is refused with the setting, and the advice as it stands repairs it without a restart`, async (t) => {
    const name = `defect-${index}`;
    await role(t.context, name, changes);
    const { signer, failures } = impatient(t, name);
    const error = await t.throwsAsync(signer.sign(await x509Request('a'), never), { message: advice });
    t.true(signer.problem()?.includes(`pki/roles/${name}`));
    t.deepEqual(failures.filter(({ upstream }) => upstream === 'vault-role').map((fact) => fact.error), [error?.message], 'told once');
    runAdvice(t.context, error?.message ?? '');
    await until('the role is used again', () => signer.problem() === undefined);
    const request = await x509Request('b');
    t.is((await signer.sign(request, never)).chain.length, 1);
    t.is(signer.problem(), undefined);
  });
}

test('several defects are named together, and one command repairs them', async (t) => {
  const { server } = t.context;
  await server.api('POST', 'pki/roles/bare', { allowed_uri_sans: ['spiffe://example.org/*'], require_cn: false, key_type: 'any', client_flag: false, key_usage: [] });
  const { signer } = impatient(t, 'bare');
  const error = await t.throwsAsync(signer.sign(await x509Request('a'), never));
  t.regex(error?.message ?? '', /XS-15.*XS-19.*XS-27/);
  runAdvice(t.context, error?.message ?? '');
  await until('the role is used again', () => signer.problem() === undefined);
  await t.notThrowsAsync(signer.sign(await x509Request('a'), never));
});

test('a role that allows more changes nothing: names that nobody asked for are never released (XS-01)', async (t) => {
  await role(t.context, 'wide', { allow_any_name: true, enforce_hostnames: false, allowed_uri_sans: ['*'] });
  const { signer } = impatient(t, 'wide');
  const request = await x509Request('a');
  const other = await x509Request('b');
  await t.throwsAsync(signer.sign({ ...request, csr: () => other.csr() }, never), { code: 'profile_violation', message: /XS-01/ });
  await t.throwsAsync(signer.sign(await x509Request('', { id: 'spiffe://other.test/a' }), never), { message: /not in the trust domain/ });
  await t.throwsAsync(signer.sign(await x509Request('', { id: 'spiffe://example.org' }), never), { message: /no path/ });
});

test('an end that Vault has cut without a word is the one that counts, and is told once', async (t) => {
  await role(t.context, 'short', { max_ttl: '90s', ttl: '60s' });
  const { signer, warnings } = impatient(t, 'short');
  const now = Date.now();
  for (const path of ['a', 'b']) {
    const signed = await signer.sign(await x509Request(path), never);
    t.true(signed.notAfter <= now + 120_000, new Date(signed.notAfter).toISOString());
  }
  const told = warnings.filter((text) => text.includes('max_ttl'));
  t.is(told.length, 1);
  t.regex(told[0] ?? '', /3600 s to \d+ s/);
});

test('an SVID that would outlive its issuer is asked for with the end of the issuer', async (t) => {
  const { server } = t.context;
  await server.api('POST', 'sys/mounts/ending', { type: 'pki', config: { max_lease_ttl: '87600h' } });
  await server.api('POST', 'ending/root/generate/internal', { common_name: 'ending', ttl: '10m', key_type: 'ec' });
  const { data } = await server.api('GET', 'pki/roles/signet');
  await server.api('POST', 'ending/roles/signet', { ...data, issuer_ref: 'default' });
  const { signer, bundle } = impatient(t, 'signet', { mount: 'ending' });
  const signed = await signer.sign(await x509Request('a', { ttlMs: 86_400_000 }), never);
  const [root] = bundle.roots();
  t.true(signed.notAfter <= new X509Certificate(root!).validToDate.getTime());
});

test('a no to the names of one request stops nobody else', async (t) => {
  const tools = agentTools();
  const { signer } = perSvid(t, clientOf(t, t.context, tools), tools, { guard: { failures: 1 } });
  const refused = signer.sign(await x509Request('a', { dnsNames: ['not-allowed.test'] }), never);
  await t.throwsAsync(refused, { message: /not-allowed\.test not allowed by this role.*allowed_domains/ });
  t.like(signer.state(), { breaker: 'closed', problem: undefined });
  await t.notThrowsAsync(signer.sign(await x509Request('b'), never));
});

test('a role that is deleted, and a policy that is taken away, are told with what to do; requests that wait meanwhile get their SVID', async (t) => {
  const { server } = t.context;
  await role(t.context, 'comes', {});
  const { data } = await server.api('GET', 'pki/roles/comes');
  await server.api('DELETE', 'pki/roles/comes');
  const { signer, failures } = impatient(t, 'comes', { guard: { failures: 1, waitMs: 60_000 } });
  const waiting = signer.sign(await x509Request('a'), never);
  await until('the role is missed', () => signer.problem() !== undefined);
  t.regex(signer.problem() ?? '', /unknown role.*write the role pki\/roles\/comes, as deploy\/vault does/);
  t.true(failures.some(({ upstream }) => upstream === 'vault-role'));
  await server.api('POST', 'pki/roles/comes', data);
  t.is((await waiting).chain.length, 1);

  const tools = agentTools();
  const least = perSvid(t, clientOf(t, t.context, tools), tools);
  await t.notThrowsAsync(least.signer.sign(await x509Request('a'), never));
  const { data: policy } = await server.api('GET', 'sys/policies/acl/signet');
  await server.api('POST', 'sys/policies/acl/signet', { policy: 'path "auth/token/renew-self" { capabilities = ["update"] }' });
  const second = least.signer.sign(await x509Request('b'), never);
  await until('the policy is missed', () => least.signer.problem() !== undefined);
  t.regex(least.signer.problem() ?? '', /403.*deploy\/vault/);
  await server.api('POST', 'sys/policies/acl/signet', { policy: policy?.['policy'] });
  t.is((await second).chain.length, 1);
});

test('a start of 250 identities against a Vault that allows 100 requests in five seconds loses none, and none fails', async (t) => {
  const { server } = t.context;
  await server.api('POST', 'sys/quotas/rate-limit/slow', { path: 'pki/', rate: 100, interval: '5s' });
  t.teardown(() => server.api('DELETE', 'sys/quotas/rate-limit/slow'));
  const tools = agentTools();
  const client = clientOf(t, t.context, tools);
  let [limited, underWay, most] = [0, 0, 0];
  const request: typeof client.request = async (...asked) => {
    underWay += 1;
    most = Math.max(most, underWay);
    try {
      return await client.request(...asked);
    } catch (error) {
      if (/429/.test(String(error))) limited += 1;
      throw error;
    } finally {
      underWay -= 1;
    }
  };
  const through = { request, requestOpen: client.requestOpen.bind(client), onReturn: client.onReturn.bind(client) };
  const { signer } = perSvid(t, through, tools, { guard: { perSecond: 200, burst: 200, concurrency: 8 } });
  const failed: string[] = [];
  tools.events.on('issuanceFailed', ({ error }) => void failed.push(error));
  const pair = await newEncodedKeyPair('ec-p256');
  const { clock, random, events } = tools;
  const identities = new X509Identities({ keyType: 'ec-p256', ttlMs: 3_600_000, capacity: 500 }, { signer, newKeyPair: () => Promise.resolve(pair), clock, random, events });
  t.teardown(() => identities.close());
  const leases = Array.from({ length: 250 }, (_, index) => identities.acquire(testEntry(`w/${index}`), () => undefined));
  await until('all have their SVID', () => leases.every((lease) => lease.current() !== undefined));
  t.deepEqual(failed, []);
  t.true(limited > 0, 'Vault has said 429');
  t.true(most <= 8);
});

test('Vault sealed, and stopped: what is valid goes on, the requests wait, and all is well as soon as it is back', async (t) => {
  const { server } = t.context;
  const tools = agentTools();
  const { signer } = perSvid(t, clientOf(t, t.context, tools), tools);
  const { clock, random, events } = tools;
  const identities = new X509Identities({ keyType: 'ec-p256', ttlMs: 3_600_000, capacity: 10 }, { signer, newKeyPair: newEncodedKeyPair, clock, random, events });
  t.teardown(() => identities.close());
  const stop = signer.onRecover(() => identities.retryFailed());
  t.teardown(stop);
  const first = identities.acquire(testEntry('first'), () => undefined);
  await until('the first has its SVID', () => first.current() !== undefined);
  for (const [path, go, back, words] of [
    ['second', () => server.seal(), () => server.unseal(), /sealed/i],
    ['third', () => server.stop(), () => server.start(), /ECONNREFUSED|unreachable|connect/i],
  ] as const) {
    await go();
    const lease = identities.acquire(testEntry(path), () => undefined);
    await until('it is noticed', () => words.test(signer.problem() ?? ''));
    t.truthy(first.current());
    t.is(lease.current(), undefined);
    await back();
    await until(`${path} has its SVID`, () => lease.current() !== undefined);
    t.is(signer.problem(), undefined);
  }
  t.true(tools.failures.some(({ error }) => /sealed/i.test(error)));
});

/** A mount of its own with the role `signet`, and a signer with a token for `policy`, which lets it sign as `path` says. */
async function turning(t: ExecutionContext<PreparedVault>, mount: string, path: string, pollMs: number) {
  const { server } = t.context;
  await addPki(server, mount);
  const { data } = await server.api('GET', 'pki/roles/signet');
  await server.api('POST', `${mount}/roles/signet`, { ...data, issuer_ref: 'default' });
  await server.api('POST', `sys/policies/acl/${mount}`, { policy: `path "${path}" { capabilities = ["update"] }` });
  const directory = mkdtempSync(join(tmpdir(), 'signet-turning-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const tokenFile = join(directory, 'token');
  writeFileSync(tokenFile, await agentToken(server, mount), { mode: 0o600 });
  const tools = agentTools();
  const all = perSvid(t, clientOf(t, { ...t.context, tokenFile }, tools), tools, { mount, pollMs });
  const issuerOf = async (name: string): Promise<string> => new X509Certificate((await all.signer.sign(await x509Request(name), never)).chain[0]!).issuer;
  const turn = async (): Promise<void> => {
    await server.api('POST', `${mount}/root/rotate/internal`, { common_name: 'the next root', ttl: '87600h', key_type: 'ec', issuer_name: 'next' });
    await server.api('POST', `${mount}/root/replace`, { default: 'next' });
  };
  return { ...all, issuerOf, turn };
}

test('a new default issuer signs once its root has been in the bundle for long enough; the one before goes on until then', async (t) => {
  const { bundle, pinned, watch, issuerOf, turn } = await turning(t, 'turning', 'turning/issuer/+/sign/signet', 1_500);
  let replaced = 0;
  pinned.onIssuerChange(({ isReplaced }) => void (replaced += Number(isReplaced)));
  t.is(await issuerOf('a'), 'CN=root of turning');
  await turn();
  t.is(await issuerOf('b'), 'CN=root of turning', 'although the default is another one already, and nobody has looked since');
  await until('the new root is in the bundle', () => bundle.roots().length === 2);
  t.is(replaced, 0);
  t.is(await issuerOf('c'), 'CN=root of turning');
  await until('the new issuer signs', () => replaced === 1);
  t.is(await issuerOf('d'), 'CN=the next root');
  t.is(bundle.roots().length, 2, 'what the old one has signed lives on');
  t.is(watch.overlapMs, 3_000);
});

test('with a policy for the default issuer alone, an unannounced new default holds signing up for the overlap, and no longer', async (t) => {
  const { issuerOf, turn } = await turning(t, 'strict', 'strict/issuer/default/sign/signet', 1_000);
  t.is(await issuerOf('a'), 'CN=root of strict');
  await turn();
  t.is(await issuerOf('b'), 'CN=the next root');
});
