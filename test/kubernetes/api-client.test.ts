import test, { type ExecutionContext } from 'ava';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SystemClock } from '../../src/clock.ts';
import { SignetError } from '../../src/errors.ts';
import { KubernetesClient, type KubernetesClientOptions, type WatchEvent } from '../../src/kubernetes/api-client.ts';
import { KubernetesError, isExpired, isFromTheFuture } from '../../src/kubernetes/api-error.ts';
import { credentialsFrom } from '../../src/kubernetes/credentials.ts';
import { objectAt, textAt, type JsonObject } from '../../src/kubernetes/json.ts';
import { CLUSTER_SPIFFE_IDS, NAMESPACES, PODS, namespacedPathOf, named, onNode, pathOf } from '../../src/kubernetes/resources.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FakeApi, answer, object, status, until } from '../support/kubernetes-api.ts';

async function setUp(t: ExecutionContext, options: Partial<KubernetesClientOptions> = {}): Promise<{ api: FakeApi; client: KubernetesClient }> {
  const api = await FakeApi.start();
  const client = new KubernetesClient({ credentials: api.credentials(), clock: new SystemClock(), ...options });
  t.teardown(async () => {
    client.close();
    await api.stop();
  });
  return { api, client };
}

async function refused(t: ExecutionContext, answered: Promise<unknown>): Promise<KubernetesError> {
  const error = await t.throwsAsync(answered, { instanceOf: KubernetesError });
  if (error === undefined) throw new Error('unreachable');
  return error;
}

/** The first `count` events, then the watch is given up. */
async function take(watch: AsyncGenerator<WatchEvent, void, undefined>, count: number): Promise<WatchEvent[]> {
  const events: WatchEvent[] = [];
  for await (const event of watch) if (events.push(event) === count) break;
  return events;
}

test('get sends the token and returns the object', async (t) => {
  const { api } = await setUp(t);
  const client = new KubernetesClient({ credentials: api.credentials({ text: 'abc' }), clock: new SystemClock(), userAgent: 'signet/1' });
  t.teardown(() => client.close());
  api.token = 'abc';
  t.like(await client.get('/api/v1/pods'), { kind: 'PodList' });
  t.like(api.seen[0], { method: 'GET', path: '/api/v1/pods', body: '', headers: { authorization: 'Bearer abc', 'user-agent': 'signet/1', accept: 'application/json' } });
});

test('a client certificate is shown', async (t) => {
  const { api } = await setUp(t);
  const { ca, clientCert, clientKey } = api.pki;
  const server = new URL(`https://127.0.0.1:${api.port}`);
  const credentials = credentialsFrom({ server, origin: 'test', ca: { text: ca }, cert: { text: clientCert }, key: { text: clientKey } });
  const client = new KubernetesClient({ credentials, clock: new SystemClock() });
  t.teardown(() => client.close());
  await client.get('/version');
  t.is(api.seen[0]?.client, 'client');
});

test('one connection is kept for many requests', async (t) => {
  const { api, client } = await setUp(t);
  const ports = new Set<number | undefined>();
  for (let i = 0; i < 5; i++) {
    api.faults.push((_seen, response, request) => (ports.add(request.socket.remotePort), answer(response, 200, {}), true));
    await client.get('/version');
  }
  t.is(ports.size, 1);
});

test('a list gives every object of every page and the version to watch from', async (t) => {
  const { api, client } = await setUp(t);
  api.objects = Array.from({ length: 7 }, (_, i) => object(`p${i}`, `u${i}`, i));
  api.page = 3;
  const names: unknown[] = [];
  const version = await client.list(PODS, { limit: 3, resourceVersion: '0', fieldSelector: onNode('node-1') }, (raw) => names.push((raw['metadata'] as JsonObject)['name']));
  t.is(version, '100');
  t.deepEqual(names, ['p0', 'p1', 'p2', 'p3', 'p4', 'p5', 'p6']);
  const queries = api.lists().map(({ query }) => Object.fromEntries(query));
  t.deepEqual(queries, [
    { fieldSelector: 'spec.nodeName=node-1', limit: '3', resourceVersion: '0', resourceVersionMatch: 'NotOlderThan' },
    { fieldSelector: 'spec.nodeName=node-1', limit: '3', continue: '3' },
    { fieldSelector: 'spec.nodeName=node-1', limit: '3', continue: '6' },
  ]);
});

