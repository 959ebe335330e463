import { generateKeyPairSync } from 'node:crypto';
import { inspect } from 'node:util';
import test from 'ava';
import type { X509SvidMessage } from '../../src/client/messages.ts';
import { parseJwtBundles, parseJwtSvids, parseValidated, parseX509Bundles, parseX509Context } from '../../src/client/responses.ts';
import { ID, KeyUsageFlags, mint, mintCa, type LeafOptions } from './minted.ts';

const ca = await mintCa();
const good = await mint({ dnsNames: ['a.example'] });

function message(overrides: Partial<X509SvidMessage> = {}): X509SvidMessage {
  return { spiffe_id: ID, x509_svid: good.der, x509_svid_key: good.key, bundle: ca.der, hint: '', ...overrides };
}

function response(...svids: X509SvidMessage[]): Parameters<typeof parseX509Context>[0] {
  return { svids, crl: [], federated_bundles: {} };
}

test('a good response is read whole', (t) => {
  const { identities, bundles } = parseX509Context(response(message({ hint: 'internal', x509_svid: Buffer.concat([good.der, ca.der]) })));
  t.is(identities.length, 1);
  t.like(identities[0], { id: ID, hint: 'internal', notBefore: Date.UTC(2026, 0), notAfter: Date.UTC(2046, 0) });
  t.deepEqual(identities[0]?.chain.map((der) => der.equals(good.der)), [true, false]);
  t.deepEqual([...bundles.keys()] as string[], ['example.org']);
});

test('printing or copying an identity loses its private key', (t) => {
  const identity = parseX509Context(response(message())).identities[0];
  t.true(identity?.privateKey.equals(good.key));
  const key = good.key.toString('hex').slice(0, 20);
  t.false(inspect(identity, { depth: 9 }).replaceAll(' ', '').includes(key));
  t.false(JSON.stringify({ ...identity }).includes('privateKey'));
});

const BROKEN_LEAVES: readonly (readonly [rule: string, leaf: LeafOptions, reason: RegExp])[] = [
  ['XS-02: two SPIFFE IDs', { uris: [ID, `${ID}/b`] }, /exactly one URI SAN/],
  ['XS-02: a SPIFFE ID and another URI', { uris: [ID, 'https://example.org/a'] }, /exactly one URI SAN/],
  ['XS-02: no URI', { uris: [], dnsNames: ['a.example'] }, /exactly one URI SAN/],
  ['XS-32: another scheme', { uris: ['https://example.org/a'] }, /begin with "spiffe:/],
  ['XS-33: no path', { uris: ['spiffe://example.org'] }, /has a path/],
  ['ID-14: a slash at the end', { uris: ['spiffe://example.org/'] }, /empty segment/],
  ['XS-30: a CA certificate', { ca: true }, /CA certificate/],
  ['XS-31: keyCertSign', { usages: KeyUsageFlags.digitalSignature | KeyUsageFlags.keyCertSign }, /keyCertSign/],
  ['XS-31: cRLSign', { usages: KeyUsageFlags.digitalSignature | KeyUsageFlags.cRLSign }, /cRLSign/],
  ['XS-22: no digitalSignature', { usages: KeyUsageFlags.keyAgreement }, /digitalSignature/],
  ['XS-18: no key usage', { usages: null }, /no key usage/],
  ['WA-22: the leaf of somebody else', { uris: ['spiffe://example.org/app/b'] }, /its leaf is for/],
];

for (const [title, leaf, reason] of BROKEN_LEAVES) {
  test(`${title}: the leaf is refused`, async (t) => {
    const { der, key } = await mint(leaf);
    const error = t.throws(() => parseX509Context(response(message({ x509_svid: der, x509_svid_key: key }))));
    t.like(error, { code: 'invalid_svid' });
    t.regex(error.message, reason);
  });
}

const BROKEN_MESSAGES: readonly (readonly [rule: string, overrides: Partial<X509SvidMessage>])[] = [
  ['WA-18: without a certificate', { x509_svid: Buffer.alloc(0) }],
  ['WA-18: without a key', { x509_svid_key: Buffer.alloc(0) }],
  ['WA-18: without a bundle', { bundle: Buffer.alloc(0) }],
  ['WA-28: with bytes after the certificate', { x509_svid: Buffer.concat([good.der, Buffer.from([0x30])]) }],
  ['WA-28: with PEM', { x509_svid: Buffer.from('-----BEGIN CERTIFICATE-----') }],
  ['WA-28: with a cut certificate', { x509_svid: good.der.subarray(0, -1) }],
  ['WA-28: with a leaf as intermediate', { x509_svid: Buffer.concat([good.der, good.der]) }],
  ['WA-29: with a key that is no PKCS#8', { x509_svid_key: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'der', type: 'sec1' }) }],
  ['WA-29: with another key', { x509_svid_key: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'der', type: 'pkcs8' }) }],
  ['WA-31: with a bundle that is no DER', { bundle: Buffer.from('AAAA') }],
  ['a chain of 17', { x509_svid: Buffer.concat([good.der, ...Array<Buffer>(16).fill(ca.der)]) }],
];

