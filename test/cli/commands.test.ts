import { X509Certificate, createPrivateKey, createPublicKey } from 'node:crypto';
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { OWN_ID, startTestAgent, type TestAgentOptions } from '../support/agent.ts';
import { run, type Result, type Settings } from './run.ts';

interface Fetched {
  readonly svids: readonly { readonly spiffe_id: string; readonly token: string }[];
}

const SECOND_ID = 'spiffe://example.org/second';
const SELECTORS = [`unix:uid:${process.geteuid?.()}`];
const TWO_ENTRIES = [
  { id: OWN_ID, selectors: SELECTORS, priority: 1, dnsNames: ['a.example'] },
  { id: SECOND_ID, selectors: SELECTORS, hint: 'second' },
];

interface Teardown {
  teardown(stop: () => Promise<void>): void;
}

type Signet = (words: string, settings?: Settings) => Promise<Result>;

async function agentFor(t: Teardown, options: TestAgentOptions = {}): Promise<Signet> {
  const agent = await startTestAgent(options);
  t.teardown(() => agent.stop());
  const env = { SPIFFE_ENDPOINT_SOCKET: `unix://${agent.socketPath}` };
  return (words, settings = {}) => run(words.split(' '), { env, ...settings });
}

async function temporary(t: Teardown): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'signet-commands-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

test('fetch x509 shows the identity and its bundle, and never a private key', async (t) => {
  const signet = await agentFor(t);
  const { code, stdout, stderr } = await signet('fetch x509');
  t.deepEqual([code, stderr], [0, '']);
  t.regex(stdout, /^X509-SVID\n {2}SPIFFE ID +spiffe:\/\/example\.org\/ns\/default\/sa\/tester\n/);
  t.regex(stdout, /Key +EC P-256\n/);
  t.regex(stdout, /Valid until +[0-9-]+ [0-9:]+ UTC \(in (?:1h|59m [0-9]+s)\)\n/);
  t.regex(stdout, /X\.509 bundle of example\.org\n/);
  for (const words of ['fetch x509', 'fetch x509 -o json', 'watch -n 1', 'watch -n 1 -o json']) {
    t.notRegex((await signet(words)).stdout, /private|BEGIN (?!CERTIFICATE)/i, words);
  }
});

test('fetch x509 --output json has every identity, the default one first', async (t) => {
  const signet = await agentFor(t, { config: { entries: TWO_ENTRIES } });
  const { code, stdout } = await signet('fetch x509 --output json');
  t.is(code, 0);
  const { svids } = JSON.parse(stdout) as Fetched;
  t.like(svids, {
    0: { spiffe_id: OWN_ID, default: true, hint: '', key_type: 'EC P-256', dns_names: ['a.example'] },
    1: { spiffe_id: SECOND_ID, default: false, hint: 'second' },
    length: 2,
  });
});

test('fetch x509 --write makes a pair that fits and a bundle that signs it', async (t) => {
  const signet = await agentFor(t, { config: { entries: TWO_ENTRIES } });
  const directory = await temporary(t);
  const { code, stdout } = await signet(`fetch x509 --write ${directory}`);
  t.is(code, 0);
  t.true(stdout.includes(join(directory, 'svid.1.key')));
  const files = (await readdir(directory)).filter((name) => !name.startsWith('..')).sort();
  t.deepEqual(files, ['bundle.0.pem', 'bundle.1.pem', 'svid.0.key', 'svid.0.pem', 'svid.1.key', 'svid.1.pem']);
  for (const index of [0, 1]) {
    const [pem, key, bundle] = await Promise.all(
      [`svid.${index}.pem`, `svid.${index}.key`, `bundle.${index}.pem`].map((name) => readFile(join(directory, name), 'utf8')),
    );
    const chain = pem?.match(/-----BEGIN[^]+?-----END CERTIFICATE-----/g)?.map((text) => new X509Certificate(text)) ?? [];
    const root = new X509Certificate(bundle ?? '');
    t.true(chain[0]?.checkPrivateKey(createPrivateKey(key ?? '')));
    t.true([...chain, root].some((issuer) => chain[0]?.verify(issuer.publicKey)));
    t.true(chain.at(-1)?.verify(root.publicKey));
  }
});

