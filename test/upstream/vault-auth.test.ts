import { createHash, generateKeyPairSync, sign as signBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { VaultClient } from '../../src/upstream/vault/client.ts';
import type { VaultAuth } from '../../src/upstream/vault/vault-options.ts';
import { makePki } from '../support/kubernetes-pki.ts';
import { startVault, vaultMissing, type VaultServer } from '../support/vault-server.ts';
import { connect, directory, freshName, pkiMount, trustDomain, until, type Told } from '../support/vault-upstream.ts';

const missing = vaultMissing({ own: true });
const title = (text: string): string => (missing === undefined ? text : `${text} (${missing})`);
const testIf = missing === undefined ? test : test.skip;

let vault: VaultServer;
let mount: string;
const issuerKeys = generateKeyPairSync('ec', { namedCurve: 'P-256' });

test.before(async (t) => {
  if (missing !== undefined) return;
  vault = await startVault({ tls: true, own: true });
  mount = await pkiMount(t as unknown as ExecutionContext, vault);
  await vault.api('POST', 'sys/mounts/transit', { type: 'transit' });
});
test.after.always(async () => {
  await vault?.close();
});

interface Scene {
  readonly client: VaultClient;
  readonly told: Told;
}

/** An auth mount set up as documented, and a client that uses it. */
async function scene(t: ExecutionContext, type: string, settings: Readonly<Record<string, string>>, configure: (at: string) => Promise<void>, auth: (at: string) => VaultAuth): Promise<Scene> {
  const at = freshName(type);
  await vault.api('POST', `sys/auth/${at}`, { type });
  await configure(at);
  await vault.setup({ TRUST_DOMAIN: trustDomain, PKI_MOUNT: mount, POLICY: at, JWT: 'transit', TRANSIT_KEY: at, AUTH: type, AUTH_MOUNT: at, ...settings });
  return connect(t, vault, auth(at));
}

/** What only the policy of the setup allows. */
const isAllowed = async (client: VaultClient, key: string): Promise<unknown> => (await client.request('GET', `transit/keys/${key}`)).data['latest_version'];

function jwt(claims: Readonly<Record<string, unknown>>): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const now = Math.floor(Date.now() / 1000);
  const text = `${part({ alg: 'ES256', typ: 'JWT' })}.${part({ iss: 'https://issuer.test', aud: 'vault', iat: now, exp: now + 600, ...claims })}`;
  return `${text}.${signBytes('sha256', Buffer.from(text), { key: issuerKeys.privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

const SUBJECT = 'system:serviceaccount:signet-system:signet';

testIf(title('login by JWT; the file is read anew at each login, and a token of another subject is refused with what to compare'), async (t) => {
  const file = join(directory(t), 'jwt');
  writeFileSync(file, jwt({ sub: 'system:serviceaccount:other:signet' }));
  let key = '';
  const pem = issuerKeys.publicKey.export({ format: 'pem', type: 'spki' });
  const configure = async (at: string): Promise<void> => void (await vault.api('POST', `auth/${at}/config`, { jwt_validation_pubkeys: [pem], bound_issuer: 'https://issuer.test' }));
  const { client, told } = await scene(t, 'jwt', {}, configure, (at) => ({ method: 'jwt', mount: (key = at), role: 'signet', jwtFile: file }));
  await t.throwsAsync(isAllowed(client, key), { message: /refuses the login by jwt at auth\/jwt-.* \(400: .*\)\. What to do: compare the role signet with the issuer, audience and subject/ });
  let nudged = false;
  client.onReturn(() => void (nudged = true));
  writeFileSync(file, jwt({ sub: SUBJECT }));
  await until(t, 'the login is tried again', () => nudged && client.problem() === undefined);
  t.is(await isAllowed(client, key), 1);
  t.is(told.failed.length, 1);
});

testIf(title('login by a client certificate, which is read anew when it is replaced'), async (t) => {
  const dir = directory(t);
  const pki = await makePki();
  const [ca, certificate, keyFile] = ['ca.crt', 'tls.crt', 'tls.key'].map((name) => join(dir, name)) as [string, string, string];
  writeFileSync(ca, pki.ca);
  writeFileSync(certificate, pki.clientCert);
  writeFileSync(keyFile, pki.clientKey);
  let key = '';
  const { client } = await scene(t, 'cert', { CLIENT_CA: ca, CLIENT_NAMES: 'client' }, async () => undefined, (at) => ({ method: 'cert', mount: (key = at), role: 'signet', certificate, key: keyFile }));
  t.is(await isAllowed(client, key), 1);
  const foreign = await makePki();
  writeFileSync(certificate, foreign.clientCert);
  writeFileSync(keyFile, foreign.clientKey);
  await vault.api('POST', `sys/leases/revoke-prefix/auth/${key}/login`, {});
  await t.throwsAsync(isAllowed(client, key), { message: /refuses the login by cert at auth\/cert-.* \(400: .*\)\. What to do: compare the role signet with the client certificate/ });
  writeFileSync(certificate, pki.clientCert);
  writeFileSync(keyFile, pki.clientKey);
  await until(t, 'the old one is taken again', () => client.problem() === undefined);
  t.is(await isAllowed(client, key), 1);
});

testIf(title('login by AppRole'), async (t) => {
  const [roleIdFile, secretIdFile] = ['role-id', 'secret-id'].map((name) => join(directory(t), name)) as [string, string];
  let key = '';
  const { client } = await scene(t, 'approle', {}, async () => undefined, (at) => ({ method: 'approle', mount: (key = at), roleIdFile, secretIdFile }));
  await t.throwsAsync(isAllowed(client, key), { message: `the role ID in ${roleIdFile} cannot be used: ENOENT: no such file or directory, open '${roleIdFile}'` });
  writeFileSync(roleIdFile, String((await vault.api('GET', `auth/${key}/role/signet/role-id`)).data?.['role_id']));
  writeFileSync(secretIdFile, String((await vault.api('POST', `auth/${key}/role/signet/secret-id`, {})).data?.['secret_id']));
  await until(t, 'the login is tried again', () => client.problem() === undefined);
  t.is(await isAllowed(client, key), 1);
});

testIf(title('a token in a file: renewed where it may be, used where it may not, and read anew when it is refused'), async (t) => {
  const file = join(directory(t), 'token');
  const policy = freshName('policy');
  await vault.setup({ TRUST_DOMAIN: trustDomain, PKI_MOUNT: mount, POLICY: policy, JWT: 'transit', TRANSIT_KEY: policy });
  const make = async (more: object): Promise<string> => String((await vault.api('POST', 'auth/token/create', { policies: [policy], no_default_policy: true, ttl: '1h', ...more })).auth?.['client_token']);
  const first = await make({});
  writeFileSync(file, `${first}\n`);
  const { client } = connect(t, vault, { method: 'token', tokenFile: file });
  t.is(await isAllowed(client, policy), 1);
  await vault.api('POST', 'auth/token/revoke', { token: first });
  await t.throwsAsync(isAllowed(client, policy), { message: new RegExp(`Vault does not take the token in ${file}: it was revoked or has ended .* What to do: put a new one there`) });
  writeFileSync(file, await make({ renewable: false }));
  await until(t, 'the new token is found', () => client.problem() === undefined);
  t.is(await isAllowed(client, policy), 1);
});

testIf(title('a token that is near its end is renewed, and at the end of all renewals a new login follows'), async (t) => {
  const [roleIdFile, secretIdFile] = ['role-id', 'secret-id'].map((name) => join(directory(t), name)) as [string, string];
  let key = '';
  const short = { TOKEN_TTL: '6s', TOKEN_MAX_TTL: '10s' };
  const { client, told } = await scene(t, 'approle', short, async () => undefined, (at) => ({ method: 'approle', mount: (key = at), roleIdFile, secretIdFile }));
  writeFileSync(roleIdFile, String((await vault.api('GET', `auth/${key}/role/signet/role-id`)).data?.['role_id']));
  writeFileSync(secretIdFile, String((await vault.api('POST', `auth/${key}/role/signet/secret-id`, {})).data?.['secret_id']));
  const began = performance.now();
  while (performance.now() - began < 14_000) {
    t.is(await isAllowed(client, key), 1);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  t.deepEqual(told.failed, []);
});

/** An API server that knows one token. */
async function tokenReviews(t: ExecutionContext, token: string): Promise<{ url: string; goAway(): void; comeBack(): void }> {
  let isAway = false;
  const server = createServer((request, response) => {
    let text = '';
    request.on('data', (chunk: Buffer) => (text += chunk.toString()));
    request.on('end', () => {
      if (isAway) return void response.destroy();
      const asked = (JSON.parse(text || '{}') as { spec?: { token?: string; audiences?: string[] } }).spec;
      const user = { username: SUBJECT, uid: 'a', groups: ['system:serviceaccounts', 'system:serviceaccounts:signet-system', 'system:authenticated'] };
      const status = asked?.token === token ? { authenticated: true, audiences: asked.audiences, user } : { authenticated: false, error: 'no' };
      response.writeHead(201, { 'content-type': 'application/json' }).end(JSON.stringify({ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', status }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => void server.close());
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, goAway: () => void (isAway = true), comeBack: () => void (isAway = false) };
}

testIf(title('login by Kubernetes; a 403 may be an API server that is away, so that it is told and tried again'), async (t) => {
  const plugin = readFileSync(join(process.env['SIGNET_CACHE'] ?? join(homedir(), '.cache', 'signet-tools'), 'bin', 'vault-plugins', 'kubernetes'));
  await vault.api('POST', 'sys/plugins/catalog/auth/kubernetes', { sha256: createHash('sha256').update(plugin).digest('hex'), command: 'kubernetes' });
  const file = join(directory(t), 'token');
  const now = Math.floor(Date.now() / 1000);
  const token = jwt({ sub: SUBJECT, 'kubernetes.io': { namespace: 'signet-system', serviceaccount: { name: 'signet', uid: 'a' } }, exp: now + 3600, aud: ['vault'] });
  writeFileSync(file, token);
  const api = await tokenReviews(t, token);
  api.goAway();
  let key = '';
  const configure = async (at: string): Promise<void> => void (await vault.api('POST', `auth/${at}/config`, { kubernetes_host: api.url, disable_local_ca_jwt: true, token_reviewer_jwt: jwt({ sub: 'reviewer' }) }));
  const { client, told } = await scene(t, 'kubernetes', {}, configure, (at) => ({ method: 'kubernetes', mount: (key = at), role: 'signet', jwtFile: file }));
  await t.throwsAsync(isAllowed(client, key), { message: /refuses the login by kubernetes at auth\/kubernetes-.* \(403.*Vault cannot reach the API server that reviews the token, which may pass/ });
  api.comeBack();
  await until(t, 'the login is tried again', () => client.problem() === undefined);
  t.is(await isAllowed(client, key), 1);
  t.is(told.failed.length, 1);
});

testIf(title('a mount of a login that is not there is named'), async (t) => {
  const file = join(directory(t), 'jwt');
  writeFileSync(file, jwt({ sub: SUBJECT }));
  const { client } = connect(t, vault, { method: 'jwt', mount: 'nowhere', role: 'signet', jwtFile: file });
  await t.throwsAsync(isAllowed(client, 'x'), { message: /at auth\/nowhere \(40[34]/ });
});

testIf(title('no secret is in what is told'), async (t) => {
  const [roleIdFile, secretIdFile] = ['role-id', 'secret-id'].map((name) => join(directory(t), name)) as [string, string];
  writeFileSync(roleIdFile, 'the-role-id');
  writeFileSync(secretIdFile, 'the-secret-id');
  const { client, told } = await scene(t, 'approle', {}, async () => undefined, (at) => ({ method: 'approle', mount: at, roleIdFile, secretIdFile }));
  const error = await t.throwsAsync(isAllowed(client, 'x'));
  const text = JSON.stringify([told.failed, told.lines, error, String(error.stack)]);
  t.false(text.includes('the-secret-id') || text.includes('the-role-id'));
});

