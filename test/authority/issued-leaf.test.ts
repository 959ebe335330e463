import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import test from 'ava';
import { spkiOf } from '../../src/authority/certificate.ts';
import { judgeIssuedLeaf, type AskedLeaf } from '../../src/authority/issued-leaf.ts';
import { newKeyPair } from '../../src/authority/keys.ts';
import { parseSpiffeId, parseTrustDomain } from '../../src/spiffe/id.ts';
import { testCa, type TestCa } from '../support/authorities.ts';

const NOW = Date.UTC(2030, 0, 1);
const HOUR = 3_600_000;
const ID = 'spiffe://example.org/a';
const workload = await newKeyPair('ec-p256');
const otherKey = await newKeyPair('ec-p256');
const root = await testCa({});
const between = await testCa({ parent: root, pathLength: 0 });
const stranger = await testCa({});
const expired = await testCa({ from: NOW - 2 * HOUR, to: NOW - HOUR });
const powerless = await testCa({ uses: x509.KeyUsageFlags.cRLSign });
const foreign = await testCa({ uris: ['spiffe://other.test'] });

const ASKED: AskedLeaf = {
  trustDomain: parseTrustDomain('example.org'),
  id: parseSpiffeId(ID),
  publicKey: spkiOf(workload.publicKey),
  dnsNames: [],
  ttlMs: HOUR,
  roots: [root.certificate],
};

interface Wrong {
  readonly by?: TestCa;
  readonly uris?: readonly string[];
  readonly dns?: readonly string[];
  readonly keys?: typeof workload;
  readonly ca?: boolean;
  readonly from?: number;
  readonly to?: number;
  readonly serial?: string;
}

