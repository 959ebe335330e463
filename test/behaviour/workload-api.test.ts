import { createPrivateKey, X509Certificate } from 'node:crypto';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLocalJWKSet, decodeJwt, jwtVerify, type JSONWebKeySet } from 'jose';
import test, { type ExecutionContext } from 'ava';
import { Agent } from '../../src/agent.ts';
import { openKernel } from '../../src/kernel.ts';
import { systemRandom } from '../../src/random.ts';
import { OWN_ID, startTestAgent, testConfig, type TestAgent, type TestAgentOptions } from '../support/agent.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { testIf } from '../support/kernel-conditions.ts';
import { until } from '../support/kernel-processes.ts';
import { RawClient, type Headers, type Svid } from '../support/raw-client.ts';

const API = '/SpiffeWorkloadAPI/';
const STREAMS = ['FetchX509SVID', 'FetchX509Bundles', 'FetchJWTBundles'] as const;
const SELF = [`unix:uid:${process.geteuid?.()}`];
const TD = 'spiffe://example.org';

interface Svids {
  readonly svids: readonly Svid[];
}
interface Bundles {
  readonly bundles: Readonly<Record<string, Buffer>>;
}

async function serve(t: ExecutionContext, options: TestAgentOptions = {}): Promise<{ agent: TestAgent; client: RawClient }> {
  const agent = await startTestAgent(options);
  const client = new RawClient(agent.socketPath);
  t.teardown(async () => {
    client.close();
    await agent.stop();
  });
  return { agent, client };
}

/** Ends a fake clock's agent: it waits for its clock. */
async function stopOn(clock: FakeClock, agent: TestAgent): Promise<void> {
  const turn = setInterval(() => clock.advance(100), 5);
  await agent.stop();
  clearInterval(turn);
}

/** DER certificates that stand one after the other. */
function certificatesOf(bytes: Buffer): X509Certificate[] {
  const all: X509Certificate[] = [];
  for (let rest = bytes; rest.length > 0; rest = rest.subarray(all.at(-1)!.raw.length)) all.push(new X509Certificate(rest));
  return all;
}

test('XS-01, WA-22, WA-28, WA-29, WA-31: an X.509-SVID is complete, its key fits, and it verifies with its bundle', async (t) => {
  const { client } = await serve(t, { config: { entries: [{ id: OWN_ID, selectors: SELF, dnsNames: ['web'], hint: 'internal' }] } });
  const { svids } = await client.stream<Svids>(`${API}FetchX509SVID`).next();
  const [svid] = svids;
  t.is(svids.length, 1);
  t.like(svid, { spiffe_id: OWN_ID, hint: 'internal' });
  const [leaf, ...more] = certificatesOf(svid!.x509_svid);
  t.deepEqual(more, [], 'the root is not sent along');
  t.is(leaf!.subjectAltName, `URI:${OWN_ID}, DNS:web`);
  t.true(leaf!.checkPrivateKey(createPrivateKey({ key: svid!.x509_svid_key, format: 'der', type: 'pkcs8' })));
  const roots = certificatesOf(svid!.bundle);
  t.true(roots.some((root) => leaf!.verify(root.publicKey)));
  t.is(roots[0]!.subjectAltName, `URI:${TD}`, 'XS-08, ID-22: the CA has the ID of the trust domain');
});

testIf([spawnSync('openssl', ['version']).status === 0, 'needs openssl'], 'XS-29: OpenSSL accepts the chain strictly, as server and as client, with each kind of key', async (t) => {
  for (const keyType of ['ec-p256', 'ec-p384', 'rsa-2048']) {
    const { client } = await serve(t, { config: { x509: { keyType } } });
    const { svids } = await client.stream<Svids>(`${API}FetchX509SVID`).next();
    const directory = mkdtempSync(join(tmpdir(), 'signet-verify-'));
    t.teardown(() => rmSync(directory, { recursive: true, force: true }));
    const file = (name: string, bytes: Buffer): string => {
      writeFileSync(join(directory, name), certificatesOf(bytes).map(String).join(''));
      return join(directory, name);
    };
    for (const purpose of ['sslserver', 'sslclient']) {
      const { status, stderr } = spawnSync('openssl', ['verify', '-x509_strict', '-purpose', purpose, '-CAfile', file('bundle', svids[0]!.bundle), file('leaf', svids[0]!.x509_svid)], { encoding: 'utf8' });
      t.is(status, 0, `${keyType} ${purpose}: ${stderr}`);
    }
  }
});

