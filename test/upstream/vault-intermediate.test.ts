import 'reflect-metadata';
import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as x509 from '@peculiar/x509';
import test from 'ava';
import { newKeyPair } from '../../src/authority/keys.ts';
import { permittingUriHost } from '../../src/authority/name-constraints.ts';
import { judgeAnswer } from '../../src/authority/node-ca.ts';
import { readPem } from '../../src/spiffe/pem.ts';
import { asking, HOUR, ID, leafOf, openIntermediate, openNode, openssl, tokenWith, type Body, type OpenedIntermediate } from '../support/vault-intermediates.ts';
import { startVault, vaultMissing, type VaultServer } from '../support/vault-server.ts';
import { connect, directory, emptyPkiMount, freshName, pkiMount, trustDomain } from '../support/vault-upstream.ts';

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

for (const nameConstraint of ['none', 'uri'] as const) {
  testIf(title(`the documented policy is enough for a node CA that OpenSSL takes in strict mode (name constraint ${nameConstraint})`), async (t) => {
    const mount = await pkiMount(t, vault);
    const opened = await openIntermediate(t, vault, mount, { setup: { NAME_CONSTRAINT: nameConstraint } });
    const node = await openNode(t, opened, { nameConstraint });
    // What Vault says of every node CA is nothing to tell.
    t.deepEqual(opened.told.lines, []);
    const leaf = await leafOf(node);
    const ca = new x509.X509Certificate(node.issuer().certificate);
    t.regex(openssl(t, [leaf, ...node.intermediates()], node.current().x509Authorities), /: OK/);
    t.is(ca.getExtension(x509.BasicConstraintsExtension)?.pathLength, 0);
    for (const part of [/O=Signet/, /OU=Node CA/, /2\.5\.4\.5=[0-9a-f]{32}/]) t.regex(ca.subject, part);
    t.is(ca.getExtension('2.5.29.30') !== null, nameConstraint === 'uri');
    t.regex(openssl(t, [await leafOf(node, 'spiffe://evil.org/a'), ...node.intermediates()], node.current().x509Authorities), nameConstraint === 'uri' ? /permitted subtree violation/ : /: OK/);
  });
}

testIf(title('the AKI of a leaf is the SKI of the node CA as Vault has written it'), async (t) => {
  const node = await openNode(t, await openIntermediate(t, vault, await pkiMount(t, vault)));
  const [leaf, ca] = [new x509.X509Certificate(await leafOf(node)), new x509.X509Certificate(node.issuer().certificate)];
  t.truthy(ca.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId);
  t.is(leaf.getExtension(x509.AuthorityKeyIdentifierExtension)?.keyId, ca.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId);
});

testIf(title('a policy compares texts: a path length as a number is refused, and so is what we never ask'), async (t) => {
  const mount = await pkiMount(t, vault);
  for (const wrong of [{ max_path_length: 0 }, { max_path_length: '1' }, { uri_sans: 'spiffe://evil.org' }, { use_csr_values: true }, { key_usage: 'DigitalSignature' }]) {
    const dir = directory(t);
    const policy = freshName('policy');
    await vault.setup({ TRUST_DOMAIN: trustDomain, PKI_MOUNT: mount, POLICY: policy });
    writeFileSync(join(dir, 'token'), await tokenWith(vault, policy));
    const { client } = connect(t, vault, { method: 'token', tokenFile: join(dir, 'token') });
    const body = { csr: 'x', format: 'pem', ttl: '60s', max_path_length: '0', uri_sans: ID };
    const path = `${mount}/issuer/default/sign-intermediate`;
    await t.throwsAsync(client.request('POST', path, { body: { ...body, ...wrong } }), { message: /permission denied/ }, JSON.stringify(wrong));
    // With the values that are allowed it is the CSR that is not.
    await t.throwsAsync(client.request('POST', path, { body }), { message: /400/ });
  }
});

testIf(title('a policy that wants the name constraint refuses a node CA without'), async (t) => {
  const { upstream } = await openIntermediate(t, vault, await pkiMount(t, vault), { setup: { NAME_CONSTRAINT: 'uri' } });
  await t.throwsAsync(upstream.sign(await asking('none'), PATIENCE()), { message: /sign-intermediate: 403: .*deploy\/vault/ });
});

