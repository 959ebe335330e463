import { X509Certificate, createPublicKey } from 'node:crypto';
import test from 'ava';
import { startTestAgent } from '../support/agent.ts';
import { run, type Result } from './run.ts';

async function agentFor(t: { teardown(stop: () => Promise<void>): void }, options = {}): Promise<(words: string) => Promise<Result>> {
  const agent = await startTestAgent(options);
  t.teardown(() => agent.stop());
  return (words) => run(words.split(' '), { env: { SPIFFE_ENDPOINT_SOCKET: `unix://${agent.socketPath}` } });
}

test('bundle show prints what fetch bundle prints, in each format', async (t) => {
  const signet = await agentFor(t);
  for (const options of ['--format pem', '--format jwks', '--format spiffe', '--output json', '--format pem --trust-domain example.org']) {
    const [shown, fetched] = [await signet(`bundle show ${options}`), await signet(`fetch bundle ${options}`)];
    t.is(shown.code, 0, shown.stderr);
    t.true(shown.stdout.length > 100);
    t.is(shown.stdout, fetched.stdout, options);
  }
  t.regex((await signet('bundle show')).stdout, /^X\.509 bundle of example\.org\n[^]+JWT keys of example\.org\n/);
});

test('bundle show --format spiffe is a SPIFFE bundle: TD-03, TD-13, TD-16, TD-17, TD-19', async (t) => {
  const signet = await agentFor(t);
  const document = JSON.parse((await signet('bundle show --format spiffe')).stdout) as { keys: Record<string, unknown>[] };
  t.deepEqual(Object.keys(document), ['keys']);
  for (const { use, kid, x5c, ...jwk } of document.keys) {
    t.is(typeof kid, use === 'jwt-svid' ? 'string' : 'undefined');
    const key = createPublicKey({ key: jwk as Record<string, string>, format: 'jwk' });
    const members = new Set(['kty', 'crv', 'x', 'y', 'n', 'e']);
    t.deepEqual(Object.keys(jwk).filter((name) => !members.has(name)), []);
    if (use !== 'x509-svid') continue;
    const [der = ''] = x5c as string[];
    t.true(new X509Certificate(Buffer.from(der, 'base64')).publicKey.equals(key));
  }
  t.deepEqual(new Set(document.keys.map(({ use }) => use)), new Set(['x509-svid', 'jwt-svid']));
});

test('bundle show refuses what it cannot show, and says what it can', async (t) => {
  const signet = await agentFor(t);
  const other = await signet('bundle show --format spiffe --trust-domain partner.test');
  t.deepEqual([other.code, other.stdout], [1, '']);
  t.regex(other.stderr, /no bundle of partner\.test\n {2}it has those of example\.org/);
  for (const [words, problem] of [
    ['bundle', /"signet bundle" needs one of: show/],
    ['bundle shw', /did you mean "signet bundle show"\?/],
    ['bundle show --format der', /allowed is pem, jwks, spiffe/],
    ['bundle show --format pem -o json', /exclude each other/],
  ] as const) {
    const { code, stderr } = await signet(words);
    t.is(code, 2, words);
    t.regex(stderr, problem);
  }
});

test('bundle show ends with 4 for a process without an identity', async (t) => {
  const signet = await agentFor(t, { config: { entries: [] } });
  const { code, stdout } = await signet('bundle show --format pem');
  t.deepEqual([code, stdout], [4, '']);
});
