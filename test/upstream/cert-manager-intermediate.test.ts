import 'reflect-metadata';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as x509 from '@peculiar/x509';
import test, { type ExecutionContext } from 'ava';
import { createCompleteCsr } from '../../src/authority/complete-csr.ts';
import { newKeyPair } from '../../src/authority/keys.ts';
import { NodeAuthority, type NodeAuthorityOptions } from '../../src/authority/node-authority.ts';
import { refusal } from '../../src/kubernetes/api-error.ts';
import { systemRandom } from '../../src/random.ts';
import { CertManagerError } from '../../src/upstream/cert-manager/cert-manager-error.ts';
import { CertManagerIntermediate } from '../../src/upstream/cert-manager/intermediate.ts';
import type { UpstreamAnswer, UpstreamRequest } from '../../src/upstream/upstream.ts';
import { certificatePem, testCa } from '../support/authorities.ts';
import { believed, issued, ISSUER, openRoom, ready, signOpen, trustDomain, type Room } from '../support/cert-manager-room.ts';
import { settle } from '../support/signers.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

function openUpstream(t: ExecutionContext, options: Parameters<typeof openRoom>[1] = {}): { room: Room; upstream: CertManagerIntermediate } {
  const room = openRoom(t, options);
  return { room, upstream: new CertManagerIntermediate(ISSUER, { ...room.tools, ...room }) };
}

async function asking(nameConstraint: 'none' | 'uri' = 'none'): Promise<UpstreamRequest> {
  const keys = await newKeyPair('ec-p256');
  return { trustDomain, publicKey: keys.publicKey, ttlMs: DAY, nameConstraint, csr: () => createCompleteCsr(keys, { trustDomain, nameConstraint }, systemRandom) };
}

async function sign(upstream: CertManagerIntermediate): Promise<{ outcome: Promise<UpstreamAnswer | CertManagerError> }> {
  const outcome = upstream.sign(await asking(), new AbortController().signal).catch((error: unknown) => error as CertManagerError);
  await settle();
  await settle();
  return { outcome };
}

/** Waits until a node CA is asked for; making its key takes real time. */
async function isAsked({ client }: Room): Promise<void> {
  for (let turn = 0; client.requests.length === 0; turn += 1) {
    if (turn > 2_000) throw new Error('nothing was asked');
    await settle();
  }
}

test('a complete request has a common name, the trust domain, no more uses than a CA, and the constraint when it is asked for', async (t) => {
  for (const nameConstraint of ['none', 'uri'] as const) {
    const csr = new x509.Pkcs10CertificateRequest(await (await asking(nameConstraint)).csr());
    t.true(await csr.verify());
    t.regex(csr.subject, /^CN=Signet node CA [0-9a-f]{16}, O=Signet, OU=Node CA$/);
    t.deepEqual((csr.getExtension('2.5.29.17') as x509.SubjectAlternativeNameExtension | null)?.names.items.map(({ value }) => value), ['spiffe://example.org']);
    t.is((csr.getExtension('2.5.29.15') as x509.KeyUsagesExtension | null)?.usages, x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign);
    t.is(csr.getExtension('2.5.29.30')?.critical, nameConstraint === 'uri' ? true : undefined);
  }
});

test('an answer without status.ca: its root is the one that the operator has named', async (t) => {
  const { room, upstream } = openUpstream(t);
  const { outcome } = await sign(upstream);
  const certificate = await signOpen(room, believed);
  room.client.answer(issued(certificatePem(certificate)));
  t.deepEqual(await outcome, { chain: [certificate], roots: [believed.certificate] });
  t.is(upstream.problem(), undefined);
});

test('an issuer below the root: what lies between is found in the chain, or in status.ca', async (t) => {
  const parent = await testCa({ parent: believed });
  for (const place of ['certificate', 'ca'] as const) {
    const { room, upstream } = openUpstream(t);
    const { outcome } = await sign(upstream);
    const certificate = await signOpen(room, parent);
    const [chain, ca] = place === 'certificate' ? [certificatePem(certificate, parent.certificate), certificatePem(believed.certificate)] : [certificatePem(certificate), certificatePem(parent.certificate)];
    room.client.answer(issued(chain, ca));
    t.deepEqual(await outcome, { chain: [certificate, parent.certificate], roots: [believed.certificate] });
  }
});

