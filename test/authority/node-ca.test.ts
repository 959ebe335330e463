import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import test from 'ava';
import { createCsr, createIntermediate } from '../../src/authority/certificate.ts';
import { newKeyPair, type KeyPair } from '../../src/authority/keys.ts';
import { constraintProblem, permittingUriHost, readNameConstraints } from '../../src/authority/name-constraints.ts';
import { derElement } from '../../src/authority/der.ts';
import { judgeAnswer, trySigning, type NodeCaAsked } from '../../src/authority/node-ca.ts';
import type { IntermediateAnswer } from '../../src/authority/intermediate-source.ts';
import { issuerFrom } from '../../src/authority/certificate.ts';
import { systemRandom } from '../../src/random.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { namesOf } from '../support/library-certificates.ts';
import { testCa, type TestCa, type TestCaOptions } from '../support/authorities.ts';

const NOW = Date.UTC(2030, 0, 1);
const HOUR = 3_600_000;
const ID = 'spiffe://example.org';
const trustDomain = parseTrustDomain('example.org');
const { KeyUsageFlags } = x509;

const root = await testCa({ name: 'CN=Root' });
const middle = await testCa({ name: 'CN=Middle', parent: root });
const keys = await newKeyPair('ec-p256');
const otherKeys = await newKeyPair('ec-p256');
const asked: NodeCaAsked = { trustDomain, keys, latestEnd: NOW + 25 * HOUR, nameConstraint: 'none' };
const uriConstraint = new x509.Extension('2.5.29.30', true, permittingUriHost('example.org'));

/** A good node CA under `middle`, but for what `wrong` says. */
const nodeCa = (wrong: TestCaOptions = {}): Promise<TestCa> =>
  testCa({ parent: middle, keys, pathLength: 0, uris: [ID], from: NOW - HOUR, to: NOW + 24 * HOUR, ...wrong });

const answerOf = (...chain: readonly TestCa[]): IntermediateAnswer => ({ chain: chain.map(({ certificate }) => certificate), roots: [root.certificate] });

const judge = (answer: IntermediateAnswer, more: Partial<NodeCaAsked> = {}) => judgeAnswer(answer, { ...asked, ...more }, NOW);

const PREFIX = 'the node CA that the upstream has answered is refused: ';

test('a good answer passes, with its names and identifiers as they are', async (t) => {
  const ca = await nodeCa({ name: 'C=US,O=Somebody,CN=node-1' });
  const judged = judge(answerOf(ca, middle));
  t.deepEqual(judged.chain, [ca.certificate, middle.certificate]);
  t.deepEqual(judged.root, root.certificate);
  t.is(judged.subjectKeyId.toString('hex'), ca.keyId);
  t.deepEqual(judged.subjectName, namesOf(ca.certificate).subject);
  t.is(judged.notAfter, NOW + 24 * HOUR);
  await t.notThrowsAsync(trySigning(judged, trustDomain, systemRandom));
});

test('its end is the first one on the way to the root: some CAs sign what outlives them', async (t) => {
  const short = await testCa({ parent: root, to: NOW + HOUR });
  t.is(judge(answerOf(await nodeCa({ parent: short }), short)).notAfter, NOW + HOUR);
});

test('digitalSignature is taken, since some CAs renew by it', async (t) => {
  const ca = await nodeCa({ uses: KeyUsageFlags.keyCertSign | KeyUsageFlags.digitalSignature });
  t.notThrows(() => judge(answerOf(ca, middle)));
});

