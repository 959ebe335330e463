import 'reflect-metadata';
import { request as httpsRequest, createServer, type Server } from 'node:https';
import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import * as x509 from '@peculiar/x509';
import test, { type ExecutionContext } from 'ava';
import { notToBeRenewed } from '../../src/assembly/step-ca.ts';
import { createCsr } from '../../src/authority/certificate.ts';
import { newKeyPair, type KeyPair } from '../../src/authority/keys.ts';
import { permittingUriHost } from '../../src/authority/name-constraints.ts';
import { NodeX509Signer } from '../../src/authority/x509-signer.ts';
import { SystemClock } from '../../src/clock.ts';
import { systemRandom } from '../../src/random.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import type { WireLimits } from '../../src/upstream/wire/limits.ts';
import { certificatePem, keyPem, testCa, type TestCa, type TestCaOptions } from '../support/authorities.ts';
import { answers, cutBefore, cutWithin, delayed, FaultProxy, rewritten, silent, truncated, type Fault, type Origin } from '../support/fault-proxy.ts';
import { createLeaf } from '../support/library-certificates.ts';
import { stepCaMissing, stepRoot, type StepCaServer } from '../support/step-ca-server.ts';
import { openStep, stepNode, stepScene, type StepScene } from '../support/step-ca-upstream.ts';
import { asking } from '../support/vault-intermediates.ts';
import { trustDomain, until } from '../support/vault-upstream.ts';

// What a real step-ca does not do when a test wants it; the real one stands behind.

const missing = stepCaMissing();
const title = (text: string): string => (missing === undefined ? text : `${text} (${missing})`);
const testIf = missing === undefined ? test.serial : test.skip;
const patience = (): AbortSignal => AbortSignal.timeout(20_000);
const LIMITS: Partial<WireLimits> = { connectMs: 2_000, answerMs: 700, bytes: 65_536 };

/** The server behind, whoever asks. */
function originOf(server: StepCaServer): Origin {
  return async ({ method, target, body }) => {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const headers = { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)) };
    httpsRequest(new URL(target, server.address), { method, headers, agent: false, ca: readFileSync(server.caFile, 'utf8') }, resolve).on('error', reject).end(body);
    const incoming = await promise;
    const chunks: Buffer[] = [];
    for await (const chunk of incoming as AsyncIterable<Buffer>) chunks.push(chunk);
    return { status: incoming.statusCode ?? 0, body: Buffer.concat(chunks).toString('utf8') };
  };
}

let scene: StepScene;
const ends: (() => unknown)[] = [];
test.before(async () => {
  if (missing !== undefined) return;
  scene = await stepScene({ teardown: (end: () => unknown) => void ends.push(end) } as unknown as ExecutionContext);
});
test.after.always(async () => {
  for (const end of ends.reverse()) await end();
});

async function behindProxy(t: ExecutionContext) {
  const proxy = await FaultProxy.start(t, originOf(scene.server));
  const place = { jwk: scene.jwk, server: { address: proxy.address, fingerprint: '' } };
  return { proxy, opened: openStep(t, place, { pin: { caFile: proxy.caFile }, limits: LIMITS }) };
}