test('a root that comes as status.ca is not believed for that: nothing of it is used, and what to do is told', async (t) => {
  const stranger = await testCa({ name: 'CN=Stranger' });
  const { room, upstream } = openUpstream(t);
  const { outcome } = await sign(upstream);
  room.client.answer(issued(certificatePem(await signOpen(room, stranger)), certificatePem(stranger.certificate)));
  const error = (await outcome) as CertManagerError;
  t.like(error, { fault: 'unknown_root', code: 'authority_unavailable' });
  t.regex(error.message, /stands under "CN=Stranger", and no root of authority\.certManager verifies it\. What to do: add its root there/);
  t.deepEqual(room.failed, [error.message]);
  t.is(upstream.problem(), error.message);
  t.deepEqual(upstream.roots(), [believed.certificate]);
});

for (const [what, pem] of [
  ['no PEM', 'garbage'],
  ['PEM around garbage', '-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n'],
  ['a block that does not end', '-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n'],
] as const) {
  test(`an answer with ${what} is told and not used`, async (t) => {
    const { room, upstream } = openUpstream(t);
    const { outcome } = await sign(upstream);
    room.client.answer(issued(pem));
    t.is(((await outcome) as CertManagerError).fault, 'malformed');
    t.is(room.failed.length, 1);
  });
}

test('a clock of cert-manager that is ahead is waited for, and told', async (t) => {
  const { room, upstream } = openUpstream(t);
  const { outcome } = await sign(upstream);
  let isOver = false;
  void outcome.then(() => (isOver = true));
  const now = room.clock.now();
  room.client.answer(issued(certificatePem(await signOpen(room, believed, { from: now + 60_000, to: now + DAY }))));
  await room.pass(59_000);
  t.false(isOver);
  await room.pass(2_000);
  t.true(isOver);
  t.true(room.lines.some(({ event, reason }) => event === 'upstream.warning' && /begins in 60 s/.test(String(reason))));
});

test('without roots nothing is asked; they are waited for, and told what is missing', async (t) => {
  const { room, upstream } = openUpstream(t, { prepare: (client) => client.objects.clear() });
  const signal = new AbortController();
  const outcome = upstream.sign(await asking(), signal.signal).catch((error: unknown) => error as CertManagerError);
  await room.pass(11_000);
  t.deepEqual(room.client.requests, []);
  t.regex(room.failed[0] ?? '', /the ConfigMap signet-system\/signet-roots \(ca\.crt\) does not exist\. What to do: make it, or name another one/);
  let changes = 0;
  upstream.onChange(() => void (changes += 1));
  room.believe(believed);
  await isAsked(room);
  t.is(changes, 1);
  const certificate = await signOpen(room, believed);
  room.client.answer(issued(certificatePem(certificate)));
  t.like(await outcome, { chain: [certificate] });
});

async function openNode(t: ExecutionContext, room: Room, upstream: CertManagerIntermediate, more: Partial<NodeAuthorityOptions> = {}): Promise<NodeAuthority> {
  const privateDir = more.privateDir ?? directory(t);
  const options = { trustDomain, privateDir, ttlMs: DAY, nameConstraint: 'none', acceptUnconstrainedCA: true, ...more } as const;
  const node = await NodeAuthority.open(options, { ...room.tools, random: systemRandom, upstream });
  t.teardown(() => node.close());
  return node;
}

