import test, { type ExecutionContext } from 'ava';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SignetError } from '../../src/errors.ts';
import { credentialsFrom, inClusterCredentials } from '../../src/kubernetes/credentials.ts';
import { kubeconfigCredentials } from '../../src/kubernetes/kubeconfig.ts';
import { makePki, type TestPki } from '../support/kubernetes-pki.ts';

let pki: TestPki;
test.before(async () => {
  pki = await makePki();
});

const IN_POD = { KUBERNETES_SERVICE_HOST: '10.96.0.1', KUBERNETES_SERVICE_PORT: '443' };

function directory(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'signet-credentials-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

function serviceAccount(t: ExecutionContext, token = 'token-1'): string {
  const path = directory(t);
  writeFileSync(join(path, 'token'), `${token}\n`);
  writeFileSync(join(path, 'ca.crt'), pki.ca);
  return path;
}

test('a pod finds its server, token and CA', async (t) => {
  const credentials = inClusterCredentials({ env: IN_POD, directory: serviceAccount(t) });
  t.is(credentials.server.href, 'https://10.96.0.1/');
  t.deepEqual(await credentials.read(), { token: 'token-1', ca: pki.ca.trim(), cert: undefined, key: undefined });
});

test('an IPv6 service address is put in brackets', (t) => {
  const env = { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '6443' };
  t.is(inClusterCredentials({ env, directory: '/nowhere' }).server.href, 'https://[fd00::1]:6443/');
});

for (const [env, text] of [
  [{}, 'in-cluster service account: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT not set: this is no pod; run in a cluster or name a kubeconfig file'],
  [{ KUBERNETES_SERVICE_HOST: '10.0.0.1' }, 'in-cluster service account: KUBERNETES_SERVICE_PORT not set: this is no pod; run in a cluster or name a kubeconfig file'],
  [{ ...IN_POD, KUBERNETES_SERVICE_PORT: '443/x' }, 'in-cluster service account: KUBERNETES_SERVICE_HOST "10.96.0.1" and KUBERNETES_SERVICE_PORT "443/x" are not an address and a port'],
] as const) {
  test(`outside a pod it says what is missing: ${JSON.stringify(env)}`, (t) => {
    t.like(t.throws(() => inClusterCredentials({ env }), { instanceOf: SignetError }), { code: 'invalid_config', message: text });
  });
}

test('a replaced token counts at once', async (t) => {
  const path = serviceAccount(t);
  const credentials = inClusterCredentials({ env: IN_POD, directory: path });
  t.is((await credentials.read()).token, 'token-1');
  writeFileSync(join(path, 'token'), 'token-2');
  t.is((await credentials.read()).token, 'token-2');
});

test('the last good token and CA are kept while their files are empty or missing', async (t) => {
  const path = serviceAccount(t);
  const credentials = inClusterCredentials({ env: IN_POD, directory: path });
  await credentials.read();
  writeFileSync(join(path, 'token'), '');
  rmSync(join(path, 'ca.crt'));
  t.like(await credentials.read(), { token: 'token-1', ca: pki.ca.trim() });
});

for (const [name, content, reason] of [
  ['token', '', 'it is empty; one token of printable characters without blanks is needed'],
  ['token', 'two words', 'its content is something else; one token of printable characters without blanks is needed'],
  ['ca.crt', 'not a certificate', 'its content is something else; certificates in PEM are needed'],
] as const) {
  test(`a ${name} that has never been good is refused with its path: ${JSON.stringify(content)}`, async (t) => {
    const path = serviceAccount(t);
    writeFileSync(join(path, name), content);
    const error = await t.throwsAsync(inClusterCredentials({ env: IN_POD, directory: path }).read(), { instanceOf: SignetError });
    const what = name === 'token' ? 'token' : 'CA certificate';
    t.is(error?.code, 'unavailable');
    t.is(error?.message, `in-cluster service account: the ${what} in ${join(path, name)} cannot be used: ${reason}`);
  });
}

test('a file larger than any certificate bundle and a device are refused', async (t) => {
  const path = join(directory(t), 'token');
  writeFileSync(path, 'a'.repeat(1_048_577));
  const of = (file: string) => credentialsFrom({ server: new URL('https://a'), origin: 'test', token: { path: file } }).read();
  await t.throwsAsync(of(path), { message: `test: the token in ${path} cannot be used: it has 1048577 bytes; at most 1048576 are allowed` });
  await t.throwsAsync(of('/dev/zero'), { message: 'test: the token in /dev/zero cannot be used: it is not a regular file' });
});

test('a server without TLS is refused: the token would be readable on the way', (t) => {
  const error = t.throws(() => credentialsFrom({ server: new URL('http://10.0.0.1:8080'), origin: 'test' }), { instanceOf: SignetError });
  t.like(error, { code: 'invalid_config', message: 'test: the server http://10.0.0.1:8080/ has no TLS; an https: address is needed' });
});

interface Parts {
  readonly cluster?: Record<string, unknown>;
  readonly user?: Record<string, unknown>;
  readonly more?: Record<string, unknown>;
}

/** A kubeconfig (JSON is YAML) in `path`. */
function kubeconfig(path: string, { cluster = {}, user = {}, more = {} }: Parts): string {
  const file = join(path, 'config');
  const text = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'one', cluster: { server: 'https://10.0.0.1:6443', ...cluster } }],
    users: [{ name: 'admin', user }],
    contexts: [{ name: 'here', context: { cluster: 'one', user: 'admin' } }],
    'current-context': 'here',
    ...more,
  };
  writeFileSync(file, JSON.stringify(text));
  return file;
}

const base64 = (text: string): string => Buffer.from(text).toString('base64');