test('fetch jwt shows a token that validate accepts for its audience and for no other', async (t) => {
  const signet = await agentFor(t);
  const { code, stdout } = await signet('fetch jwt --audience a --audience b --output json');
  t.is(code, 0);
  const token = (JSON.parse(stdout) as Fetched).svids[0]?.token ?? '';
  const claims = { sub: OWN_ID, aud: ['a', 'b'] };
  t.like(JSON.parse(stdout), { svids: { 0: { spiffe_id: OWN_ID, header: { alg: 'ES256' }, claims } } });
  const valid = await signet('validate -a b - -o json', { stdin: `${token}\n` });
  t.like(JSON.parse(valid.stdout), { valid: true, spiffe_id: OWN_ID });
  t.regex((await signet(`validate -a a ${token}`)).stdout, /^Valid for spiffe:\/\/example\.org\//);
  const refused = await signet(`validate -a c ${token}`);
  t.deepEqual([refused.code, refused.stdout], [1, '']);
  t.regex(refused.stderr, /the token is not valid: /);
  t.false(refused.stderr.includes(token));
});

test('fetch jwt --id asks for one identity only', async (t) => {
  const signet = await agentFor(t, { config: { entries: TWO_ENTRIES } });
  const { stdout } = await signet(`fetch jwt -a a --id ${SECOND_ID} -o json`);
  t.deepEqual((JSON.parse(stdout) as Fetched).svids.map(({ spiffe_id }) => spiffe_id), [SECOND_ID]);
  const other = await signet('fetch jwt -a a --id spiffe://example.org/other');
  t.is(other.code, 4);
});

test('fetch bundle prints PEM, a JWK Set and a SPIFFE bundle of the own trust domain', async (t) => {
  const signet = await agentFor(t);
  const pem = (await signet('fetch bundle --format pem')).stdout;
  const root = new X509Certificate(pem);
  const jwks = JSON.parse((await signet('fetch bundle --format jwks')).stdout) as { keys: Record<string, string>[] };
  t.true(jwks.keys.length > 0);
  for (const { kid, use, ...jwk } of jwks.keys) {
    t.deepEqual([typeof kid, use], ['string', undefined]);
    t.notThrows(() => createPublicKey({ key: jwk, format: 'jwk' }));
  }
  const { keys } = JSON.parse((await signet('fetch bundle --format spiffe')).stdout) as { keys: Record<string, unknown>[] };
  const [x509] = keys.filter(({ use }) => use === 'x509-svid');
  t.deepEqual(x509?.['x5c'], [root.raw.toString('base64')], 'XS-36, XS-37');
  t.is(x509?.['kid'], undefined, 'XS-35');
  t.deepEqual(keys.filter(({ use }) => use === 'jwt-svid').map(({ kid }) => kid), jwks.keys.map(({ kid }) => kid));
});

test('fetch bundle shows authorities and keys, and knows no other trust domain', async (t) => {
  const signet = await agentFor(t);
  const { stdout } = await signet('fetch bundle');
  t.regex(stdout, /X\.509 bundle of example\.org\n[^]+SHA-256 +[0-9a-f]{64}\n/);
  t.regex(stdout, /JWT keys of example\.org\n {2}KEY ID/);
  const { code, stderr } = await signet('fetch bundle --format pem --trust-domain partner.test');
  t.is(code, 1);
  t.regex(stderr, /no bundle of partner\.test\n {2}it has those of example\.org/);
});

test('watch prints the next update when the identity is renewed', async (t) => {
  const signet = await agentFor(t, { config: { x509: { ttl: '10s' } } });
  const { code, stdout } = await signet('watch --count 2 --output json');
  t.is(code, 0);
  const updates = stdout.trimEnd().split('\n').map((line) => JSON.parse(line) as { update: number; svids: { serial: string }[] });
  t.deepEqual(updates.map(({ update }) => update), [1, 2]);
  t.not(updates[0]?.svids[0]?.serial, updates[1]?.svids[0]?.serial);
});

test('watch goes on after the agent was restarted, and ends at an interrupt with 0', async (t) => {
  const directory = await temporary(t);
  let agent = await startTestAgent({ directory });
  t.teardown(() => agent.stop());
  const stop = new AbortController();
  const first = Promise.withResolvers<void>();
  let updates = 0;
  const onOutput = (): void => {
    updates += 1;
    if (updates === 1) first.resolve();
    else stop.abort();
  };
  const watching = run(['watch', '-o', 'json', '--socket', agent.socketPath], { signal: stop.signal, onOutput });
  await first.promise;
  await agent.stop();
  agent = await startTestAgent({ directory });
  const { code, stderr } = await watching;
  t.is(code, 0);
  t.regex(stderr, /next attempt in/);
});

test('a process without an identity ends with 4 and learns which selector it has', async (t) => {
  const signet = await agentFor(t, { config: { entries: [] } });
  for (const words of ['fetch x509', 'fetch jwt -a a', 'fetch bundle', 'watch --timeout 300ms']) {
    const { code, stdout, stderr } = await signet(words);
    t.deepEqual([code, stdout], [4, ''], words);
    t.true(stderr.includes(`unix:uid:${process.getuid?.()}`), words);
  }
});

test('healthcheck ends with 0 while the agent serves', async (t) => {
  const signet = await agentFor(t);
  t.regex((await signet('healthcheck')).stdout, /^healthy: unix:/);
  t.like(JSON.parse((await signet('healthcheck -o json')).stdout), { healthy: true });
});

test('--socket takes a plain path and wins over the environment', async (t) => {
  const agent = await startTestAgent();
  t.teardown(() => agent.stop());
  const env = { SPIFFE_ENDPOINT_SOCKET: 'unix:///nowhere' };
  const { code } = await run(['healthcheck', '--socket', agent.socketPath], { env });
  t.is(code, 0);
});

test('colours are for terminals only', async (t) => {
  const signet = await agentFor(t);
  t.true((await signet('fetch x509', { isTty: true })).stdout.includes('\u001b['));
  t.false((await signet('fetch x509')).stdout.includes('\u001b['));
});
