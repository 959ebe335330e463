import 'reflect-metadata';
import type { KeyObject } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import test from 'ava';
import { spkiOf, type CertificateRequest, type Issuer } from '../../src/authority/certificate.ts';
import { LeafMint } from '../../src/authority/leaf-mint.ts';
import { newKeyPair } from '../../src/authority/keys.ts';
import { lintLeaf } from '../../src/authority/lint.ts';
import { SignetError } from '../../src/errors.ts';
import { systemRandom } from '../../src/random.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import { KEY_TYPES } from '../../src/spiffe/key-type.ts';
import { testIssuer } from '../support/authorities.ts';

const NOW = Date.UTC(2030, 0, 1);
const HOUR = 3_600_000;
const ID = parseSpiffeId('spiffe://example.org/a');
const { KeyUsageFlags } = x509;

const issuer = await testIssuer(NOW - HOUR, NOW + 24 * HOUR);
const stranger = await testIssuer(NOW - HOUR, NOW + 24 * HOUR);
const workload = await newKeyPair('ec-p256');
const otherKey = await newKeyPair('ec-p256');
const ASKED: CertificateRequest = { id: ID, publicKey: spkiOf(workload.publicKey), dnsNames: [], notBefore: NOW, notAfter: NOW + HOUR };

const san = (names: x509.JsonGeneralNames, critical = false): x509.Extension => new x509.SubjectAlternativeNameExtension(names, critical);
const ski = (bytes: string): x509.Extension => new x509.SubjectKeyIdentifierExtension(bytes);

/** The extensions of a good leaf, by name, so that a test can break one. */
const good = {
  constraints: new x509.BasicConstraintsExtension(false, undefined, true) as x509.Extension,
  usage: new x509.KeyUsagesExtension(KeyUsageFlags.digitalSignature, true) as x509.Extension,
  extended: new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]) as x509.Extension,
  names: san([{ type: 'url', value: ID }]),
  subjectKey: ski('00'.repeat(20)),
  authorityKey: new x509.AuthorityKeyIdentifierExtension(issuer.subjectKeyId.toString('hex')) as x509.Extension,
};
type Extensions = { [name in keyof typeof good]?: x509.Extension | undefined } & { readonly more?: x509.Extension };

interface Wrong {
  readonly extensions?: Extensions;
  readonly subject?: string;
  readonly signer?: Issuer;
  readonly issuerName?: string;
  readonly publicKey?: KeyObject;
  readonly notBefore?: number;
  readonly notAfter?: number;
  readonly serial?: string;
}

async function leaf(wrong: Wrong = {}): Promise<Buffer> {
  const signer = wrong.signer ?? issuer;
  const publicKey = wrong.publicKey ?? workload.publicKey;
  const made = await x509.X509CertificateGenerator.create({
    serialNumber: wrong.serial ?? '4242',
    subject: wrong.subject ?? 'O=Signet',
    issuer: wrong.issuerName ?? new x509.Name(issuer.subjectName),
    notBefore: new Date(wrong.notBefore ?? NOW),
    notAfter: new Date(wrong.notAfter ?? NOW + HOUR),
    publicKey: new x509.PublicKey(publicKey.export({ format: 'der', type: 'spki' })),
    signingKey: signer.privateKey.toCryptoKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']),
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
    extensions: Object.values({ ...good, ...wrong.extensions }).filter((one) => one !== undefined),
  });
  return Buffer.from(made.rawData);
}

test('a good leaf passes, whoever built it', async (t) => {
  const der = await leaf();
  t.notThrows(() => lintLeaf(der, ASKED, issuer));
});

for (const type of KEY_TYPES) {
  test(`what the authority builds passes: ${type}, with DNS names, across 2049 and 2050`, async (t) => {
    const far = await testIssuer(Date.UTC(2049, 11, 31), Date.UTC(2051, 0, 1));
    const publicKey = spkiOf((await newKeyPair(type)).publicKey);
    const asked = { id: parseSpiffeId(`spiffe://example.org/${'a'.repeat(2027)}`), publicKey, dnsNames: ['web', 'web.example.org'], notBefore: Date.UTC(2049, 11, 31, 23), notAfter: Date.UTC(2050, 0, 1, 1) };
    const { der, serial } = await new LeafMint(systemRandom).mint(far, asked);
    lintLeaf(der, asked, far);
    t.is(serial.length, 32);
  });
}

