import { X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { readCa } from '../../src/authority/ca-certificate.ts';
import { permittedUriHosts } from '../../src/authority/name-constraints.ts';
import type { UpstreamAnswer } from '../../src/upstream/upstream.ts';
import { PASSWORD, jwkProvisioner, stepCaMissing, stepIntermediate, withTemplate } from '../support/step-ca-server.ts';
import { NAME, openStep, replaced, stepNode, stepScene } from '../support/step-ca-upstream.ts';
import { asking, HOUR, leafOf, openssl } from '../support/vault-intermediates.ts';
import { directory, until } from '../support/vault-upstream.ts';

const missing = stepCaMissing();
const title = (text: string): string => (missing === undefined ? text : `${text} (${missing})`);
const testIf = missing === undefined ? test.serial : test.skip;
const patience = (): AbortSignal => AbortSignal.timeout(20_000);

testIf(title('a JWK provisioner: a node CA with path length 0, the ID of the trust domain and its root beside it; OpenSSL takes a leaf below'), async (t) => {
  const scene = await stepScene(t);
  const opened = openStep(t, scene);
  const node = await stepNode(t, opened);
  const ca = readCa(node.issuer().certificate);
  t.is(ca.pathLength, 0);
  t.is(new X509Certificate(ca.der).subjectAltName, 'URI:spiffe://example.org');
  t.regex(ca.name, /O=Signet, OU=Node CA, serialNumber=\w{32}/);
  t.is(ca.constraints, undefined);
  t.deepEqual(node.intermediates().map((der) => new X509Certificate(der).subject.split('\n').at(-1)?.slice(0, 3)), ['ser', 'CN=']);
  t.deepEqual(node.current().x509Authorities, [scene.root.certificate]);
  t.regex(openssl(t, [await leafOf(node), ...node.intermediates()], node.current().x509Authorities), /: OK/);
  t.deepEqual(opened.told.failed, []);
  t.true(opened.told.answered > 0);
  t.deepEqual(opened.upstream.issuer(), scene.server.parts.intermediate.certificate);
});

testIf(title('nameConstraint uri: given by the template; without it the answer is refused (RFC 5280 §4.2.1.10)'), async (t) => {
  const scene = await stepScene(t, async ({ provisioners }) => ({ provisioners: replaced(provisioners, withTemplate(provisioners[0] ?? { name: '' }, { templateData: { nameConstraint: 'uri' } })) }));
  const node = await stepNode(t, openStep(t, scene), { nameConstraint: 'uri' });
  const { constraints } = readCa(node.issuer().certificate);
  t.deepEqual(constraints === undefined ? undefined : permittedUriHosts(constraints), ['example.org']);
  const plain = await stepScene(t);
  await t.throwsAsync(stepNode(t, openStep(t, plain), { nameConstraint: 'uri' }), { code: 'profile_violation', message: /lacks the critical name constraint/ });
});

testIf(title('an intermediate of path length 0, as `step ca init` makes it, is found before anything is signed below (RFC 5280 §4.2.1.9)'), async (t) => {
  const scene = await stepScene(t, async ({ roots: [root] }) => (root === undefined ? {} : { intermediate: await stepIntermediate(root, 'step ca init', 0) }));
  const opened = openStep(t, scene);
  // step-ca signs all the same.
  const { chain } = await opened.upstream.sign(await asking(), patience());
  t.is(chain.length, 2);
  await t.throwsAsync(stepNode(t, opened), { code: 'profile_violation', message: /above it stands ".*CN=step ca init", and of that: its path length is 0, .*1 CAs? would stand below it|its path length is 0/ });
});

for (const [what, file] of [['fingerprint', false], ['CA file', true]] as const) {
  testIf(title(`the root is pinned by ${what}; a server with another root is never believed`), async (t) => {
    const [scene, other] = [await stepScene(t), await stepScene(t)];
    const right = file ? { caFile: scene.server.caFile } : { fingerprint: scene.server.fingerprint };
    const wrong = file ? { caFile: other.server.caFile } : { fingerprint: other.server.fingerprint };
    const good: UpstreamAnswer = await openStep(t, scene, { pin: right }).upstream.sign(await asking(), patience());
    t.is(good.chain.length, 2);
    const { upstream, told } = openStep(t, scene, { pin: wrong });
    const words = file ? /TLS fails: .*not verified by .*roots\.pem/ : /has no root with the fingerprint [0-9a-f]{64}\. What to do: compare/;
    await t.throwsAsync(upstream.sign(await asking(), patience()), { code: 'authority_unavailable', message: words });
    t.deepEqual(upstream.roots(), []);
    t.is(told.failed.filter((text) => words.test(text)).length, 1);
  });
}

testIf(title('the key of the provisioner: from step-ca with a password, as JWE, JWK or PEM; a wrong password is told and no secret is'), async (t) => {
  const scene = await stepScene(t);
  const place = directory(t);
  const write = (name: string, text: string): string => {
    writeFileSync(join(place, name), text);
    return join(place, name);
  };
  const passwordFile = write('password', `${PASSWORD}\n`);
  const { encryptedKey } = await jwkProvisioner(scene.keys);
  const jwk = JSON.stringify(scene.keys.privateKey.export({ format: 'jwk' }));
  const pem = String(scene.keys.privateKey.export({ format: 'pem', type: 'pkcs8', cipher: 'aes-256-cbc', passphrase: PASSWORD }));
  const common = { type: 'jwk', name: NAME } as const;
  const ways = [{ passwordFile }, { passwordFile, key: write('key.jwe', String(encryptedKey)) }, { key: write('key.jwk', jwk) }, { passwordFile, key: write('key.pem', pem) }];
  for (const way of ways) {
    const { upstream } = openStep(t, scene, { provisioner: { ...common, ...way } });
    t.is((await upstream.sign(await asking(), patience())).chain.length, 2);
  }
  const wrong = write('wrong', 'something else');
  const { upstream, told } = openStep(t, scene, { provisioner: { ...common, passwordFile: wrong } });
  await t.throwsAsync(upstream.sign(await asking(), patience()), { message: /the key in the provisioner signet-node-ca of step-ca cannot be used: the password in .*wrong does not open it/ });
  writeFileSync(wrong, PASSWORD);
  await upstream.sign(await asking(), patience());
  await until(t, 'no problem is left', () => upstream.problem() === undefined);
  t.false(told.failed.join().includes('something else'));
});

testIf(title('an X5C provisioner: a node CA that does not outlive the certificate; then it renews itself, though that has ended'), async (t) => {
  const scene = await stepScene(t);
  const provisioner = await scene.x5c(40_000);
  const opened = openStep(t, scene, { provisioner, renew: true });
  const privateDir = directory(t);
  const node = await stepNode(t, opened, { privateDir });
  const first = new X509Certificate(node.issuer().certificate);
  t.true(first.validToDate.getTime() <= new X509Certificate(readFileSync(provisioner.certificate)).validToDate.getTime());
  t.true(opened.told.lines.some(({ reason = '' }) => reason.includes('node CAs are shortened to that')));
  await node.close();
  // Whoever has no certificate any more has the node CA.
  writeFileSync(provisioner.certificate, '');
  const again = await stepNode(t, opened, { privateDir });
  await until(t, 'it has renewed itself', () => again.status().nodeCaNotAfter !== first.validToDate.getTime());
  const second = new X509Certificate(again.issuer().certificate);
  t.is(second.subject, first.subject);
  t.false(second.publicKey.equals(first.publicKey));
  t.regex(openssl(t, [await leafOf(again), ...again.intermediates()], again.current().x509Authorities), /: OK/);
});

testIf(title('a node CA of the wanted life follows itself by its key; another life, constraint or a refused renewal need a token'), async (t) => {
  const scene = await stepScene(t);
  const { upstream, told, client } = openStep(t, scene, { renew: true });
  const node = await stepNode(t, { upstream, told, client });
  const { privateKey, certificate } = node.issuer();
  const follows = { chain: node.intermediates(), privateKey, nameConstraint: 'none' } as const;
  const subjectOf = ([der]: readonly Buffer[]): string => new X509Certificate(der ?? '').subject;
  const own = subjectOf([certificate]);
  t.is(subjectOf((await upstream.sign({ ...(await asking()), follows }, patience())).chain), own);
  // What came of it was not used, so that it would be the same again.
  t.not(subjectOf((await upstream.sign({ ...(await asking()), follows }, patience())).chain), own);
  for (const change of [{ ttlMs: 2 * HOUR }, { ttlMs: HOUR / 2 }, { nameConstraint: 'uri' } as const]) {
    const other = openStep(t, scene, { renew: true });
    t.not(subjectOf((await other.upstream.sign({ ...(await asking()), follows, ...change }, patience())).chain), own);
  }
  const refused = openStep(t, scene, { renew: true });
  const stranger = await stepNode(t, openStep(t, await stepScene(t)));
  const foreign = { chain: stranger.intermediates(), privateKey: stranger.issuer().privateKey, nameConstraint: 'none' } as const;
  t.is((await refused.upstream.sign({ ...(await asking()), follows: foreign }, patience())).chain.length, 2);
  t.true(refused.told.lines.some(({ event, reason = '' }) => event === 'upstream.warning' && /certificate|TLS|reset/i.test(reason)));
  t.deepEqual(refused.told.failed, []);
});