const WRONG: readonly (readonly [title: string, wrong: TestCaOptions, message: string, more?: Partial<NodeCaAsked>])[] = [
  ['another key', { keys: otherKeys }, 'it holds another public key'],
  ['no CA', { ca: false, uses: KeyUsageFlags.digitalSignature }, 'it is not a CA: it lacks CA:TRUE (X509-SVID §4.1)'],
  ['no keyCertSign', { uses: KeyUsageFlags.cRLSign }, 'it may not sign certificates: it lacks the key usage keyCertSign (X509-SVID §4.3)'],
  ['more uses', { uses: KeyUsageFlags.keyCertSign | KeyUsageFlags.keyAgreement }, 'its key usage allows more than signing certificates, CRLs and data'],
  ['a longer path', { pathLength: 1 }, 'its path length is 1 and not 0 (RFC 5280 §4.2.1.9; authority.acceptUnconstrainedCA takes it)'],
  ['another trust domain', { uris: ['spiffe://other.test'] }, 'its SPIFFE ID is spiffe://other.test and not spiffe://example.org (X509-SVID §3.2, §5.1)'],
  ['no SPIFFE ID', { uris: [] }, 'its URI SANs are [] and not ["spiffe://example.org"] (X509-SVID §3.2)'],
  ['two URIs', { uris: [ID, 'https://example.org'] }, 'its URI SANs are ["spiffe://example.org","https://example.org"] and not ["spiffe://example.org"] (X509-SVID §3.2)'],
  ['no subject', { name: '' }, 'its subject is empty (RFC 5280 §4.1.2.6)'],
  ['no key identifier', { isNameless: true }, 'it has no subject key identifier (RFC 5280 §4.2.1.2)'],
  ['a longer life', { to: NOW + 26 * HOUR }, 'it ends at 2030-01-02T02:00:00.000Z, later than 2030-01-02T01:00:00.000Z, which was asked for'],
  ['an end that has passed', { to: NOW - 1_000 }, 'it has expired at 2029-12-31T23:59:59.000Z'],
  ['an end that is near', { to: NOW + 9_000 }, 'it or a CA above it ends at 2030-01-01T00:00:09.000Z, in less than 10 s'],
  ['a beginning to come', { from: NOW + 1_000 }, 'it is not valid before 2030-01-01T00:00:01.000Z'],
  [
    'no constraint though it was asked for',
    {},
    'it lacks the critical name constraint to URIs of example.org alone that was asked for (RFC 5280 §4.2.1.10)',
    { nameConstraint: 'uri' },
  ],
  [
    'a constraint to another trust domain',
    { more: [new x509.Extension('2.5.29.30', true, permittingUriHost('evil.test'))] },
    'its name constraints permit URIs of evil.test and not of example.org (X509-SVID §4.2)',
    { nameConstraint: 'uri' },
  ],
  [
    'a constraint that is not critical',
    { more: [new x509.Extension('2.5.29.30', false, permittingUriHost('example.org'))] },
    'it lacks the critical name constraint to URIs of example.org alone that was asked for (RFC 5280 §4.2.1.10)',
    { nameConstraint: 'uri' },
  ],
  [
    'a constraint to a second trust domain too',
    { more: [new x509.Extension('2.5.29.30', true, permitting('example.org', 'evil.test'))] },
    'it lacks the critical name constraint to URIs of example.org alone that was asked for (RFC 5280 §4.2.1.10)',
    { nameConstraint: 'uri' },
  ],
  ['an unknown critical extension', { more: [new x509.Extension('1.2.3.4', true, Buffer.from('0500', 'hex'))] }, 'its critical extension 1.2.3.4 is not understood (RFC 5280 §4.2)'],
];

for (const [title, wrong, message, more] of WRONG) {
  test(`an answer with ${title} is refused`, async (t) => {
    const answer = answerOf(await nodeCa(wrong), middle);
    t.throws(() => judge(answer, more), { code: 'profile_violation', message: PREFIX + message });
  });
}

test('an answer without path length is refused', async (t) => {
  const { pathLength: _, ...unlimited } = { parent: middle, keys, pathLength: 0, uris: [ID], to: NOW + HOUR };
  t.throws(() => judge(answerOf({ ...middle }, middle)), { code: 'profile_violation' });
  const answer = answerOf(await testCa(unlimited), middle);
  t.throws(() => judge(answer), { message: `${PREFIX}its path length is not limited and not 0 (RFC 5280 §4.2.1.9; authority.acceptUnconstrainedCA takes it)` });
});

test('a constraint that was asked for, and one that was not, pass when they permit the trust domain', async (t) => {
  const answer = answerOf(await nodeCa({ more: [uriConstraint] }), middle);
  t.notThrows(() => judge(answer, { nameConstraint: 'uri' }));
  t.notThrows(() => judge(answer));
});

test('the chain is the way up to a root that came along, in order, without the root and without more', async (t) => {
  const ca = await nodeCa();
  const other = await testCa({ parent: root });
  const notTheWay = `${PREFIX}its chain is not the way from the node CA up to a root, without the root (WA-28)`;
  for (const answer of [answerOf(ca, middle, root), answerOf(ca, other, middle), answerOf(ca, middle, middle), answerOf(ca, middle, other)]) {
    t.throws(() => judge(answer), { message: notTheWay });
  }
  t.throws(() => judge({ chain: [], roots: [root.certificate] }), { message: `${PREFIX}it holds no certificate` });
  t.throws(() => judge(answerOf(ca)), { message: /no root that is given verifies it; its issuer is "CN=Middle"/ });
  t.throws(() => judge({ ...answerOf(ca, middle), roots: [] }), { message: /no root that is given verifies it/ });
  t.throws(() => judge({ ...answerOf(ca, middle), roots: [other.certificate] }), { message: /no root that is given verifies it/ });
  t.throws(() => judge({ chain: [Buffer.from('3000', 'hex')], roots: [] }), { message: /its chain cannot be read/ });
  t.throws(() => judge({ chain: [Buffer.concat([ca.certificate, Buffer.of(0)])], roots: [] }), { message: /bytes follow the certificate/ });
  t.throws(() => judge({ chain: Array.from({ length: 9 }, () => ca.certificate), roots: [] }), { message: `${PREFIX}its chain has 9 certificates, more than 8` });
});