testIf(title('a CSR that overrides the constraint through use_csr_values is found out by its answer (XS-17)'), async (t) => {
  const mount = await pkiMount(t, vault);
  const keys = await newKeyPair('ec-p256');
  const csr = await x509.Pkcs10CertificateRequestGenerator.create({
    name: 'O=Signet',
    keys: { publicKey: keys.publicKey.toCryptoKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['verify']), privateKey: keys.privateKey.toCryptoKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']) },
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
    extensions: [new x509.Extension('2.5.29.30', true, permittingUriHost('evil.org')), new x509.SubjectAlternativeNameExtension([{ type: 'url', value: ID }])],
  });
  const { upstream } = await openIntermediate(t, vault, mount, { rewrite: (body) => ({ ...body, csr: csr.toString('pem'), use_csr_values: true }) });
  const answer = await upstream.sign(await asking('uri', keys), PATIENCE());
  const judge = (): unknown => judgeAnswer(answer, { trustDomain, keys, latestEnd: Date.now() + 2 * HOUR, nameConstraint: 'uri', acceptUnconstrainedCA: true }, Date.now());
  t.throws(judge, { message: /permit URIs of evil\.org and not of example\.org/ });
});

const WEAKER: readonly (readonly [what: string, without: string, message: RegExp])[] = [
  ['path length', 'max_path_length', /its path length is not limited and not 0/],
  ['the name constraint that was asked for', 'permitted_uri_domains', /it lacks the critical name constraint to URIs of example\.org/],
];
for (const [what, without, message] of WEAKER) {
  testIf(title(`a node CA without ${what} is refused unless acceptUnconstrainedCA is set`), async (t) => {
    const mount = await pkiMount(t, vault);
    const rewrite = (body: Body): Body => Object.fromEntries(Object.entries(body).filter(([key]) => key !== without));
    await t.throwsAsync(openNode(t, await openIntermediate(t, vault, mount, { rewrite }), { nameConstraint: 'uri' }), { message });
    const node = await openNode(t, await openIntermediate(t, vault, mount, { rewrite }), { nameConstraint: 'uri', acceptUnconstrainedCA: true });
    t.regex(openssl(t, [await leafOf(node), ...node.intermediates()], node.current().x509Authorities), /: OK/);
  });
}

const FORGED: readonly (readonly [what: string, change: Body, message: RegExp])[] = [
  ['another trust domain', { uri_sans: 'spiffe://evil.org' }, /spiffe:\/\/evil\.org/],
  ['two trust domains', { uri_sans: 'spiffe://example.org,spiffe://evil.org' }, /spiffe:\/\/evil\.org/],
  ['no SPIFFE ID', { uri_sans: '' }, /its URI SANs are \[\]/],
];
for (const [what, change, message] of FORGED) {
  testIf(title(`a node CA of ${what} is refused even with acceptUnconstrainedCA`), async (t) => {
    const opened = await openIntermediate(t, vault, await pkiMount(t, vault), { rewrite: (body) => ({ ...body, ...change }) });
    await t.throwsAsync(openNode(t, opened, { acceptUnconstrainedCA: true }), { message });
  });
}

testIf(title('a node CA for another key is refused'), async (t) => {
  const other = await asking();
  const csr = `-----BEGIN CERTIFICATE REQUEST-----\n${(await other.csr()).toString('base64')}\n-----END CERTIFICATE REQUEST-----\n`;
  const opened = await openIntermediate(t, vault, await pkiMount(t, vault), { rewrite: (body) => ({ ...body, csr }) });
  await t.throwsAsync(openNode(t, opened), { message: /it holds another public key/ });
});

const CUTS: readonly (readonly [by: string, cut: (mount: string) => Promise<unknown>])[] = [
  ['the mount', (mount) => vault.api('POST', `sys/mounts/${mount}/tune`, { max_lease_ttl: '600s' })],
  ['the end of its issuer', (mount) => vault.api('POST', `${mount}/root/rotate/internal`, { common_name: 'short', ttl: '600s', key_type: 'ec', issuer_name: 'short' }).then(() => vault.api('POST', `${mount}/root/replace`, { default: 'short' }))],
];
for (const [by, cut] of CUTS) {
  testIf(title(`a life that is cut by ${by} without an error is what renewal is planned from, and is told`), async (t) => {
    const mount = await pkiMount(t, vault);
    await cut(mount);
    const opened = await openIntermediate(t, vault, mount);
    const node = await openNode(t, opened, { ttlMs: 24 * HOUR });
    const { nodeCaNotAfter = 0 } = node.status();
    t.true(nodeCaNotAfter > Date.now() && nodeCaNotAfter <= Date.now() + 600_000, new Date(nodeCaNotAfter).toISOString());
    t.true(opened.told.lines.some(({ event, reason }) => event === 'upstream.warning' && /ttl|notAfter/i.test(reason ?? '')));
  });
}