const BROKEN: readonly (readonly [rule: string, what: string, wrong: Wrong])[] = [
  ['XS-01', 'no URI SAN', { extensions: { names: san([{ type: 'dns', value: 'a' }]) } }],
  ['XS-01', 'two SPIFFE IDs', { extensions: { names: san([{ type: 'url', value: ID }, { type: 'url', value: `${ID}b` }]) } }],
  ['XS-02', 'a SPIFFE ID and another URI', { extensions: { names: san([{ type: 'url', value: ID }, { type: 'url', value: 'https://example.org' }]) } }],
  ['XS-01', 'another SPIFFE ID', { extensions: { names: san([{ type: 'url', value: 'spiffe://example.org/b' }]) } }],
  ['XS-01', 'no SAN at all', { extensions: { names: undefined } }],
  ['XS-03', 'a DNS name that nobody asked for', { extensions: { names: san([{ type: 'url', value: ID }, { type: 'dns', value: 'google.com' }]) } }],
  ['XS-03', 'an e-mail address', { extensions: { names: san([{ type: 'url', value: ID }, { type: 'email', value: 'a@example.org' }]) } }],
  ['XS-05', 'an empty subject without a critical SAN', { subject: '' }],
  ['XS-15', 'CA:TRUE', { extensions: { constraints: new x509.BasicConstraintsExtension(true, undefined, true) } }],
  ['XS-15', 'basic constraints that are not critical', { extensions: { constraints: new x509.BasicConstraintsExtension(false) } }],
  ['XS-15', 'no basic constraints', { extensions: { constraints: undefined } }],
  ['XS-18', 'no key usage', { extensions: { usage: undefined } }],
  ['XS-19', 'a key usage that is not critical', { extensions: { usage: new x509.KeyUsagesExtension(KeyUsageFlags.digitalSignature) } }],
  ['XS-22', 'no digitalSignature', { extensions: { usage: new x509.KeyUsagesExtension(KeyUsageFlags.keyAgreement, true) } }],
  ['XS-24', 'keyCertSign', { extensions: { usage: new x509.KeyUsagesExtension(KeyUsageFlags.digitalSignature | KeyUsageFlags.keyCertSign, true) } }],
  ['XS-24', 'cRLSign', { extensions: { usage: new x509.KeyUsagesExtension(KeyUsageFlags.digitalSignature | KeyUsageFlags.cRLSign, true) } }],
  ['XS-27', 'no clientAuth', { extensions: { extended: new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]) } }],
  ['XS-25', 'no extended key usage', { extensions: { extended: undefined } }],
  ['XS-44', 'no authority key identifier', { extensions: { authorityKey: undefined } }],
  ['XS-44', "an authority key identifier that is not the issuer's", { extensions: { authorityKey: new x509.AuthorityKeyIdentifierExtension('00'.repeat(20)) } }],
  ['XS-44', 'no subject key identifier', { extensions: { subjectKey: undefined } }],
  ['XS-44', 'another issuer name', { issuerName: 'O=Somebody' }],
  ['XS-44', "an end after the issuer's", { notAfter: NOW + 48 * HOUR }],
  ['XS-44', "a beginning before the issuer's", { notBefore: NOW - 48 * HOUR }],
  ['XS-44', 'an end before the beginning', { notBefore: NOW + HOUR, notAfter: NOW }],
  ['XS-44', 'a serial number of 21 octets', { serial: '7f'.repeat(21) }],
  ['SP-02', 'the signature of another key', { signer: stranger }],
  ['WA-29', 'another public key', { publicKey: otherKey.publicKey }],
  ['XS-16', 'name constraints', { extensions: { more: new x509.Extension('2.5.29.30', true, Buffer.from('3000', 'hex')) } }],
];

/** Rules that the lint finds under a neighbour's name. */
const FOUND_AS: Readonly<Record<string, RegExp>> = {
  'XS-02': /XS-01/,
  'XS-03': /DNS SANs|nobody asked for/,
  'XS-16': /name constraints/,
  'XS-18': /XS-19/,
  'XS-25': /XS-27/,
};

for (const [rule, what, wrong] of BROKEN) {
  test(`${rule}: a leaf with ${what} is not released`, async (t) => {
    const der = await leaf(wrong);
    t.throws(() => lintLeaf(der, ASKED, issuer), { instanceOf: SignetError, code: 'profile_violation', message: FOUND_AS[rule] ?? new RegExp(rule) });
  });
}

test('XS-44: the serial number 0 is found', async (t) => {
  const der = await leaf({ serial: '42' });
  der[der.indexOf(Buffer.from([2, 1, 0x42])) + 2] = 0;
  t.throws(() => lintLeaf(der, ASKED, issuer), { message: /XS-44: the serial number/ });
});

test('WA-28: bytes after the certificate are found', async (t) => {
  const der = Buffer.concat([await leaf(), Buffer.from([0])]);
  t.throws(() => lintLeaf(der, ASKED, issuer));
});

test('a violation names every broken rule', async (t) => {
  const der = await leaf({ extensions: { usage: undefined, extended: undefined } });
  const error = t.throws(() => lintLeaf(der, ASKED, issuer));
  t.regex(error?.message ?? '', /XS-19: .*; XS-27: /);
});