test('an issuer that is named but has not signed is refused', async (t) => {
  const impostor = await testCa({ name: 'CN=Middle', parent: root });
  const ca = await nodeCa({ parent: { ...impostor, keyId: middle.keyId } });
  t.throws(() => judge(answerOf(ca, middle)), { message: /no root that is given verifies it/ });
});

test('a path length above that leaves no room shows here and not at the workloads', async (t) => {
  const tight = await testCa({ name: 'CN=Tight', parent: root, pathLength: 0 });
  const answer = answerOf(await nodeCa({ parent: tight }), tight);
  t.throws(() => judge(answer), { message: `${PREFIX}above it stands "CN=Tight", and of that: its path length is 0, so no node CA can stand below it (RFC 5280 §4.2.1.9)` });
});

test('what createIntermediate makes passes, with and without constraint', async (t) => {
  for (const nameConstraint of ['none', 'uri'] as const) {
    const issuer = issuerFrom(middle.certificate, middle);
    const dates = { notBefore: NOW - HOUR, notAfter: NOW + HOUR };
    const der = await createIntermediate(issuer, { trustDomain, publicKey: keys.publicKey, nameConstraint, ...dates }, systemRandom);
    t.notThrows(() => judge({ chain: [der, middle.certificate], roots: [root.certificate] }, { nameConstraint }));
    t.is(new x509.X509Certificate(der).getExtension('2.5.29.30') !== null, nameConstraint === 'uri');
  }
});

test('a request for a node CA is signed with its key and asks for what a node CA is', async (t) => {
  const csr = new x509.Pkcs10CertificateRequest(await createCsr(keys, trustDomain, systemRandom));
  t.true(await csr.verify());
  t.deepEqual(Buffer.from(csr.publicKey.rawData), exported(keys));
  const [names] = csr.extensions.filter((one) => one instanceof x509.SubjectAlternativeNameExtension);
  t.deepEqual(names?.names.items.map(({ type, value }) => [type, value]), [['url', ID]]);
  const [constraints] = csr.extensions.filter((one) => one instanceof x509.BasicConstraintsExtension);
  t.is(constraints?.pathLength, 0);
  t.regex(csr.subject, /^O=Signet, OU=Node CA, 2\.5\.4\.5=[0-9a-f]{32}$/);
});

test('XS-17: name constraints are read by the strictest sense of permission and the widest of exclusion', (t) => {
  const permits = (...hosts: string[]): string | undefined => constraintProblem(readNameConstraints(permitting(...hosts)), 'a.example.org');
  t.is(permits('a.example.org'), undefined);
  t.is(permits('A.Example.Org'), undefined);
  t.is(permits('.example.org'), undefined);
  t.is(permits('other.test', 'a.example.org'), undefined);
  t.regex(permits('example.org') ?? '', /permit URIs of example\.org and not of a\.example\.org/);
  t.regex(permits('b.example.org') ?? '', /permit/);
  const excludes = (host: string): string | undefined => constraintProblem(readNameConstraints(subtrees(0xa1, derElement(0x86, Buffer.from(host)))), 'a.example.org');
  for (const host of ['a.example.org', 'example.org', '.example.org', 'EXAMPLE.org', '']) t.regex(excludes(host) ?? '', /exclude URIs of/, host);
  for (const host of ['b.example.org', 'other.test', 'mple.org']) t.is(excludes(host), undefined, host);
  const dns = derElement(0x82, Buffer.from('other.test'));
  t.is(constraintProblem(readNameConstraints(subtrees(0xa0, dns)), 'a.example.org'), undefined, 'DNS names are not URIs');
  const directory = derElement(0xa4, derElement(0x30));
  t.regex(constraintProblem(readNameConstraints(subtrees(0xa0, directory)), 'a.example.org') ?? '', /subject names/);
  t.throws(() => readNameConstraints(Buffer.from('3005a003', 'hex')), { instanceOf: RangeError });
  t.throws(() => readNameConstraints(Buffer.from('308000', 'hex')), { instanceOf: RangeError });
});

function permitting(...hosts: readonly string[]): Buffer {
  return subtrees(0xa0, ...hosts.map((host) => derElement(0x86, Buffer.from(host))));
}

function subtrees(tag: number, ...names: readonly Buffer[]): Buffer {
  return derElement(0x30, derElement(tag, ...names.map((name) => derElement(0x30, name))));
}

function exported({ publicKey }: KeyPair): Buffer {
  return publicKey.export({ format: 'der', type: 'spki' });
}