async function leaf({ by = root, uris = [ID], dns = [], keys = workload, ca = false, from = NOW - 30_000, to = NOW + HOUR, serial = '4242' }: Wrong = {}): Promise<Buffer> {
  const names: x509.JsonGeneralNames = [...dns.map((value) => ({ type: 'dns' as const, value })), ...uris.map((value) => ({ type: 'url' as const, value }))];
  const made = await x509.X509CertificateGenerator.create({
    serialNumber: serial,
    subject: 'O=Somebody',
    issuer: by.name,
    notBefore: new Date(from),
    notAfter: new Date(to),
    publicKey: new x509.PublicKey(keys.publicKey.export({ format: 'der', type: 'spki' })),
    signingKey: by.privateKey.toCryptoKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']),
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
    extensions: [
      new x509.BasicConstraintsExtension(ca, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
      new x509.SubjectAlternativeNameExtension(names),
      new x509.SubjectKeyIdentifierExtension('ab'.repeat(20)),
      new x509.AuthorityKeyIdentifierExtension(by.keyId),
    ],
  });
  return Buffer.from(made.rawData);
}

test('a good leaf comes with what lies between it and the root, whatever else came with it', async (t) => {
  const der = await leaf({ by: between });
  const others = [stranger.certificate, root.certificate, between.certificate];
  const judged = judgeIssuedLeaf({ leaf: der, others }, ASKED, NOW);
  if (!('signed' in judged)) return t.fail(JSON.stringify(judged));
  t.deepEqual(judged.signed.chain, [der, between.certificate]);
  t.like(judged.signed, { notBefore: NOW - 30_000, notAfter: NOW + HOUR, serial: '4242' });
});

test('under a root that did not come with it the chain is the leaf alone', async (t) => {
  const der = await leaf();
  const judged = judgeIssuedLeaf({ leaf: der, others: [] }, ASKED, NOW);
  t.deepEqual('signed' in judged && judged.signed.chain, [der]);
});

test('a shorter life is taken as it is, and one that ends after a CA above it counts to the end of that', async (t) => {
  const short = judgeIssuedLeaf({ leaf: await leaf({ to: NOW + 60_000 }), others: [] }, ASKED, NOW);
  t.is('signed' in short && short.signed.notAfter, NOW + 60_000);
  const ending = await testCa({ to: NOW + HOUR / 2 });
  const below = await testCa({ parent: ending });
  const judged = judgeIssuedLeaf({ leaf: await leaf({ by: below }), others: [below.certificate] }, { ...ASKED, roots: [ending.certificate] }, NOW);
  t.is('signed' in judged && judged.signed.notAfter, NOW + HOUR / 2);
});

test('DNS names may come in any order, but no more and no fewer', async (t) => {
  const asked = { ...ASKED, dnsNames: ['b.test', 'a.test'] };
  const of = async (dns: string[]): Promise<boolean> => 'signed' in judgeIssuedLeaf({ leaf: await leaf({ dns }), others: [] }, asked, NOW);
  t.true(await of(['a.test', 'b.test']));
  for (const dns of [['a.test'], ['a.test', 'b.test', 'c.test'], ['a.test', 'a.test']]) t.false(await of(dns), dns.join());
});

test('XS-44: a serial number whose highest bit is set is positive with its leading zero', async (t) => {
  const der = await leaf({ serial: 'c3d11c57b23daef032274bf0c17ba52d435c71' });
  const judged = judgeIssuedLeaf({ leaf: der, others: [] }, ASKED, NOW);
  t.true('signed' in judged, JSON.stringify(judged));
});

const WRONG: readonly (readonly [what: string, wrong: Wrong, problem: RegExp, part: string, roots?: readonly TestCa[]])[] = [
  ['another SPIFFE ID (XS-01)', { uris: ['spiffe://example.org/b'] }, /XS-01/, 'names'],
  ['the ID of another trust domain (XS-01)', { uris: ['spiffe://other.test/a'] }, /XS-01/, 'names'],
  ['two IDs (XS-01)', { uris: [ID, 'spiffe://example.org/b'] }, /XS-01/, 'names'],
  ['a DNS name that nobody asked for', { dns: ['google.com'] }, /DNS SANs/, 'names'],
  ['CA:TRUE (XS-15)', { ca: true }, /XS-15/, 'basic_constraints'],
  ['another public key (WA-29)', { keys: otherKey }, /WA-29/, 'key'],
  ['an end in the past', { from: NOW - 2 * HOUR, to: NOW - HOUR }, /has ended/, 'dates'],
  ['a beginning in the future', { from: NOW + 60_000 }, /not valid before/, 'dates'],
  ['a life that nobody asked for', { to: NOW + 30 * HOUR }, /longer than was asked for/, 'dates'],
  ['the signature of a CA that nobody believes', { by: stranger }, /does not hold its issuer/, 'issuer'],
  ['the signature of a CA that has expired', { by: expired }, /XS-44|expired/, 'dates', [expired]],
  ['the signature of a CA without keyCertSign', { by: powerless }, /keyCertSign/, 'issuer', [powerless]],
  ['the signature of the CA of another trust domain', { by: foreign }, /spiffe:\/\/other\.test/, 'issuer', [foreign]],
];

for (const [what, wrong, problem, part, roots = [root]] of WRONG) {
  test(`a leaf with ${what} is refused, and the part is named`, async (t) => {
    const judged = judgeIssuedLeaf({ leaf: await leaf(wrong), others: [] }, { ...ASKED, roots: roots.map(({ certificate }) => certificate) }, NOW);
    if ('signed' in judged) return t.fail();
    t.true(judged.problems.some((one) => one.part === part && problem.test(one.what)), JSON.stringify(judged.problems));
  });
}

test('the signature of a key that only calls itself the CA is refused (SP-02)', async (t) => {
  const liar = await testCa({ name: root.name });
  const der = await leaf({ by: { ...liar, keyId: root.keyId } });
  const judged = judgeIssuedLeaf({ leaf: der, others: [liar.certificate] }, ASKED, NOW);
  t.true('problems' in judged && judged.problems.some(({ what }) => /SP-02/.test(what)), JSON.stringify(judged));
});

for (const [what, bytes] of [
  ['nothing', 0],
  ['one octet', 1],
  ['half a certificate', 100],
] as const) {
  test(`${what} in place of a leaf is refused and throws nothing`, async (t) => {
    const part = (await leaf()).subarray(0, bytes);
    t.true('problems' in judgeIssuedLeaf({ leaf: part, others: [] }, ASKED, NOW));
  });
}

test('garbage beside a good leaf is refused', async (t) => {
  t.true('problems' in judgeIssuedLeaf({ leaf: await leaf(), others: [Buffer.from('garbage')] }, ASKED, NOW));
});
