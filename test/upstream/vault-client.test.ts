import { writeFileSync } from 'node:fs';
import { createServer, type RequestListener, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { VaultClient } from '../../src/upstream/vault/client.ts';
import { pathOf } from '../../src/upstream/vault/path.ts';
import type { VaultFault } from '../../src/upstream/vault/vault-error.ts';
import type { VaultLimits } from '../../src/upstream/vault/vault-options.ts';
import { connect, directory, listening, until, type Told } from '../support/vault-upstream.ts';

// Faults that a real server does not show when a test wants them.

interface Fake {
  readonly client: VaultClient;
  readonly told: Told;
  readonly seen: { method: string; url: string; headers: NodeJS.Dict<string | string[]>; body: string }[];
}

/** A server that answers as it is told, but for health and the renewal of the token, which are good. */
async function fake(t: ExecutionContext, answer: RequestListener, limits: Partial<VaultLimits> = {}, namespace = ''): Promise<Fake> {
  const seen: Fake['seen'] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      seen.push({ method: request.method ?? '', url: request.url ?? '', headers: request.headers, body });
      if (request.url === '/v1/auth/token/renew-self') return void json(response, 200, { auth: { client_token: 's.token', lease_duration: 3600, renewable: true } });
      answer(request, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const tokenFile = join(directory(t), 'token');
  writeFileSync(tokenFile, 's.token');
  const address = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  return { ...connect(t, { address, caFile: undefined }, { method: 'token', tokenFile }, { limits, namespace }), seen };
}

function json(response: ServerResponse, status: number, body: object, headers: Record<string, string> = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
}

test('a request has the token, the namespace and the header that no browser sends', async (t) => {
  const { client, seen } = await fake(t, (_, response) => json(response, 200, { data: { a: 1 }, warnings: ['careful'] }), {}, 'team/a');
  t.deepEqual(await client.request('POST', pathOf('pki/eu', 'sign', 'a b'), { body: { ttl: '1h' } }), { data: { a: 1 }, auth: {}, warnings: ['careful'] });
  const { url, headers, body, method } = seen.at(-1) ?? t.fail();
  t.deepEqual([method, url, body], ['POST', '/v1/pki/eu/sign/a%20b', '{"ttl":"1h"}']);
  t.deepEqual([headers['x-vault-token'], headers['x-vault-namespace'], headers['x-vault-request']], ['s.token', 'team/a', 'true']);
  await client.requestOpen('LIST', 'pki/issuers');
  const open = seen.at(-1);
  t.deepEqual([open?.method, open?.url, open?.headers['x-vault-token']], ['GET', '/v1/pki/issuers?list=true', undefined]);
});

type Answer = (response: ServerResponse) => void;
const FAULTS: readonly (readonly [what: string, answer: Answer, fault: VaultFault, message: RegExp])[] = [
  ['a redirect', (r) => json(r, 307, {}, { location: 'https://evil.example/v1/x' }), 'standby', /leads to https:\/\/evil\.example, which is not followed/],
  ['400', (r) => json(r, 400, { errors: ['unknown role: x'] }), 'bad_request', /400: unknown role: x$/],
  ['403', (r) => json(r, 403, { errors: ['1 error occurred:\n\t* permission denied\n\n'] }), 'forbidden', /403: permission denied: the policies/],
  ['404', (r) => json(r, 404, { errors: [] }), 'not_found', /404: nothing is there/],
  ['429', (r) => json(r, 429, { errors: ['request path "pki": rate limit quota exceeded'] }, { 'retry-after': '7' }), 'rate_limited', /429: .*quota/],
  ['500', (r) => json(r, 500, { errors: ['internal error'] }), 'server_error', /500: internal error$/],
  ['502 of a load balancer', (r) => void r.writeHead(502).end('<html>Bad\n\nGateway</html>'), 'unavailable', /502: <html>Bad Gateway<\/html>$/],
  ['503 of a sealed Vault', (r) => json(r, 503, { errors: ['Vault is sealed'] }), 'sealed', /503: Vault is sealed: What to do: unseal it/],
  ['garbage', (r) => void r.writeHead(200).end('<html>'), 'malformed', /the answer is not a JSON object/],
  ['a list', (r) => void r.writeHead(200).end('[]'), 'malformed', /the answer is not a JSON object/],
  ['a cut connection', (r) => void r.destroy(), 'unreachable', /cannot be reached/],
  ['a cut answer', (r) => void (r.writeHead(200, { 'content-length': '100' }), r.write('{'), setImmediate(() => r.destroy())), 'unreachable', /cannot be reached/],
  ['an answer that is too large', (r) => json(r, 200, { data: 'x'.repeat(5_000) }), 'malformed', /larger than 4096 bytes/],
  ['no answer', () => undefined, 'timed_out', /no complete answer after 1000 ms/],
  ['half an answer', (r) => void (r.writeHead(200), r.write('{')), 'timed_out', /no complete answer after 1000 ms/],
];
for (const [what, answer, fault, message] of FAULTS) {
  test(`${what} has an error of its own, is told once, and is forgotten when it is over`, async (t) => {
    let isOver = false;
    const good: Answer = (response) => json(response, 200, { data: {} });
    const { client, told } = await fake(t, (_, response) => (isOver ? good : answer)(response), { bytes: 4_096, ...(fault === 'timed_out' ? { answerMs: 1_000 } : {}) });
    const error = await t.throwsAsync(client.request('POST', 'a/b', { body: {}, purpose: 'test' }), { code: 'authority_unavailable', message });
    t.like(error, { fault });
    if (fault === 'rate_limited') t.like(error, { retryAfterMs: 7_000 });
    await t.throwsAsync(client.request('POST', 'a/b', { body: {}, purpose: 'test' }));
    t.is(told.failed.length, 1);
    t.is(client.problem(), told.failed[0]);
    isOver = true;
    await client.request('POST', 'a/b', { body: {}, purpose: 'test' });
    t.is(client.problem(), undefined);
    t.is(told.lines.filter(({ event }) => event === 'upstream.returned').length, 1);
  });
}

test('what is refused for one purpose is a problem until the same succeeds, or is not wanted any more', async (t) => {
  const { client, told } = await fake(t, (request, response) => (request.url === '/v1/bad' ? json(response, 403, { errors: ['no'] }) : json(response, 200, {})));
  await t.throwsAsync(client.request('GET', 'bad', { purpose: 'one' }));
  const { answered } = told;
  await client.request('GET', 'good', { purpose: 'two' });
  t.regex(client.problem() ?? '', /bad: 403/);
  t.is(told.answered, answered);
  client.forget('one');
  t.is(client.problem(), undefined);
});

test('while something is refused, whoever listens is told to ask again from time to time', async (t) => {
  const { client } = await fake(t, (_, response) => json(response, 403, { errors: ['no'] }));
  let nudges = 0;
  client.onReturn(() => void (nudges += 1));
  await t.throwsAsync(client.request('GET', 'bad'));
  await until(t, 'two nudges', () => nudges >= 2);
});

test('a kept connection that the server has closed meanwhile is no failure', async (t) => {
  let count = 0;
  const { client, told } = await fake(t, (request, response) => {
    count += 1;
    // The second request finds its connection cut before it is answered.
    if (count === 2) return void request.socket.destroy();
    json(response, 200, { data: { count } });
  });
  await client.requestOpen('GET', 'x');
  t.deepEqual((await client.requestOpen('GET', 'x')).data, { count: 3 });
  t.deepEqual(told.failed, []);
});

test('a caller that gives up gets its own reason, and that is no failure of Vault', async (t) => {
  const { client, told } = await fake(t, () => undefined);
  const giving = new AbortController();
  const asked = client.requestOpen('GET', 'x', { signal: giving.signal });
  setImmediate(() => giving.abort(new Error('enough')));
  await t.throwsAsync(asked, { message: 'enough' });
  t.deepEqual(told.failed, []);
});

test('closing ends what is under way, and nothing is told of it', async (t) => {
  const { client, told } = await fake(t, () => undefined);
  const asked = client.requestOpen('GET', 'x');
  setImmediate(() => client.close());
  await t.throwsAsync(asked, { code: 'stopped' });
  t.deepEqual(told.failed, []);
});

test('a token does not cross a network in the clear', (t) => {
  const auth = { method: 'token', tokenFile: '/x' } as const;
  for (const good of ['https://vault.example:8200', 'http://127.0.0.1:8200', 'http://[::1]:8200', 'http://localhost:8200/prefix']) {
    t.notThrows(() => new VaultClient({ address: new URL(good), auth }, listening().tools).close(), good);
  }
  for (const bad of ['http://vault.example:8200', 'http://127.0.0.1.evil.example', 'ftp://localhost']) {
    t.throws(() => new VaultClient({ address: new URL(bad), auth }, listening().tools), { code: 'invalid_config', message: /has no TLS/ }, bad);
  }
});