testIf(title('a node CA begins earlier than now by five minutes, but never before its issuer'), async (t) => {
  const old = await openIntermediate(t, vault, await pkiMount(t, vault, { not_before_duration: '2h' }));
  const young = await openIntermediate(t, vault, await pkiMount(t, vault));
  const began = async ({ upstream }: OpenedIntermediate): Promise<number> => {
    const [der = Buffer.alloc(0)] = (await upstream.sign(await asking(), PATIENCE())).chain;
    return Date.now() - new X509Certificate(der).validFromDate.getTime();
  };
  t.true((await began(old)) >= 300_000);
  t.true((await began(young)) < 120_000);
});

testIf(title('under an intermediate in Vault the chain goes up to the root, which may be in Vault or in a file'), async (t) => {
  const [above, mount] = [await pkiMount(t, vault), await emptyPkiMount(t, vault)];
  const made = await vault.api('POST', `${mount}/intermediate/generate/internal`, { common_name: 'middle', organization: 'Tests', key_type: 'ec' });
  const signed = await vault.api('POST', `${above}/root/sign-intermediate`, { csr: made.data?.['csr'], ttl: '1000h', common_name: 'middle', max_path_length: 1, format: 'pem' });
  const [certificate, root] = [String(signed.data?.['certificate']), String(signed.data?.['issuing_ca'])];
  await vault.api('POST', `${mount}/intermediate/set-signed`, { certificate });
  const file = join(directory(t), 'root.crt');
  writeFileSync(file, root);
  const rootDer = readPem(root)[0]?.der;

  const withFile = await openNode(t, await openIntermediate(t, vault, mount, { options: { roots: [file] } }));
  t.is(withFile.intermediates().length, 2);
  t.deepEqual(withFile.current().x509Authorities, [rootDer]);
  t.regex(openssl(t, [await leafOf(withFile), ...withFile.intermediates()], withFile.current().x509Authorities), /: OK/);

  await t.throwsAsync(openNode(t, await openIntermediate(t, vault, mount)), { message: /no root that is given verifies it/ });

  await vault.api('POST', `${mount}/issuers/import/bundle`, { pem_bundle: root });
  const withImport = await openNode(t, await openIntermediate(t, vault, mount));
  t.is(withImport.intermediates().length, 2);
  t.deepEqual(withImport.current().x509Authorities, [rootDer]);
});

testIf(title('an issuer whose path length leaves no room is named'), async (t) => {
  const [above, mount] = [await pkiMount(t, vault), await emptyPkiMount(t, vault)];
  const made = await vault.api('POST', `${mount}/intermediate/generate/internal`, { common_name: 'tight', organization: 'Tests', key_type: 'ec' });
  const signed = await vault.api('POST', `${above}/root/sign-intermediate`, { csr: made.data?.['csr'], ttl: '1000h', common_name: 'tight', max_path_length: 0, format: 'pem' });
  await vault.api('POST', `${mount}/intermediate/set-signed`, { certificate: [signed.data?.['certificate'], signed.data?.['issuing_ca']].join('\n') });
  const node = await openNode(t, await openIntermediate(t, vault, mount));
  t.regex(node.status().failing ?? '', /sign-intermediate: 400: signing certificate has a max path length of zero/);
});

testIf(title('an issuer or a mount that is not there is named'), async (t) => {
  const mount = await pkiMount(t, vault);
  const sign = async (at: string, issuer: string): Promise<unknown> => {
    const { upstream } = await openIntermediate(t, vault, at, { options: { issuer } });
    return upstream.sign(await asking(), PATIENCE());
  };
  await t.throwsAsync(sign(mount, 'nonsense'), { message: /issuer\/nonsense\/json: 500: unable to find PKI issuer for reference: nonsense/ });
  await t.throwsAsync(sign('nowhere', 'default'), { message: /nowhere\/issuer\/default\/json: 40[34]/ });
});