for (const [title, overrides] of BROKEN_MESSAGES) {
  test(`${title}: the update is refused`, (t) => {
    t.like(t.throws(() => parseX509Context(response(message(overrides)))), { code: 'invalid_svid' });
  });
}

test('WA-21: a response without an SVID is refused', (t) => {
  t.like(t.throws(() => parseX509Context(response())), { code: 'invalid_svid' });
});

test('WA-24: of two equal hints the first counts, and empty ones do not count', (t) => {
  const hints = ['a', '', 'a', '', 'b'];
  const { identities } = parseX509Context(response(...hints.map((hint) => message({ hint }))));
  t.deepEqual(identities.map(({ hint }) => hint), ['a', '', '', 'b']);
});

test('a federated entry for the own trust domain does not replace the own bundle', async (t) => {
  const other = await mintCa();
  const { bundles } = parseX509Context({ ...response(message()), federated_bundles: { 'spiffe://example.org': other.der, 'spiffe://partner.test': other.der } });
  const found = new Map([...bundles].map(([name, authorities]) => [String(name), authorities]));
  t.deepEqual([...found.keys()].sort(), ['example.org', 'partner.test']);
  t.true(found.get('example.org')?.[0]?.equals(ca.der));
});

test('WA-33: a response without an X.509 bundle is refused', (t) => {
  t.like(t.throws(() => parseX509Bundles({ crl: [], bundles: {} })), { code: 'invalid_svid' });
});

function token(claims: object): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'ES256', kid: 'k' })}.${part(claims)}.c2ln`;
}

test('a JWT-SVID is read with its times, and printing it loses the token', (t) => {
  const svid = token({ sub: ID, aud: ['a', 'b'], exp: 200, iat: 100 });
  const [identity] = parseJwtSvids({ svids: [{ spiffe_id: ID, svid, hint: 'h' }] }, ['a']);
  t.like(identity, { id: ID, issuedAt: 100_000, expiresAt: 200_000, hint: 'h', token: svid });
  t.false(JSON.stringify(identity).includes(svid));
  t.false(inspect(identity).includes(svid));
});

const BROKEN_TOKENS: readonly (readonly [rule: string, svid: string])[] = [
  ['WA-40: an empty token', ''],
  ['WA-40: another subject', token({ sub: `${ID}/b`, aud: ['a'], exp: 1 })],
  ['WA-37: another audience', token({ sub: ID, aud: ['b'], exp: 1 })],
  ['JS-20: no expiry', token({ sub: ID, aud: ['a'] })],
  ['ID-25: no JWS', 'a.b'],
  ['ID-25: a payload that is no object', `${token({}).split('.')[0]}.W10.c2ln`],
];

for (const [title, svid] of BROKEN_TOKENS) {
  test(`${title}: the token is refused, and not shown`, (t) => {
    const error = t.throws(() => parseJwtSvids({ svids: [{ spiffe_id: ID, svid, hint: '' }] }, ['a']));
    t.like(error, { code: 'invalid_token' });
    t.false(svid !== '' && error.message.includes(svid));
  });
}

test('WA-39: a response without a JWT-SVID is refused', (t) => {
  t.like(t.throws(() => parseJwtSvids({ svids: [] }, ['a'])), { code: 'invalid_token' });
});

test('TD-18, TD-20: keys that cannot sign JWT-SVIDs are left out one by one', (t) => {
  const jwk = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'jwk' });
  const keys = [
    { ...jwk, kid: 'good' },
    { ...jwk, kid: 'tagged', use: 'jwt-svid' },
    jwk,
    { ...jwk, kid: '' },
    { ...jwk, kid: 'x', use: 'x509-svid' },
    { ...jwk, kid: 'x', use: 'wit-svid' },
    { kty: 'AKP', kid: 'x' },
    { kty: '__proto__', kid: 'x' },
    { kty: 'EC', crv: 'P-256', kid: 'x' },
    null,
    'text',
  ];
  const bundles = parseJwtBundles({ bundles: { 'spiffe://example.org': Buffer.from(JSON.stringify({ keys })) } });
  t.deepEqual([...bundles.values()][0]?.map(({ kid }) => kid), ['good', 'tagged']);
});

for (const document of ['', '{}', '[]', '{"keys":null}', 'null']) {
  test(`WA-45: the JWT bundle ${JSON.stringify(document)} is refused`, (t) => {
    t.like(t.throws(() => parseJwtBundles({ bundles: { 'spiffe://example.org': Buffer.from(document) } })), { code: 'invalid_token' });
  });
}

test('TD-14: an empty JWT bundle is a bundle', (t) => {
  t.deepEqual([...parseJwtBundles({ bundles: { 'spiffe://example.org': Buffer.from('{"keys":[]}') } }).values()], [[]]);
});

test('a validated token without a SPIFFE ID is refused', (t) => {
  t.like(t.throws(() => parseValidated({ spiffe_id: '', claims: { fields: {} } })), { code: 'invalid_spiffe_id' });
});