test('WA-21, WA-38, WA-74: a caller with three identities gets all of them, in one stable order', async (t) => {
  const entries = [{ id: `${TD}/b`, selectors: SELF, hint: 'b' }, { id: `${TD}/a`, selectors: SELF }, { id: `${TD}/first`, selectors: SELF, priority: 1 }];
  const { client } = await serve(t, { config: { entries } });
  const order = [`${TD}/first`, `${TD}/a`, `${TD}/b`];
  const x509 = await client.stream<Svids>(`${API}FetchX509SVID`).next();
  t.deepEqual(x509.svids.map((svid) => svid.spiffe_id), order);
  t.is(new Set(x509.svids.map((svid) => svid.x509_svid_key.toString('hex'))).size, 3, 'each has a key of its own');
  const jwt = await client.unary<Svids>(`${API}FetchJWTSVID`, { audience: ['x'] });
  t.deepEqual(jwt.svids.map((svid) => decodeJwt(svid.svid).sub), order);
  const one = await client.unary<Svids>(`${API}FetchJWTSVID`, { audience: ['x'], spiffe_id: `${TD}/b` });
  t.deepEqual(one.svids.map((svid) => [svid.spiffe_id, svid.hint]), [[`${TD}/b`, 'b']]);
});

test('WA-33, WA-44, WA-45, WA-46: the bundles are those of the own trust domain, and verify tokens with another library', async (t) => {
  const { client } = await serve(t);
  const x509 = await client.stream<Bundles>(`${API}FetchX509Bundles`).next();
  t.deepEqual(Object.keys(x509.bundles), [TD]);
  t.is(certificatesOf(x509.bundles[TD]!).length, 1);
  const jwt = await client.stream<Bundles>(`${API}FetchJWTBundles`).next();
  t.deepEqual(Object.keys(jwt.bundles), [TD]);
  const jwks = JSON.parse(jwt.bundles[TD]!.toString()) as JSONWebKeySet;
  for (const key of jwks.keys) t.deepEqual(Object.keys(key).sort(), ['crv', 'kid', 'kty', 'x', 'y']);
  const { svids } = await client.unary<Svids>(`${API}FetchJWTSVID`, { audience: ['b', 'a'] });
  const { payload, protectedHeader } = await jwtVerify(svids[0]!.svid, createLocalJWKSet(jwks), { audience: 'a' });
  t.deepEqual(payload.aud, ['b', 'a'], 'WA-37: the audiences as they were asked for');
  t.deepEqual(protectedHeader, { alg: 'ES256', kid: jwks.keys[0]!.kid!, typ: 'JWT' }, 'JS-03: nothing else in the header');
  t.deepEqual(Object.keys(payload).sort(), ['aud', 'exp', 'iat', 'sub']);
  t.is(payload.exp! - payload.iat!, 300, 'JS-22: five minutes');
});

test('an issuer that is configured stands in the token', async (t) => {
  const { client } = await serve(t, { config: { jwt: { issuer: 'https://issuer.example.org' } } });
  const { svids } = await client.unary<Svids>(`${API}FetchJWTSVID`, { audience: ['x'] });
  t.is(decodeJwt(svids[0]!.svid).iss, 'https://issuer.example.org');
});

test('WA-51, WA-52, WA-53, WA-55: a valid token comes back with its ID and its claims', async (t) => {
  const { client } = await serve(t);
  const { svids } = await client.unary<Svids>(`${API}FetchJWTSVID`, { audience: ['x'] });
  const valid = await client.unary<{ spiffe_id: string; claims: { fields: Record<string, Record<string, unknown>> } }>(`${API}ValidateJWTSVID`, { audience: 'x', svid: svids[0]!.svid });
  t.is(valid.spiffe_id, OWN_ID);
  const { sub, aud, exp, iat } = valid.claims.fields;
  t.is(sub!['stringValue'], OWN_ID);
  t.like(aud, { listValue: { values: [{ stringValue: 'x' }] } });
  t.is(exp!['numberValue'], decodeJwt(svids[0]!.svid).exp);
  t.is(typeof iat!['numberValue'], 'number');
});

for (const [rule, method, request, code, details] of [
  ['WA-17', 'FetchJWTSVID', {}, 3, 'audience must be specified'],
  ['AM-21', 'FetchJWTSVID', { audience: [''] }, 3, 'audience must be specified'],
  ['JS-14', 'FetchJWTSVID', { audience: Array.from({ length: 33 }, (_, i) => `a${i}`) }, 3, 'too many audiences'],
  ['WA-43', 'FetchJWTSVID', { audience: ['x'], spiffe_id: `${TD}/somebody-else` }, 7, 'no identity issued'],
  ['ID-20', 'FetchJWTSVID', { audience: ['x'], spiffe_id: OWN_ID.replace('tester', 'TESTER') }, 7, 'no identity issued'],
  ['ID-01', 'FetchJWTSVID', { audience: ['x'], spiffe_id: 'http://example.org/a' }, 3, 'spiffe_id is not a SPIFFE ID'],
  ['WA-17', 'ValidateJWTSVID', { audience: 'x' }, 3, 'svid must be specified'],
  ['JS-33', 'ValidateJWTSVID', { svid: 'x' }, 3, 'audience must be specified'],
  ['ID-25', 'ValidateJWTSVID', { audience: 'x', svid: '-----BEGIN CERTIFICATE-----' }, 3, 'svid is not valid'],
] as const) {
  test(`${rule}: ${method} ${JSON.stringify(request).slice(0, 60)} ends with ${code} "${details}"`, async (t) => {
    const { client } = await serve(t);
    await t.throwsAsync(client.unary(`${API}${method}`, request), { message: details, code });
  });
}