function directory(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'signet-cert-manager-test-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Answers the next request by `parent`. */
async function answerNext(room: Room, changes: Parameters<typeof signOpen>[2] = {}): Promise<void> {
  await isAsked(room);
  room.client.answer(issued(certificatePem(await signOpen(room, believed, changes))));
}

test('a CA without path length is refused until it is accepted, and the error says how (RFC 5280 §4.2.1.9)', async (t) => {
  const { room, upstream } = openUpstream(t);
  const opening = openNode(t, room, upstream, { acceptUnconstrainedCA: false });
  await answerNext(room);
  await t.throwsAsync(opening, { code: 'profile_violation', message: /its path length is not limited and not 0 .*authority\.acceptUnconstrainedCA takes it/ });
});

test('a CA that would outlive its issuer ends with it, and its leaves do (RFC 5280 §6.1)', async (t) => {
  const { room, upstream } = openUpstream(t);
  const parent = await testCa({ parent: believed, to: room.clock.now() + 6 * HOUR });
  const opening = openNode(t, room, upstream);
  await isAsked(room);
  const certificate = await signOpen(room, parent);
  t.true(new X509Certificate(certificate).validToDate.getTime() > room.clock.now() + 23 * HOUR);
  room.client.answer(issued(certificatePem(certificate, parent.certificate)));
  t.is((await opening).issuer().notAfter, room.clock.now() + 6 * HOUR);
});

test('a CA that begins in this moment signs only when it is some minutes old, where another goes on', async (t) => {
  const { room, upstream } = openUpstream(t);
  const opening = openNode(t, room, upstream);
  await answerNext(room);
  const node = await opening;
  const first = node.issuer().subject;
  // Renewed between 0.4 and 0.6 of its life.
  room.clock.advance(15 * HOUR);
  await answerNext(room);
  await node.idle();
  t.is(node.issuer().subject, first);
  await room.pass(299_000);
  t.is(node.issuer().subject, first);
  await room.pass(2_000);
  await node.idle();
  t.not(node.issuer().subject, first);
});

test('an agent that starts again does not wait for cert-manager: what it has kept serves', async (t) => {
  const { room, upstream } = openUpstream(t);
  const privateDir = directory(t);
  const opening = openNode(t, room, upstream, { privateDir });
  await answerNext(room);
  const first = await opening;
  const { subject } = first.issuer();
  await first.close();
  // Its renewal is due, and nobody answers.
  room.clock.advance(20 * HOUR);
  let isOpen = false;
  const again = openNode(t, room, upstream, { privateDir }).then((node) => {
    isOpen = true;
    return node;
  });
  await isAsked(room);
  for (let passed = 0; passed < 3_000 && !isOpen; passed += 500) {
    await settle();
    room.clock.advance(500);
  }
  await settle();
  t.true(isOpen, 'it serves within 3 seconds');
  t.is((await again).issuer().subject, subject);
});

test('a request that fails is asked anew, at once when the roots change', async (t) => {
  const { room, upstream } = openUpstream(t);
  const opening = openNode(t, room, upstream);
  await isAsked(room);
  room.client.answer(ready('Failed', 'no'));
  const node = await opening;
  t.throws(() => node.issuer(), { code: 'authority_unavailable', message: /Issuer signet has refused .*Failed: no/ });
  const asked = (): number => room.client.calls.filter((call) => call.startsWith('create')).length;
  t.is(asked(), 1);
  room.believe(believed, await testCa({ name: 'CN=Second' }));
  for (let turn = 0; turn < 200 && asked() === 1; turn += 1) await settle();
  t.is(asked(), 2);
});

test('a refusal of the API server does not end the agent, and its return is noticed', async (t) => {
  const { room, upstream } = openUpstream(t);
  room.client.fault = (verb) => {
    if (verb === 'create') throw refusal('POST x', 503, {});
    if (verb === 'get') throw refusal('GET /version', 503, {});
  };
  const node = await openNode(t, room, upstream);
  t.throws(() => node.issuer(), { code: 'authority_unavailable' });
  t.regex(node.status().failing ?? '', /503/);
  room.client.fault = () => undefined;
  room.clock.advance(1_000);
  await answerNext(room);
  await node.idle();
  t.regex(node.issuer().subject, /^CN=Signet node CA/);
});