const BIG = JSON.stringify({ crts: ['x'.repeat(100_000)] });
const FAULTS: readonly (readonly [string, Fault, RegExp])[] = [
  ['no answer', silent, /no complete answer after 700 ms/],
  ['a late answer', delayed(1_500), /no complete answer after 700 ms/],
  ['a connection that is cut before the answer', cutBefore, /cannot be reached: /],
  ['a connection that is cut within the answer', cutWithin, /cannot be reached: .*aborted/],
  ['half an answer', truncated, /the answer is not a JSON object/],
  ['something that is no JSON', answers(201, '<html>'), /the answer is not a JSON object/],
  ['a JSON text', answers(201, '"crt"'), /the answer is not a JSON object/],
  ['an empty object', answers(201, '{}'), /names no root|holds none/],
  ['certificates that are none', answers(201, JSON.stringify({ crt: 'x', crts: ['-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----'], certChain: ['-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----'] })), /holds a certificate that cannot be read/],
  ['a huge answer', answers(201, BIG), /the answer is larger than 65536 bytes/],
  ['many certificates', answers(201, JSON.stringify({ crts: Array.from({ length: 65 }, () => 'x'), certChain: Array.from({ length: 65 }, () => 'x') })), /holds 65 certificates, more than 64/],
  ['a redirect', answers(302, '', { location: 'https://elsewhere.example/a' }), /leads to https:\/\/elsewhere\.example, which is not followed/],
  ['too many requests', answers(429, '{"status":429,"message":"slow down"}'), /429: slow down/],
  ['an error of the server', answers(500, '{"status":500,"message":"\\u001b[31m\\n oops"}'), /500: \[31m oops: What to do: see the log of step-ca/],
  ['a gateway without a server', answers(502, 'Bad Gateway'), /502: Bad Gateway/],
  ['a 401 without a reason', answers(401, '{"status":401,"message":"lacked necessary authorization"}'), /lacked necessary authorization/],
];

for (const [what, fault, words] of FAULTS) {
  testIf(title(`${what}: told, the roots stay, and it is found again without a restart`), async (t) => {
    const { proxy, opened } = await behindProxy(t);
    const { upstream, told } = opened;
    await upstream.sign(await asking(), patience());
    await until(t, 'the roots are known', () => upstream.roots().length > 0);
    const roots = upstream.roots();
    proxy.break(fault);
    await t.throwsAsync(upstream.sign(await asking(), patience()), { code: 'authority_unavailable', message: words });
    await until(t, 'it is told', () => told.failed.some((text) => words.test(text)));
    t.deepEqual(upstream.roots(), roots);
    proxy.mend();
    await until(t, 'it is worth asking again, and nothing is wrong', () => {
      if (upstream.problem() === undefined) return true;
      void asking().then((request) => upstream.sign(request, patience())).catch(() => undefined);
      return false;
    });
    await upstream.sign(await asking(), patience());
  });
}

testIf(title('a 401 for which nothing is wrong here says so, and with what else to compare'), async (t) => {
  const { proxy, opened } = await behindProxy(t);
  proxy.break(answers(401, '{"status":401,"message":"lacked necessary authorization"}'), /sign/);
  await t.throwsAsync(opened.upstream.sign(await asking(), patience()), { message: /does not say why\. Provisioner and key are as they should be\. Perhaps authority\.stepCa\.address or serverName is none of the dnsNames of step-ca/ });
});

testIf(title('a step-ca that does not tell its intermediates signs too'), async (t) => {
  const { proxy, opened } = await behindProxy(t);
  proxy.break(answers(404, '{"status":404,"message":"not found"}'), /intermediates/);
  const node = await stepNode(t, opened);
  t.is(node.intermediates().length, 2);
  t.is(opened.upstream.issuer(), undefined);
});

testIf(title('the paths that deploy/step-ca lists are all that is asked for without renew; with it, a token is used where rekey does not get through'), async (t) => {
  const { proxy, opened } = await behindProxy(t);
  const listed = /^\/(health|1\.0\/(root\/\w+|roots|intermediates|provisioners\?.*|sign))$/;
  proxy.break(answers(403, '{"status":403,"message":"not let through"}'), new RegExp(`^(?!${listed.source.slice(1)})`));
  const node = await stepNode(t, opened);
  const follows = { chain: node.intermediates(), privateKey: node.issuer().privateKey, nameConstraint: 'none' } as const;
  t.is(proxy.faulty, 0);
  const { jwk } = scene;
  const renewing = openStep(t, { jwk, server: { address: proxy.address, fingerprint: '' } }, { pin: { caFile: proxy.caFile }, renew: true });
  t.is((await renewing.upstream.sign({ ...(await asking()), follows }, patience())).chain.length, 2);
  t.is(proxy.faulty, 1);
  t.true(renewing.told.lines.some(({ reason = '' }) => /rekey: 403: not let through/.test(reason)));
  t.deepEqual(renewing.told.failed, []);
});

testIf(title('an answer for another key is refused, and the last node CA goes on'), async (t) => {
  const { proxy, opened } = await behindProxy(t);
  const kept = (await opened.upstream.sign(await asking(), patience())).chain.map((der) => certificatePem(der));
  proxy.break(rewritten(() => JSON.stringify({ crt: kept[0], ca: kept[1], certChain: kept })), /sign/);
  await t.throwsAsync(stepNode(t, opened), { code: 'profile_violation', message: /holds another public key/ });
});

/** A server with a certificate for 127.0.0.1 under `parent`. */
async function impostor(t: ExecutionContext, parent: TestCa, above: readonly Buffer[], changes: TestCaOptions = {}): Promise<URL> {
  const names = new x509.SubjectAlternativeNameExtension([{ type: 'ip', value: '127.0.0.1' }]);
  const leaf = await testCa({ parent, name: 'CN=Step Online CA', ca: false, uses: 1, more: [names], from: Date.now() - 1_000, to: Date.now() + 3_600_000, ...changes });
  const server: Server = createServer({ cert: certificatePem(leaf.certificate, ...above), key: keyPem(leaf) }, (_, response) => response.end('{}'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());
  return new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}`);
}

testIf(title('a server that a node CA has certified is not step-ca, though its root is the pinned one'), async (t) => {
  const node = await stepNode(t, openStep(t, scene));
  const { privateKey, publicKey, subjectName, subjectKeyId } = node.issuer();
  const nodeCa: TestCa = { privateKey, publicKey, certificate: node.issuer().certificate, name: new x509.Name(subjectName), keyId: subjectKeyId.toString('hex') };
  const address = await impostor(t, nodeCa, node.intermediates());
  const { upstream } = openStep(t, { jwk: scene.jwk, server: { address, fingerprint: '' } }, { pin: { caFile: scene.server.caFile } });
  await t.throwsAsync(upstream.sign(await asking(), patience()), { message: /has a SPIFFE ID: a node CA has signed it, and not the CA of step-ca/ });
});

testIf(title('a certificate of the same root for another name is not that of step-ca'), async (t) => {
  const names = new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: 'other.example.org' }]);
  const { intermediate } = scene.server.parts;
  const address = await impostor(t, intermediate, [intermediate.certificate], { more: [names] });
  const { upstream } = openStep(t, { jwk: scene.jwk, server: { address, fingerprint: '' } }, { pin: { caFile: scene.server.caFile } });
  await t.throwsAsync(upstream.sign(await asking(), patience()), { message: /ERR_TLS_CERT_ALTNAME_INVALID.*set serverName/ });
});

testIf(title('step-ca renews whatever a node CA has signed without a mark, with disableRenewal too, and no leaf of the agent: deploy/step-ca'), async (t) => {
  const own = await stepScene(t, async ({ roots: [root], provisioners }) => ({
    provisioners: provisioners.map((entry) => ({ ...entry, claims: { ...(entry['claims'] as object), disableRenewal: true } })),
    intermediate: await stepRoot('step intermediate', { ...(root === undefined ? {} : { parent: root }), pathLength: 1, more: [new x509.Extension('2.5.29.30', true, permittingUriHost('example.org'))] }),
  }));
  const { client, upstream, told } = openStep(t, own);
  const node = await stepNode(t, { client, upstream, told });
  const issuer = node.issuer();
  const csr = await createCsr(await newKeyPair('ec-p256'), trustDomain, systemRandom);
  const renewed = async (keys: KeyPair, der: Buffer): Promise<x509.X509Certificate> => {
    const [first] = await client.rekey({ chain: [der, ...node.intermediates()], privateKey: keys.privateKey }, csr, patience());
    return new x509.X509Certificate(first ?? Buffer.alloc(0));
  };
  const keys = await newKeyPair('ec-p256');
  const now = Math.floor(Date.now() / 1_000) * 1_000;
  const { der } = await createLeaf(issuer, { id: parseSpiffeId('spiffe://example.org/w'), publicKey: keys.publicKey, dnsNames: [], notBefore: now - 60_000, notAfter: now + 60_000 }, systemRandom);
  t.regex((await renewed(keys, der)).issuer, /CN=step intermediate/);
  const parent: TestCa = { ...issuer, name: new x509.Name(issuer.subjectName), keyId: issuer.subjectKeyId.toString('hex') };
  const evil = await testCa({ parent, name: 'CN=evil', uris: ['spiffe://example.org/anybody'], uses: 5, from: now - 60_000, to: now + 3_650 * 86_400_000 });
  const ca = await renewed(evil, evil.certificate);
  t.true(ca.getExtension(x509.BasicConstraintsExtension)?.ca);
  t.true(ca.notAfter.getTime() > now + 3_600 * 86_400_000);
  const foreign = await testCa({ parent, name: 'CN=foreign', uris: ['spiffe://other.example'], uses: 5, from: now - 60_000, to: now + 60_000 });
  await t.throwsAsync(renewed(foreign, foreign.certificate));
  // What the agent's leaves bear, and no one who has only a leaf can take off.
  const source = { ready: async () => undefined, issuer: () => issuer, intermediates: () => node.intermediates() };
  const signer = new NodeX509Signer(source, trustDomain, new SystemClock(), systemRandom, notToBeRenewed);
  const publicKey = keys.publicKey.export({ format: 'der', type: 'spki' });
  const { chain: [marked = Buffer.alloc(0)] } = await signer.sign({ id: parseSpiffeId('spiffe://example.org/w'), publicKey, dnsNames: [], ttlMs: 60_000, csr: () => Promise.reject(new Error('not asked for')) }, patience());
  await t.throwsAsync(renewed(keys, marked), { message: /401/ });
});

testIf(title('the one root of a fingerprint comes from whoever answers, and only its digest makes it the root'), async (t) => {
  const stranger = await stepRoot('a stranger');
  const proxy = await FaultProxy.start(t, originOf(scene.server));
  proxy.break(answers(200, JSON.stringify({ ca: certificatePem(stranger.certificate) })), /\/root\//);
  const { upstream } = openStep(t, { jwk: scene.jwk, server: { address: proxy.address, fingerprint: scene.server.fingerprint } });
  await t.throwsAsync(upstream.sign(await asking(), patience()), { message: /has no root with the fingerprint/ });
  // The true root does not verify the proxy either: it has a certificate of its own.
  proxy.mend();
  await t.throwsAsync(upstream.sign(await asking(), patience()), { message: /TLS fails: .*not verified by the root with the fingerprint/ });
  t.deepEqual(upstream.roots(), []);
});