test('the newest list is asked for without a version', async (t) => {
  const { api, client } = await setUp(t);
  await client.list(PODS, {}, () => undefined);
  t.deepEqual(Object.fromEntries(api.lists()[0]?.query ?? []), { limit: '500' });
});

test('metadata only is asked for as a list, and as single objects by a watch', async (t) => {
  const { api, client } = await setUp(t);
  await client.list(NAMESPACES, { resourceVersion: '0' }, () => undefined);
  const events = take(client.watch(NAMESPACES, { resourceVersion: '5' }), 1);
  await until(() => api.watches.size === 1, 'the watch');
  api.bookmark('6');
  await events;
  t.is(api.lists()[0]?.headers.accept, 'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1');
  t.is(api.watched()[0]?.headers.accept, 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1');
});

test('a watch asks for bookmarks and gives events in whatever pieces they arrive', async (t) => {
  const { api, client } = await setUp(t);
  let opened = 0;
  const events = take(client.watch(PODS, { resourceVersion: '5', timeoutSeconds: 77, onOpen: () => (opened += 1) }), 4);
  await until(() => api.watches.size === 1, 'the watch');
  const line = JSON.stringify({ type: 'ADDED', object: object('ü', 'u', 6) });
  const bytes = Buffer.from(`${line}\n\n${line}\r\n`);
  // In the middle of a character too.
  for (const part of [bytes.subarray(0, 40), bytes.subarray(40, 52), bytes.subarray(52, 53), bytes.subarray(53)]) {
    api.watches.forEach(({ response }) => response.write(part));
    await new Promise(setImmediate);
  }
  api.bookmark('9');
  api.tell('DELETED', object('ü', 'u', 10));
  t.deepEqual((await events).map(({ type }) => type), ['ADDED', 'ADDED', 'BOOKMARK', 'DELETED']);
  t.is(((await events)[0]?.object['metadata'] as JsonObject)['name'], 'ü');
  t.is(opened, 1);
  t.deepEqual(Object.fromEntries(api.watched()[0]?.query ?? []), { watch: 'true', allowWatchBookmarks: 'true', resourceVersion: '5', timeoutSeconds: '77' });
});

test('giving a watch up closes its connection', async (t) => {
  const { api, client } = await setUp(t);
  const events = take(client.watch(PODS, { resourceVersion: '5' }), 1);
  await until(() => api.watches.size === 1, 'the watch');
  api.bookmark('6');
  await events;
  await until(() => api.watches.size === 0, 'the end of the connection');
  t.pass();
});

test('an ERROR event in a watch is an error with the status that it tells', async (t) => {
  const { api, client } = await setUp(t);
  const events = take(client.watch(PODS, { resourceVersion: '5' }), 1);
  await until(() => api.watches.size === 1, 'the watch');
  api.tell('ERROR', status(410, 'Expired', 'too old resource version: 5 (99)'));
  const error = await refused(t, events);
  t.true(isExpired(error));
  t.like(error, { status: 410, reason: 'Expired', message: 'watch of pods: 410 Expired: too old resource version: 5 (99)' });
});

for (const [what, text, message] of [
  ['is no JSON', '{"type":"ADDED",\n', 'watch of pods: the answer is not JSON'],
  ['is of an unknown type', '{"type":"MOVED","object":{}}\n', 'watch of pods: "MOVED" is not an event'],
  ['has no object', '{"type":"ADDED"}\n', 'watch of pods: "ADDED" is not an event'],
] as const) {
  test(`a watch ends with an error when an event ${what}`, async (t) => {
    const { api, client } = await setUp(t);
    const events = take(client.watch(PODS, { resourceVersion: '5' }), 1);
    await until(() => api.watches.size === 1, 'the watch');
    api.write(text);
    t.like(await refused(t, events), { code: 'unavailable', message });
  });
}

test('a watch that is cut inside an event ends with an error, whether the cut is clean or not', async (t) => {
  const { api, client } = await setUp(t);
  for (const cut of ['end', 'destroy'] as const) {
    const events = take(client.watch(PODS, { resourceVersion: '5' }), 1);
    await until(() => api.watches.size === 1, 'the watch');
    for (const { response } of api.watches) response.write('{"type":"ADDED","obj', () => response[cut]());
    const { message } = await refused(t, events);
    t.regex(message, cut === 'end' ? /^watch of pods: the stream ended inside an event$/ : /^GET https:\S+\/api\/v1\/pods: ECONNRESET aborted$/);
    await until(() => api.watches.size === 0, 'the end of the connection');
  }
});

test('a silent watch is given up after two bookmark periods, a telling one is not', async (t) => {
  const clock = new FakeClock();
  const { api, client } = await setUp(t, { clock, bookmarkMs: 60_000 });
  let told = 0;
  const watching = async (): Promise<void> => {
    for await (const event of client.watch(PODS, { resourceVersion: '5', onOpen: () => (told += 1) })) told += Number(event.type === 'BOOKMARK');
  };
  const error = refused(t, watching());
  for (let bookmarks = 1; bookmarks <= 3; bookmarks++) {
    await until(() => told === bookmarks && clock.pending === 1, 'waiting for the next bookmark');
    clock.advance(119_000);
    api.bookmark('6');
  }
  await until(() => told === 4 && clock.pending === 1, 'the last bookmark');
  clock.advance(120_000);
  t.like(await error, { code: 'timed_out' });
  t.regex((await error).message, /^GET https:\S+\/api\/v1\/pods: nothing more of the answer after 120000 ms$/);
});

async function advanceUntilDone(clock: FakeClock, done: Promise<unknown>): Promise<void> {
  let isDone = false;
  void done.finally(() => (isDone = true));
  while (!isDone) {
    clock.advance(10_000);
    await new Promise(setImmediate);
  }
}

test('an event larger than is read ends the watch', async (t) => {
  const { api, client } = await setUp(t, { limits: { bytes: 10_000 } });
  const events = take(client.watch(PODS, { resourceVersion: '5' }), 1);
  await until(() => api.watches.size === 1, 'the watch');
  api.write('x'.repeat(20_000));
  t.like(await refused(t, events), { code: 'limit_exceeded', message: 'watch of pods: an event is larger than 10000 bytes' });
});

test('a list that never ends in its first object is refused before it is in memory', async (t) => {
  const { api, client } = await setUp(t, { limits: { bytes: 100_000 } });
  let sent = 0;
  api.faults.push((_seen, response) => {
    const chunk = Buffer.alloc(65_536, 0x20);
    const more = (): void => {
      while (!response.destroyed && response.write(chunk)) sent += chunk.length;
      sent += chunk.length;
    };
    response.on('drain', more).on('error', () => undefined).writeHead(200);
    more();
    return true;
  });
  const error = await refused(t, client.list(PODS, {}, () => undefined));
  t.is(error.code, 'limit_exceeded');
  t.regex(error.message, /^GET https:\S+\/api\/v1\/pods: the answer around its items is larger than 100000 bytes$/);
  t.true(sent < 64 * 1_048_576);
});

test('a list may be larger than is read at once, an object of it may not', async (t) => {
  const { api, client } = await setUp(t, { limits: { bytes: 10_000 } });
  const filled = (name: string, bytes: number): JsonObject => object(name, name, 1, { text: 'x'.repeat(bytes) });
  api.objects = Array.from({ length: 100 }, (_, i) => filled(`n${i}`, 9_000));
  const names: string[] = [];
  t.is(await client.list(PODS, {}, (raw) => names.push(textAt(objectAt(raw, 'metadata'), 'name'))), '100');
  t.deepEqual(names, api.objects.map((raw) => textAt(objectAt(raw, 'metadata'), 'name')));
  api.objects = [filled('a', 10), filled('b', 10_000)];
  const error = await refused(t, client.list(PODS, {}, () => undefined));
  t.like(error, { code: 'limit_exceeded' });
  t.regex(error.message, /: one item is larger than 10000 bytes$/);
});

test('a refusal has the status, reason, words and patience of the Status object', async (t) => {
  const { api, client } = await setUp(t);
  const words = 'pods is forbidden: User "a" cannot list resource "pods"\n in the cluster scope';
  api.faults.push((_seen, response) => (answer(response, 403, status(403, 'Forbidden', words)), true));
  const forbidden = await refused(t, client.get('/api/v1/pods'));
  t.like(forbidden, { code: 'unavailable', status: 403, reason: 'Forbidden', retryAfterMs: undefined });
  t.is(forbidden.message, `GET https://127.0.0.1:${api.port}/api/v1/pods: 403 Forbidden: ${words.replace('\n ', ' ')}`);
  t.true(forbidden instanceof SignetError);
  api.faults.push((_seen, response) => (answer(response, 429, status(429, 'TooManyRequests', 'slow down', { retryAfterSeconds: 3 })), true));
  t.like(await refused(t, client.get('/api/v1/pods')), { status: 429, retryAfterMs: 3_000 });
  api.faults.push((_seen, response) => (answer(response, 503, 'upstream is down', { 'retry-after': '7' }), true));
  t.like(await refused(t, client.get('/api/v1/pods')), { status: 503, reason: '', retryAfterMs: 7_000, message: `GET https://127.0.0.1:${api.port}/api/v1/pods: 503: upstream is down` });
});

test('a version that the server has not reached is told apart', async (t) => {
  const { api, client } = await setUp(t);
  api.faults.push((_seen, response) => (answer(response, 504, status(504, 'Timeout', 'Timeout: Too large resource version: 9, current: 7', { retryAfterSeconds: 1 })), true));
  const error = await refused(t, client.list(PODS, { resourceVersion: '9' }, () => undefined));
  t.true(isFromTheFuture(error));
  t.false(isExpired(error));
});

test('an error page without end is not read to its end, and its words are cut', async (t) => {
  const { api, client } = await setUp(t);
  api.faults.push((_seen, response) => {
    response.on('error', () => undefined).writeHead(502);
    const more = (): void => void (response.destroyed || response.write('y'.repeat(10_000), () => setImmediate(more)));
    more();
    return true;
  });
  const error = await refused(t, client.get('/api/v1/pods'));
  t.is(error.status, 502);
  t.true(error.message.length < 800);
});

for (const [what, body, words] of [
  ['HTML', '<html>', 'the answer is not JSON'],
  ['a JSON list', '[]', 'the answer is not a JSON object'],
  ['an object whose items are no list', '{"items":{}}', 'the answer is not a list'],
] as const) {
  test(`a successful answer that is ${what} is an error`, async (t) => {
    const { api, client } = await setUp(t);
    api.faults.push((_seen, response) => (answer(response, 200, body), true));
    const { message } = await refused(t, client.list(PODS, {}, () => undefined));
    t.true(message.endsWith(words), message);
  });
}

test('a redirect is not followed: the token would go elsewhere', async (t) => {
  const { api, client } = await setUp(t);
  api.faults.push((_seen, response) => (answer(response, 302, '', { location: 'https://127.0.0.1:1/' }), true));
  t.like(await refused(t, client.get('/api/v1/pods')), { status: 302 });
  t.is(api.seen.length, 1);
});

function tokenFile(t: ExecutionContext, token: string): string {
  const path = mkdtempSync(join(tmpdir(), 'signet-token-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  writeFileSync(join(path, 'token'), token);
  return join(path, 'token');
}

test('after a 401 the token is read again, and the request sent once more with the new one', async (t) => {
  const { api } = await setUp(t);
  const path = tokenFile(t, 'old');
  const client = new KubernetesClient({ credentials: api.credentials({ path }), clock: new SystemClock() });
  t.teardown(() => client.close());
  api.token = 'new';
  // Rotated between our reading it and the server's answer.
  api.faults.push(() => (writeFileSync(path, 'new'), false));
  await client.get('/api/v1/pods');
  t.deepEqual(api.seen.map(({ headers }) => headers.authorization), ['Bearer old', 'Bearer new']);
});

test('a 401 with an unchanged token is not tried again', async (t) => {
  const { api } = await setUp(t);
  const client = new KubernetesClient({ credentials: api.credentials({ path: tokenFile(t, 'old') }), clock: new SystemClock() });
  t.teardown(() => client.close());
  api.token = 'new';
  t.like(await refused(t, client.get('/api/v1/pods')), { status: 401, reason: 'Unauthorized' });
  t.is(api.seen.length, 1);
});

test('a 401 to the new token too is the end of it', async (t) => {
  const { api } = await setUp(t);
  const path = tokenFile(t, 'a');
  const client = new KubernetesClient({ credentials: api.credentials({ path }), clock: new SystemClock() });
  t.teardown(() => client.close());
  api.token = 'c';
  api.faults.push(() => (writeFileSync(path, 'b'), false));
  t.like(await refused(t, client.get('/api/v1/pods')), { status: 401 });
  t.is(api.seen.length, 2);
});

test('apply, status, create and delete are what the API server expects', async (t) => {
  const { api, client } = await setUp(t);
  const path = namespacedPathOf(PODS, 'shop', 'web-1');
  const ok = (): unknown => api.faults.push((_seen, response) => (answer(response, 200, { ok: true }), true));
  ok();
  t.deepEqual(await client.apply(path, { kind: 'Pod' }, { fieldManager: 'signet', force: true }), { ok: true });
  ok();
  await client.applyStatus(path, { kind: 'Pod' }, { fieldManager: 'signet' });
  ok();
  await client.patchStatus(path, { phase: 'Running' });
  ok();
  await client.create('/apis/authentication.k8s.io/v1/tokenreviews', { spec: { token: 'x' } });
  ok();
  await client.delete(path, { uid: 'u-1' });
  ok();
  await client.delete(path);
  const sent = api.seen.map(({ method, path: at, query, headers, body }) => [method, `${at}?${query}`, headers['content-type'], body]);
  t.deepEqual(sent, [
    ['PATCH', '/api/v1/namespaces/shop/pods/web-1?fieldManager=signet&force=true', 'application/apply-patch+yaml', '{"kind":"Pod"}'],
    ['PATCH', '/api/v1/namespaces/shop/pods/web-1/status?fieldManager=signet', 'application/apply-patch+yaml', '{"kind":"Pod"}'],
    ['PATCH', '/api/v1/namespaces/shop/pods/web-1/status?', 'application/merge-patch+json', '{"status":{"phase":"Running"}}'],
    ['POST', '/apis/authentication.k8s.io/v1/tokenreviews?', 'application/json', '{"spec":{"token":"x"}}'],
    ['DELETE', '/api/v1/namespaces/shop/pods/web-1?', 'application/json', '{"preconditions":{"uid":"u-1"}}'],
    ['DELETE', '/api/v1/namespaces/shop/pods/web-1?', undefined, ''],
  ]);
});

test('paths and field selectors escape what names may hold', (t) => {
  t.is(pathOf(CLUSTER_SPIFFE_IDS, 'a/b'), '/apis/spire.spiffe.io/v1alpha1/clusterspiffeids/a%2Fb');
  t.is(namespacedPathOf(PODS, 'shop', 'x?y'), '/api/v1/namespaces/shop/pods/x%3Fy');
  t.is(namespacedPathOf(PODS, 'shop'), '/api/v1/namespaces/shop/pods');
  t.is(onNode('a,b=c\\'), 'spec.nodeName=a\\,b\\=c\\\\');
  t.is(named('n'), 'metadata.name=n');
  for (const name of ['', '.', '..']) {
    t.throws(() => namespacedPathOf(PODS, name, 'x'), { message: `"${name}" is not the name of a Kubernetes object` });
    t.throws(() => pathOf(PODS, name), { instanceOf: SignetError });
  }
});

test('a server that answers nothing is given up at each step, and says which', async (t) => {
  const clock = new FakeClock();
  const { api, client } = await setUp(t, { clock });
  api.faults.push(() => true);
  const answerless = refused(t, client.get('/api/v1/pods'));
  await until(() => api.seen.length === 1, 'the request');
  await advanceUntilDone(clock, answerless);
  t.like(await answerless, { code: 'timed_out', message: `GET https://127.0.0.1:${api.port}/api/v1/pods: connected, but no answer after 30000 ms` });
  api.faults.push((_seen, response) => (response.writeHead(200), response.write('{'), true));
  const half = refused(t, client.get('/api/v1/pods'));
  await until(() => api.seen.length === 2, 'the request');
  await advanceUntilDone(clock, half);
  t.is((await half).code, 'timed_out');
});

test('a port that accepts and says nothing is no connection', async (t) => {
  const { api } = await setUp(t);
  const mute = createServer().listen(0, '127.0.0.1');
  await once(mute, 'listening');
  const sockets: { destroy(): void }[] = [];
  mute.on('connection', (socket) => sockets.push(socket));
  t.teardown(() => (sockets.forEach((socket) => socket.destroy()), mute.close()));
  const { port } = mute.address() as { port: number };
  const clock = new FakeClock();
  const credentials = credentialsFrom({ server: new URL(`https://127.0.0.1:${port}`), origin: 'test', ca: { text: api.pki.ca } });
  const client = new KubernetesClient({ credentials, clock });
  t.teardown(() => client.close());
  const error = refused(t, client.get('/version'));
  await until(() => sockets.length === 1, 'the connection');
  clock.advance(5_000);
  t.like(await error, { code: 'timed_out', message: `GET https://127.0.0.1:${port}/version: no connection after 5000 ms` });
});

test('a closed port is told with its system error', async (t) => {
  const { api, client } = await setUp(t);
  await api.stop();
  t.regex((await refused(t, client.get('/version'))).message, /^GET https:\S+\/version: ECONNREFUSED /);
});

test('a server with a certificate of another CA, or for another name, is not spoken to', async (t) => {
  const { api } = await setUp(t);
  const other = await FakeApi.start();
  t.teardown(() => other.stop());
  const server = new URL(`https://127.0.0.1:${api.port}`);
  for (const [ca, serverName, words] of [
    [other.pki.ca, undefined, /UNABLE_TO_VERIFY_LEAF_SIGNATURE|SELF_SIGNED|certificate/],
    [api.pki.ca, 'node-2', /ERR_TLS_CERT_ALTNAME_INVALID/],
  ] as const) {
    const client = new KubernetesClient({ credentials: credentialsFrom({ server, serverName, origin: 'test', ca: { text: ca } }), clock: new SystemClock() });
    t.teardown(() => client.close());
    t.regex((await refused(t, client.get('/version'))).message, words);
  }
  t.is(api.seen.length, 0);
});

test('a kept connection that the server has closed is replaced without a word', async (t) => {
  const { api, client } = await setUp(t);
  await client.get('/version');
  // Answers the next request on the kept connection by cutting it: what a server does whose idle time-out has just run out.
  api.faults.push((_seen, _response, request) => (request.socket.destroy(), true));
  t.like(await client.get('/version'), { kind: 'PodList' });
  t.is(api.seen.length, 3);
});

test('a create on such a connection is not repeated: it may have been carried out', async (t) => {
  const { api, client } = await setUp(t);
  await client.get('/version');
  api.faults.push((_seen, _response, request) => (request.socket.destroy(), true));
  t.regex((await refused(t, client.create('/x', {}))).message, /ECONNRESET/);
  t.is(api.seen.length, 2);
});

test('the signal ends a request, a list and a watch with its own reason', async (t) => {
  const { api, client } = await setUp(t);
  const reason = new Error('enough');
  await t.throwsAsync(client.get('/version', { signal: AbortSignal.abort(reason) }), { is: reason });
  const stop = new AbortController();
  api.faults.push(() => true);
  const got = t.throwsAsync(client.get('/version', { signal: stop.signal }), { is: reason });
  const watched = t.throwsAsync(take(client.watch(PODS, { resourceVersion: '1', signal: stop.signal }), 1), { is: reason });
  await until(() => api.seen.length === 2 && api.watches.size === 1, 'both');
  stop.abort(reason);
  await Promise.all([got, watched]);
  await until(() => api.watches.size === 0, 'the end of the connection');
});
