import test from 'ava';
import { parseConfig } from '../../src/config/load.ts';
import { problemsOf } from './refusals.ts';

const BASE = 'trustDomain: example.org\n';

function vault(more = '', auth = 'method: kubernetes, role: signet', address = 'https://vault:8200'): string {
  return `${BASE}authority: { type: vault, vault: { address: "${address}", auth: { ${auth} } }${more} }\n`;
}

function refuses(title: string, yaml: string, path: string, found: string, allowed: string): void {
  test(title, (t) => t.deepEqual(problemsOf(yaml), [{ path, found, allowed }]));
}

test('a server and a way to log in are enough', (t) => {
  const { authority, jwt } = parseConfig(vault(), 'signet.yaml', {});
  t.is(authority.tier, 'intermediate');
  t.like(authority.vault, { address: 'https://vault:8200', namespace: '', caFile: undefined, pki: { mount: 'pki', issuer: 'default', role: undefined, roots: [] } });
  t.like(authority.vault?.auth, { method: 'kubernetes', mount: 'kubernetes', role: 'signet', jwtFile: '/var/run/secrets/kubernetes.io/serviceaccount/token' });
  t.deepEqual([jwt.signer, jwt.transit], ['node', undefined]);
});

for (const [method, missing] of [
  ['kubernetes', ['role']],
  ['jwt', ['role']],
  ['approle', ['roleIdFile', 'secretIdFile']],
  ['cert', ['certificate', 'key']],
  ['token', ['tokenFile']],
] as const) {
  test(`${method} needs ${missing.join(' and ')}`, (t) => {
    t.deepEqual(
      problemsOf(vault('', `method: ${method}`)),
      missing.map((name) => ({ path: `authority.vault.auth.${name}`, found: 'nothing', allowed: `a value (with auth.method: ${method})` })),
    );
  });
}

refuses('the type vault needs its server', `${BASE}authority: { type: vault }`, 'authority.vault', 'nothing', 'the Vault server: address and auth');
refuses('transit needs a server', `${BASE}jwt: { signer: transit, transit: { key: k } }`, 'authority.vault', 'nothing', 'the Vault server: address and auth');
refuses('transit needs a key', `${vault()}jwt: { signer: transit }`, 'jwt.transit', 'nothing', 'the key: mount and key (with jwt.signer: transit)');
refuses('a key in transit that nobody uses is refused', `${BASE}jwt: { transit: { key: k } }`, 'jwt.transit', '{"key":"k"}', 'nothing, unless jwt.signer is transit');
refuses('only Vault and cert-manager sign each leaf', `${BASE}authority: { tier: per-svid }`, 'authority.tier', '"per-svid"', 'intermediate, unless authority.type is vault or cert-manager');
refuses('per-svid needs a role', `${vault(', tier: per-svid')}jwt: { signer: transit, transit: { key: k } }`, 'authority.vault.pki.role', 'nothing', 'the role that leaves are signed by (with authority.tier: per-svid)');

test('a server that nothing asks is refused', (t) => {
  const yaml = `${BASE}authority: { vault: { address: "https://v", auth: { method: token, tokenFile: /t } } }`;
  t.deepEqual(problemsOf(yaml).map(({ path, allowed }) => [path, allowed]), [['authority.vault', 'nothing, unless authority.type is vault or jwt.signer is transit']]);
});

test('transit with node CAs of files asks Vault for tokens only', (t) => {
  const yaml = `${BASE}authority: { type: files, files: { certificate: /c, key: /k }, vault: { address: "https://v", auth: { method: token, tokenFile: /t } } }\njwt: { signer: transit, transit: { key: signet } }`;
  t.deepEqual(parseConfig(yaml, 'signet.yaml', {}).jwt.transit, { mount: 'transit', key: 'signet' });
});

const ADDRESS = 'an https URL such as https://vault.example.org:8200 (http on 127.0.0.1, ::1 and localhost only)';
for (const address of ['vault:8200', 'http://vault:8200', 'https://vault/v1', 'https://a@vault', 'https://vault?x', 'ftp://vault']) {
  refuses(`the address ${address} is refused`, vault('', undefined, address), 'authority.vault.address', JSON.stringify(address), ADDRESS);
}
for (const address of ['http://127.0.0.1:8200', 'http://[::1]:8200', 'http://localhost:8200', 'https://vault/']) {
  test(`the address ${address} is read`, (t) => t.is(parseConfig(vault('', undefined, address), 'f', {}).authority.vault?.address, address.replace(/\/$/, '')));
}

for (const mount of ['../sys', '/pki', 'pki/', 'a//b', 'a?b', '.']) {
  test(`the mount ${mount} is refused, since it would be another path of the API`, (t) => {
    const yaml = `${BASE}authority: { type: vault, vault: { address: "https://v", auth: { method: token, tokenFile: /t }, pki: { mount: "${mount}" } } }`;
    t.deepEqual(problemsOf(yaml).map(({ path, allowed }) => [path, allowed]), [['authority.vault.pki.mount', 'a mount point such as pki or team-a/pki']]);
  });
}

refuses(
  'per-svid needs transit, since no key that signs is on the node',
  vault(', tier: per-svid').replace('auth: {', 'pki: { role: signet }, auth: {'),
  'jwt.signer',
  'nothing',
  'transit, with authority.tier: per-svid: no key that signs is on the node then',
);
