import test from 'ava';
import { parseConfig } from '../../src/config/load.ts';
import { problemsOf } from './refusals.ts';

const BASE = 'trustDomain: example.org\n';
const TOKEN = 'method: join_token, tokenFile: /t';

function spire({ more = ', acceptUnconstrainedCA: true', attestation = TOKEN, address = 'spire-server.spire:8081', rest = '' } = {}): string {
  return `${BASE}authority: { type: spire${more}, spire: { address: "${address}", bundleFile: /b, attestation: { ${attestation} }${rest} } }\n`;
}

function refuses(title: string, yaml: string, path: string, found: string, allowed: string): void {
  test(title, (t) => t.deepEqual(problemsOf(yaml), [{ path, found, allowed }]));
}

test('a server, its bundle and a way to join are enough', (t) => {
  const { authority } = parseConfig(spire(), 'signet.yaml', {});
  t.deepEqual(authority.spire, {
    address: { host: 'spire-server.spire', port: 8081 },
    bundleFile: '/b',
    attestation: { method: 'join_token', cluster: undefined, tokenFile: '/t', certificate: undefined, key: undefined },
    syncMs: 5_000,
  });
  t.is(authority.tier, 'intermediate');
});

for (const [address, host] of [['10.0.0.1:1', '10.0.0.1'], ['[2001:db8::1]:65535', '2001:db8::1'], ['localhost:8081', 'localhost']] as const) {
  test(`the address ${address} is read`, (t) => t.is(parseConfig(spire({ address }), 'f', {}).authority.spire?.address.host, host));
}
const ADDRESS = 'a host and a port such as spire-server.example.org:8081 or [2001:db8::1]:8081';
for (const address of ['spire-server', 'https://spire-server:8081', 'spire-server:0', 'spire-server:65536', '[10.0.0.1]:1', '2001:db8::1:8081', 'a b:1', ':8081']) {
  refuses(`the address ${address} is refused`, spire({ address }), 'authority.spire.address', JSON.stringify(address), ADDRESS);
}

for (const [method, missing] of [['join_token', ['tokenFile']], ['x509pop', ['certificate', 'key']], ['k8s_psat', ['cluster', 'tokenFile']]] as const) {
  test(`${method} needs ${missing.join(' and ')}`, (t) => {
    t.deepEqual(
      problemsOf(spire({ attestation: `method: ${method}` })),
      missing.map((name) => ({ path: `authority.spire.attestation.${name}`, found: 'nothing', allowed: `a value (with attestation.method: ${method})` })),
    );
  });
}

refuses('the type spire needs its server', `${BASE}authority: { type: spire, acceptUnconstrainedCA: true }`, 'authority.spire', 'nothing', 'the SPIRE server: address, bundleFile and attestation');
refuses('without a bundle for the first contact nobody is asked', spire().replace('bundleFile: /b, ', ''), 'authority.spire.bundleFile', 'nothing', 'an absolute path of at most 3840 bytes');
refuses('a CA without path length has to be accepted', spire({ more: '' }), 'authority.acceptUnconstrainedCA', 'nothing', 'true, with authority.type: spire: its CAs have no path length');
refuses('a name constraint cannot be had', spire({ more: ', acceptUnconstrainedCA: true, nameConstraint: uri' }), 'authority.nameConstraint', '"uri"', 'none, with authority.type: spire: its CAs have no name constraint');
refuses('SPIRE does not sign each leaf', spire({ more: ', acceptUnconstrainedCA: true, tier: per-svid' }), 'authority.tier', '"per-svid"', 'intermediate, unless authority.type is vault or cert-manager');
refuses('other ways to join are not there', spire({ attestation: 'method: aws_iid' }), 'authority.spire.attestation.method', '"aws_iid"', 'one of join_token, x509pop, k8s_psat');

test('a server that nothing asks is refused', (t) => {
  const yaml = spire({ more: '' }).replace('type: spire, ', '');
  t.deepEqual(problemsOf(yaml).map(({ path, allowed }) => [path, allowed]), [['authority.spire', 'nothing, unless authority.type is spire']]);
});

test('keys of a transit engine are not in the bundle of the server', (t) => {
  const yaml = `${spire({ more: ', acceptUnconstrainedCA: true, vault: { address: "https://v", auth: { method: token, tokenFile: /t } }' })}jwt: { signer: transit, transit: { key: k } }`;
  t.deepEqual(problemsOf(yaml).map(({ path, allowed }) => [path, allowed]), [['jwt.signer', "node, with authority.type: spire: keys elsewhere are not in the server's bundle"]]);
});