test('WA-25, WA-34, WA-43, WA-48: a caller without identity is denied everything but the validation of tokens', async (t) => {
  const { agent, client } = await serve(t, { config: { entries: [] } });
  for (const method of STREAMS) t.deepEqual(await client.stream(`${API}${method}`).ended(), { code: 7, details: 'no identity issued' });
  await t.throwsAsync(client.unary(`${API}FetchJWTSVID`, { audience: ['x'] }), { message: 'no identity issued' });
  await t.throwsAsync(client.unary(`${API}ValidateJWTSVID`, { audience: 'x', svid: 'a.b.c' }), { message: 'svid is not valid' });
  t.is(agent.agent.counters.refused('no_identity'), 4);
});

const WRONG_HEADERS: readonly Headers[] = [
  [],
  ...['TRUE', 'True', '1', '', 'false', 'true,true'].map((value): Headers => [['workload.spiffe.io', value]]),
  [['workload.spiffe.io', 'true'], ['workload.spiffe.io', 'false']],
  [['workload-spiffe-io', 'true']],
];

test('WE-08, WE-21: without exactly the one header every call is refused before anything is done, the WIT calls too', async (t) => {
  const { agent, client } = await serve(t);
  const refusal = { code: 3, details: 'security header missing from request' };
  for (const headers of WRONG_HEADERS) {
    for (const method of [...STREAMS, 'FetchWITSVID', 'FetchWITBundles']) t.deepEqual(await client.stream(`${API}${method}`, {}, headers).ended(), refusal, method);
    for (const method of ['FetchJWTSVID', 'ValidateJWTSVID']) {
      await t.throwsAsync(client.unary(`${API}${method}`, { audience: ['x'] }, headers), { message: refusal.details });
    }
  }
  t.is(agent.agent.counters.issued('x509') + agent.agent.counters.issued('jwt'), 0);
});

test('WA-58: the WIT calls are unimplemented, for whomever', async (t) => {
  for (const config of [{}, { entries: [] }]) {
    const { client } = await serve(t, { config });
    for (const method of ['FetchWITSVID', 'FetchWITBundles']) t.is((await client.stream(`${API}${method}`).ended()).code, 12);
  }
});

test('WE-32: unknown methods and services are unimplemented', async (t) => {
  const { client } = await serve(t);
  for (const path of [`${API}NoSuch`, '/No.Such/Rpc']) await t.throwsAsync(client.unary(path, {}), { code: 12 });
});

test('health is told without the security header, for the agent and its service alone', async (t) => {
  const { agent, client } = await serve(t);
  for (const service of ['', 'SpiffeWorkloadAPI']) t.deepEqual(await client.unary('/grpc.health.v1.Health/Check', { service }, []), { status: 'SERVING' });
  await t.throwsAsync(client.unary('/grpc.health.v1.Health/Check', { service: 'other' }, []), { code: 5 });
  const watch = client.stream<{ status: string }>('/grpc.health.v1.Health/Watch', { service: '' }, []);
  t.deepEqual(await watch.next(), { status: 'SERVING' });
  const stopping = agent.agent.stop();
  t.deepEqual(await watch.next(), { status: 'NOT_SERVING' });
  t.is((await watch.ended()).code, 14);
  await stopping;
});

test('WA-09, WA-10, WA-12: a stream sends at once, then once at each change, and never the same twice', async (t) => {
  const clock = new FakeClock();
  const agent = await startTestAgent({ clock });
  const client = new RawClient(agent.socketPath);
  t.teardown(async () => {
    client.close();
    await stopOn(clock, agent);
  });
  const stream = client.stream<Svids>(`${API}FetchX509SVID`);
  const first = await stream.next();
  const entry = agent.config.entries[0]!;
  agent.agent.replaceEntries([entry]);
  agent.agent.replaceEntries([{ ...entry, dnsNames: ['web'] }]);
  const second = await nextOn(clock, stream);
  t.not(second.svids[0]!.x509_svid.toString('hex'), first.svids[0]!.x509_svid.toString('hex'));
  t.regex(new X509Certificate(second.svids[0]!.x509_svid).subjectAltName ?? '', /DNS:web/);
  agent.agent.replaceEntries([{ ...entry, dnsNames: ['web'], hint: 'h' }]);
  t.is((await nextOn(clock, stream)).svids[0]!.hint, 'h');
  agent.agent.replaceEntries([{ ...entry, dnsNames: ['web'], hint: 'h' }, { ...entry, id: `${TD}/more` as typeof entry.id }]);
  t.is((await nextOn(clock, stream)).svids.length, 2);
  t.is(stream.waiting, 0);
});