test('a kubeconfig gives a client certificate from data and a CA from a path that counts from the file', async (t) => {
  const path = directory(t);
  writeFileSync(join(path, 'ca.pem'), pki.ca);
  const user = { 'client-certificate-data': base64(pki.clientCert), 'client-key-data': base64(pki.clientKey) };
  const credentials = kubeconfigCredentials(kubeconfig(path, { cluster: { 'certificate-authority': 'ca.pem', 'tls-server-name': 'node-1' }, user }));
  t.is(credentials.serverName, 'node-1');
  t.is(credentials.origin, `kubeconfig ${join(path, 'config')}, context here`);
  t.deepEqual(await credentials.read(), { token: undefined, ca: pki.ca.trim(), cert: pki.clientCert.trim(), key: pki.clientKey.trim() });
});

test('data goes before a path, and a token file before a token', async (t) => {
  const path = directory(t);
  writeFileSync(join(path, 'token'), 'from-file');
  const cluster = { 'certificate-authority': 'missing.pem', 'certificate-authority-data': base64(pki.ca) };
  const credentials = kubeconfigCredentials(kubeconfig(path, { cluster, user: { token: 'inline', tokenFile: 'token' } }));
  t.like(await credentials.read(), { token: 'from-file', ca: pki.ca.trim() });
});

test('a kubeconfig in YAML is read, and another context can be chosen', async (t) => {
  const file = join(directory(t), 'config');
  writeFileSync(file, `
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "https://a:6443"}}, {name: b, cluster: {server: "https://b:6443"}}]
users: [{name: u, user: {token: t}}]
contexts:
- {name: x, context: {cluster: a, user: u}}
- {name: y, context: {cluster: b, user: u}}
current-context: x
`);
  t.is(kubeconfigCredentials(file).server.href, 'https://a:6443/');
  t.is(kubeconfigCredentials(file, { context: 'y' }).server.href, 'https://b:6443/');
  t.is((await kubeconfigCredentials(file).read()).token, 't');
});

const REFUSED: readonly (readonly [string, Parts, string])[] = [
  ['insecure-skip-tls-verify', { cluster: { 'insecure-skip-tls-verify': true } }, 'cluster one: insecure-skip-tls-verify is not supported: the server must be verified; give certificate-authority or certificate-authority-data instead'],
  ['proxy-url', { cluster: { 'proxy-url': 'http://p' } }, 'cluster one: proxy-url is not supported: no proxy is used; give the address of the server itself'],
  ['an exec plugin', { user: { exec: { command: 'aws' } } }, 'user admin: exec is not supported: no credential plugin is started; give tokenFile or a client certificate instead'],
  ['an auth provider', { user: { 'auth-provider': { name: 'gcp' } } }, 'user admin: auth-provider is not supported: no credential plugin is started; give tokenFile or a client certificate instead'],
  ['a password', { user: { username: 'a', password: 'b' } }, 'user admin: username is not supported: Kubernetes has no passwords any more; give a token or a client certificate instead'],
  ['impersonation', { user: { as: 'root' } }, 'user admin: as is not supported: nobody is impersonated; give the credentials of the account itself'],
  ['no current context', { more: { 'current-context': '' } }, 'current-context is missing; it names one of contexts'],
  ['an unknown context', { more: { 'current-context': 'there' } }, 'contexts has no "there"; there is here'],
  ['an unknown cluster', { more: { clusters: [] } }, 'clusters has no "one"; there is none'],
  ['an unknown user', { more: { users: [{ name: 'x', user: {} }] } }, 'users has no "admin"; there is x'],
  ['no server', { cluster: { server: '' } }, 'cluster one: server is missing; an address like https://10.0.0.1:6443 is needed'],
  ['a server that is no address', { cluster: { server: '10.0.0.1' } }, 'cluster one: server is "10.0.0.1"; an address like https://10.0.0.1:6443 is needed'],
];
for (const [what, parts, reason] of REFUSED) {
  test(`a kubeconfig is refused by name for ${what}`, (t) => {
    const file = kubeconfig(directory(t), parts);
    t.like(t.throws(() => kubeconfigCredentials(file), { instanceOf: SignetError }), { code: 'invalid_config', message: `kubeconfig ${file}: ${reason}` });
  });
}

test('insecure-skip-tls-verify: false is as good as none', (t) => {
  t.notThrows(() => kubeconfigCredentials(kubeconfig(directory(t), { cluster: { 'insecure-skip-tls-verify': false } })));
});

test('half of a client certificate is refused', (t) => {
  const file = kubeconfig(directory(t), { user: { 'client-certificate-data': base64(pki.clientCert) } });
  t.throws(() => kubeconfigCredentials(file), { message: `kubeconfig ${file}, context here: there is a client certificate but no client key; both are needed` });
});

test('data that is something else is refused, and never quoted', (t) => {
  const file = kubeconfig(directory(t), { cluster: { 'certificate-authority-data': base64('secret words') } });
  const error = t.throws(() => kubeconfigCredentials(file));
  t.is(error?.message, `kubeconfig ${file}, context here: the CA certificate cannot be used: its content is something else; certificates in PEM are needed`);
});

test('a missing file is named; a mistake in YAML is placed without quoting the secrets around it', (t) => {
  const path = directory(t);
  const file = join(path, 'config');
  t.regex(t.throws(() => kubeconfigCredentials(file))?.message ?? '', /^kubeconfig .*config: the file cannot be read: ENOENT/);
  writeFileSync(file, 'users:\n- user: {token: "s3cr3t"\nclusters: [');
  const message = t.throws(() => kubeconfigCredentials(file))?.message ?? '';
  t.regex(message, /the file is not YAML: .* line \d+, column \d+$/);
  t.false(message.includes('s3cr3t'));
});
