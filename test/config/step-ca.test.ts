import test from 'ava';
import { parseConfig } from '../../src/config/load.ts';
import { problemsOf } from './refusals.ts';

const BASE = 'trustDomain: example.org\n';
const PRINT = 'ab'.repeat(32);

function stepCa(parts: Readonly<Record<string, string>> = {}, type = 'step-ca'): string {
  const all = { address: '"https://ca:9000"', fingerprint: `"${PRINT}"`, provisioner: '{ type: jwk, name: node-ca, key: /k }', ...parts };
  const text = Object.entries(all).filter(([, value]) => value !== '').map(([key, value]) => `${key}: ${value}`);
  return `${BASE}authority: { type: ${type}, stepCa: { ${text.join(', ')} } }\n`;
}

function refuses(title: string, yaml: string, path: string, found: string, allowed: string): void {
  test(title, (t) => t.deepEqual(problemsOf(yaml), [{ path, found, allowed }]));
}

test('an address, a fingerprint and a provisioner are enough', (t) => {
  const { authority } = parseConfig(stepCa(), 'signet.yaml', {});
  t.deepEqual(authority.stepCa, {
    address: 'https://ca:9000',
    caFile: undefined,
    fingerprint: PRINT,
    serverName: undefined,
    renew: false,
    roots: [],
    provisioner: { type: 'jwk', name: 'node-ca', key: '/k', passwordFile: undefined, certificate: undefined },
  });
  t.is(authority.tier, 'intermediate');
});

test('node CAs renew themselves with X5C, unless it is said otherwise', (t) => {
  const renewOf = (type: string, more: string): boolean | undefined =>
    parseConfig(stepCa({ provisioner: `{ type: ${type}, name: n, key: /k${type === 'x5c' ? ', certificate: /c' : ''} }`, ...(more === '' ? {} : { renew: more }) }), 'f', {}).authority.stepCa?.renew;
  t.deepEqual(['jwk', 'x5c'].map((type) => renewOf(type, '')), [false, true]);
  t.deepEqual([renewOf('jwk', 'true'), renewOf('x5c', 'false')], [true, false]);
});

test('a fingerprint is read as step and OpenSSL write it', (t) => {
  const colons = PRINT.toUpperCase().replace(/..(?=.)/g, '$&:');
  t.is(parseConfig(stepCa({ fingerprint: `"${colons}"` }), 'f', {}).authority.stepCa?.fingerprint, PRINT);
});

refuses('the type step-ca needs its section', `${BASE}authority: { type: step-ca }`, 'authority.stepCa', 'nothing', 'the smallstep CA: address, caFile or fingerprint, and provisioner');
test('a section that nobody asks is refused', (t) => {
  t.deepEqual(problemsOf(stepCa({}, 'embedded')).map(({ path, allowed }) => [path, allowed]), [['authority.stepCa', 'nothing, unless authority.type is step-ca']]);
});
refuses('there is no trust on first use', stepCa({ fingerprint: '' }), 'authority.stepCa.fingerprint', 'nothing', 'the SHA-256 fingerprint of its root, or caFile: whoever answers first is not believed');
refuses('one pin is enough', stepCa({ caFile: '/ca.crt' }), 'authority.stepCa.fingerprint', JSON.stringify(PRINT).replace(/^"(.{60}).*$/, '"$1"…'), 'nothing, beside caFile');
refuses('a JWK provisioner needs a key, or a password for the one that step-ca keeps', stepCa({ provisioner: '{ type: jwk, name: n }' }), 'authority.stepCa.provisioner.key', 'nothing', 'the file with the private key, or passwordFile to open the one that step-ca keeps');
refuses('a JWK provisioner has no certificate', stepCa({ provisioner: '{ type: jwk, name: n, key: /k, certificate: /c }' }), 'authority.stepCa.provisioner.certificate', '"/c"', 'nothing, unless provisioner.type is x5c');
test('a JWK provisioner with a password alone is read', (t) => {
  t.is(parseConfig(stepCa({ provisioner: '{ type: jwk, name: n, passwordFile: /p }' }), 'f', {}).authority.stepCa?.provisioner.passwordFile, '/p');
});
test('an X5C provisioner needs certificate and key', (t) => {
  t.deepEqual(
    problemsOf(stepCa({ provisioner: '{ type: x5c, name: n }' })),
    ['certificate', 'key'].map((name) => ({ path: `authority.stepCa.provisioner.${name}`, found: 'nothing', allowed: 'a value (with provisioner.type: x5c)' })),
  );
});
refuses('K8sSA is no way to prove oneself', stepCa({ provisioner: '{ type: k8ssa, name: n, key: /k }' }), 'authority.stepCa.provisioner.type', '"k8ssa"', 'one of jwk, x5c');
refuses('only Vault and cert-manager sign each leaf', stepCa().replace('type: step-ca,', 'type: step-ca, tier: per-svid,'), 'authority.tier', '"per-svid"', 'intermediate, unless authority.type is vault or cert-manager');

const ADDRESS = 'an https URL such as https://ca.example.org:9000';
for (const address of ['ca:9000', 'http://127.0.0.1:9000', 'https://ca/1.0', 'https://a@ca', 'https://ca?x']) {
  refuses(`the address ${address} is refused`, stepCa({ address: JSON.stringify(address) }), 'authority.stepCa.address', JSON.stringify(address), ADDRESS);
}
for (const print of ['ab', `${PRINT}00`, 'z'.repeat(64)]) {
  test(`the fingerprint of ${print.length} characters ${print.slice(0, 2)} is refused`, (t) => t.is(problemsOf(stepCa({ fingerprint: JSON.stringify(print) }))[0]?.allowed, 'a SHA-256 fingerprint of 64 hexadecimal digits'));
}
for (const name of ['', ' a', 'a\u0001', 'ä', 'x'.repeat(256)]) {
  test(`a provisioner cannot be named by ${name.length} characters ${JSON.stringify(name.slice(0, 3))}`, (t) => {
    const [problem] = problemsOf(stepCa({ provisioner: `{ type: jwk, name: ${JSON.stringify(name)}, key: /k }` }));
    t.is(problem?.path, 'authority.stepCa.provisioner.name');
  });
}