test('WA-25: a withdrawn entry is served for the delay, and then the stream ends with PermissionDenied', async (t) => {
  const clock = new FakeClock();
  const agent = await startTestAgent({ clock });
  const client = new RawClient(agent.socketPath);
  t.teardown(async () => {
    client.close();
    await stopOn(clock, agent);
  });
  const streams = STREAMS.map((method) => client.stream(`${API}${method}`));
  for (const stream of streams) await stream.next();
  const { entries } = agent.config;
  agent.agent.replaceEntries([]);
  clock.advance(9_000);
  agent.agent.replaceEntries(entries);
  clock.advance(20_000);
  t.deepEqual(streams.map((stream) => stream.waiting), [0, 0, 0], 'an entry that comes back is no change');
  agent.agent.replaceEntries([]);
  clock.advance(10_000);
  for (const stream of streams) t.deepEqual(await stream.ended(), { code: 7, details: 'no identity issued' });
});

test('WE-23: a stream ends with Unavailable when the agent stops, never with OK', async (t) => {
  const { agent, client } = await serve(t);
  const streams = STREAMS.map((method) => client.stream(`${API}${method}`));
  for (const stream of streams) await stream.next();
  await agent.agent.stop();
  for (const stream of streams) t.is((await stream.ended()).code, 14);
});

test('ID-17: an ID of 2048 bytes is carried whole', async (t) => {
  const id = `${TD}/${'a'.repeat(2027)}`;
  const { client } = await serve(t, { config: { entries: [{ id, selectors: SELF }] } });
  const { svids } = await client.stream<Svids>(`${API}FetchX509SVID`).next();
  t.is(svids[0]!.spiffe_id, id);
  t.is(new X509Certificate(svids[0]!.x509_svid).subjectAltName, `URI:${id}`);
  const jwt = await client.unary<Svids>(`${API}FetchJWTSVID`, { audience: [id] });
  t.is(decodeJwt(jwt.svids[0]!.svid).sub, id);
  t.is((await client.unary<{ spiffe_id: string }>(`${API}ValidateJWTSVID`, { audience: id, svid: jwt.svids[0]!.svid })).spiffe_id, id);
});

test('WE-23: a call that comes before the agent is ready waits for it, and gets Unavailable when that takes too long', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'signet-early-'));
  const holder = await startTestAgent({ directory });
  const clock = new FakeClock();
  const nothing = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  const other = join(directory, 'other.sock');
  const config = { ...testConfig(directory), socketPath: other };
  const waiting = new Agent(config, { clock, random: systemRandom, kernel: openKernel(), log: nothing });
  const client = new RawClient(other);
  t.teardown(async () => {
    client.close();
    const turn = setInterval(() => clock.advance(100), 5);
    await waiting.stop();
    clearInterval(turn);
    rmSync(directory, { recursive: true, force: true });
  });
  const starting = waiting.start();
  // The data directory is held by the first agent: the second one listens, and is not ready.
  const early = client.stream(`${API}FetchX509SVID`);
  const patient = client.stream<Svids>(`${API}FetchX509SVID`);
  await until(() => waiting.taken.calls === 2, 'the calls have come');
  t.deepEqual(await client.unary('/grpc.health.v1.Health/Check', { service: '' }, []), { status: 'NOT_SERVING' });
  clock.advance(10_000);
  t.deepEqual(await early.ended(), { code: 14, details: 'the agent is not ready' });
  t.is((await patient.ended()).code, 14);
  const third = client.stream<Svids>(`${API}FetchX509SVID`);
  await until(() => waiting.taken.calls === 1, 'the third call has come');
  await holder.stop();
  clock.advance(20);
  await starting;
  t.is((await third.next()).svids[0]!.spiffe_id, OWN_ID);
});

async function nextOn<T>(clock: FakeClock, stream: { next(): Promise<T> }): Promise<T> {
  // An update waits until its reader has taken the last one, which it asks the kernel for on a timer.
  const turn = setInterval(() => clock.advance(10), 5);
  try {
    return await stream.next();
  } finally {
    clearInterval(turn);
  }
}
