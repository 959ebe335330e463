import { X509Certificate, createPublicKey } from 'node:crypto';
import test from 'ava';
import { jwtKeysIn, pemOf, publicBundle, rootsIn, spiffeOf, union } from '../../src/trust/publish/documents.ts';
import { isOurField } from '../../src/trust/publish/place.ts';
import { makeJwtKey, makeRoot } from './publish-api.ts';

const roots = await Promise.all([makeRoot(), makeRoot(), makeRoot()]);
const keys = [makeJwtKey(), makeJwtKey(), makeJwtKey()];

test('the same bundle is the same text, in whichever order and however often its parts come', (t) => {
  const one = publicBundle({ x509Authorities: roots, jwtAuthorities: keys });
  const other = publicBundle({ x509Authorities: [...roots, ...roots].reverse(), jwtAuthorities: [...keys, ...keys].reverse() });
  t.is(pemOf(one), pemOf(other));
  t.is(spiffeOf(one, 300), spiffeOf(other, 300));
  t.is(one.roots.length, 3);
  t.is(one.jwtKeys.length, 3);
});

test('a SPIFFE bundle has what its readers need and nothing else: TD-03, TD-11, TD-13, TD-16, TD-17, TD-19', (t) => {
  const bundle = publicBundle({ x509Authorities: roots, jwtAuthorities: keys });
  const document = JSON.parse(spiffeOf(bundle, 300)) as { keys: Record<string, unknown>[] };
  t.deepEqual(Object.keys(document).sort(), ['keys', 'spiffe_refresh_hint']);
  t.like(document, { spiffe_refresh_hint: 300 });
  t.is(document.keys.length, 6);
  const jwtKeys = document.keys.filter(({ use }) => use === 'jwt-svid');
  t.deepEqual(jwtKeys.map(({ kid }) => kid), keys.map(({ kid }) => kid).sort());
  for (const { use, kid, ...jwk } of jwtKeys) {
    const own = keys.find((key) => key.kid === kid);
    t.true(own?.publicKey.equals(createPublicKey({ key: jwk as Record<string, string>, format: 'jwk' })));
    t.deepEqual(Object.keys(jwk), ['kty', 'crv', 'x', 'y']);
  }
  for (const { use, x5c, ...jwk } of document.keys.filter((key) => key['use'] === 'x509-svid')) {
    const [der = '', ...more] = x5c as string[];
    t.deepEqual(more, [], 'XS-36');
    t.deepEqual(Object.keys(jwk), ['kty', 'crv', 'x', 'y'], 'XS-35');
    const { publicKey } = new X509Certificate(Buffer.from(der, 'base64'));
    t.true(publicKey.equals(createPublicKey({ key: jwk as Record<string, string>, format: 'jwk' })), 'XS-37');
  }
});

test('a bundle without JWT keys still has "keys" with its roots: TD-13', (t) => {
  const document = JSON.parse(spiffeOf(publicBundle({ x509Authorities: [roots[0]!], jwtAuthorities: [] }), 60)) as { keys: unknown[] };
  t.is(document.keys.length, 1);
});

test('the private half of a key is never published, even when it is handed over', (t) => {
  const key = { ...makeJwtKey(), jwk: { ...makeJwtKey().jwk, d: 'secret', k: 'secret' } };
  t.notRegex(spiffeOf(publicBundle({ x509Authorities: roots, jwtAuthorities: [key] }), 300), /secret/);
});

test('what was written can be read again', (t) => {
  const bundle = publicBundle({ x509Authorities: roots, jwtAuthorities: keys });
  t.deepEqual(rootsIn(pemOf(bundle)), [...bundle.roots]);
  t.deepEqual(jwtKeysIn(spiffeOf(bundle, 300)), [...bundle.jwtKeys]);
  for (const line of pemOf(bundle).split('\n')) t.true(line.length <= 64, 'RFC 7468 §2');
});

test('what is no certificate and no key is left out', (t) => {
  const junk = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
  t.deepEqual(rootsIn(`${junk}text\n-----BEGIN CERTIFICATE-----\n`), []);
  for (const text of ['', '{', '[]', '{"keys":1}', '{"keys":[1,{"use":"jwt-svid"},{"use":"x509-svid","kid":"a"}]}']) t.deepEqual(jwtKeysIn(text), [], text);
});

test('of two keys with one kid the first bundle\'s stays', (t) => {
  const [own, foreign] = [makeJwtKey(), makeJwtKey()];
  const both = union(
    publicBundle({ x509Authorities: roots, jwtAuthorities: [own] }),
    publicBundle({ x509Authorities: [], jwtAuthorities: [{ ...foreign, kid: own.kid }] }),
  );
  t.is(both.jwtKeys.length, 1);
  t.is(both.jwtKeys[0]?.jwk['x'], own.jwk['x']);
  t.is(both.roots.length, 3);
});

test('a field is ours only when the agents\' manager was the last to apply it', (t) => {
  const entry = (manager: string, operation: string, key: string) => ({ manager, operation, fieldsV1: { 'f:data': { [`f:${key}`]: {} } } });
  const isOurs = (...managedFields: object[]): boolean => isOurField({ metadata: { managedFields } }, 'data', 'bundle.pem');
  t.true(isOurs(entry('kubectl', 'Update', 'note'), entry('signet', 'Apply', 'bundle.pem')));
  t.false(isOurs(entry('kubectl', 'Apply', 'bundle.pem'), entry('signet', 'Apply', 'bundle.spiffe')));
  t.false(isOurs(entry('signet', 'Update', 'bundle.pem')));
  t.false(isOurs());
  t.false(isOurField({}, 'data', 'bundle.pem'));
});
