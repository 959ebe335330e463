import 'reflect-metadata';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { BasicConstraintsExtension, KeyUsageFlags, KeyUsagesExtension, ExtendedKeyUsageExtension, SubjectAlternativeNameExtension, X509Certificate as ParsedCertificate } from '@peculiar/x509';
import test, { type ExecutionContext } from 'ava';
import { OWN_ID, startTestAgent, type TestAgent, type TestAgentOptions } from '../../support/agent.ts';
import { temporaryDirectory, until } from '../../support/kernel-processes.ts';
import { RawClient, SECURITY, type Headers, type Svid } from '../../support/raw-client.ts';

const API = '/SpiffeWorkloadAPI/';
const HEALTH = '/grpc.health.v1.Health/';
const TD = 'spiffe://example.org';
const SELF = [`unix:uid:${process.geteuid?.()}`];

interface Svids {
  readonly svids: readonly Svid[];
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

test('SP-01, WE-09, WE-17: the one header is all that a caller has to send', async (t) => {
  const { client } = await serve(t);
  t.deepEqual(SECURITY, [['workload.spiffe.io', 'true']]);
  t.is((await client.stream<Svids>(`${API}FetchX509SVID`).next()).svids[0]!.spiffe_id, OWN_ID);
});

test('WE-08: the header twice is refused, even when both say true', async (t) => {
  const { client } = await serve(t);
  const twice: Headers = [...SECURITY, ...SECURITY];
  t.deepEqual(await client.stream(`${API}FetchX509SVID`, {}, twice).ended(), { code: 3, details: 'security header missing from request' });
  await t.throwsAsync(client.unary(`${API}FetchJWTSVID`, { audience: ['x'] }, twice), { code: 3 });
});

test('WA-11, WA-12: each of a hundred streams of one connection gets its first message, from one signature', async (t) => {
  const { agent, client } = await serve(t);
  const streams = Array.from({ length: 100 }, () => client.stream<Svids>(`${API}FetchX509SVID`));
  const first = await Promise.all(streams.map((stream) => stream.next()));
  t.is(new Set(first.map(({ svids }) => svids[0]!.x509_svid.toString('hex'))).size, 1);
  t.is(agent.agent.counters.issued('x509'), 1);
  t.is(agent.agent.taken.connections, 1);
});

test('WA-05: fields that a request does not have are ignored', async (t) => {
  const { agent } = await serve(t);
  const client = new Client(`unix:${agent.socketPath}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  t.teardown(() => client.close());
  const metadata = new Metadata();
  metadata.set('workload.spiffe.io', 'true');
  const bytes = (value: Buffer): Buffer => value;
  // audience (1) = "x", then an unknown text (99) and an unknown number (100).
  const request = Buffer.from([0x0a, 1, 0x78, 0x9a, 0x06, 1, 0x79, 0xa0, 0x06, 7]);
  const answer = await new Promise<Buffer>((resolve, reject) => {
    client.makeUnaryRequest(`${API}FetchJWTSVID`, bytes, bytes, request, metadata, (error, value) => (error === null ? resolve(value!) : reject(error)));
  });
  t.true(answer.includes(OWN_ID));
});

test('WA-23, WA-41: of two identities with one hint the first is told, in both kinds; without a hint all are', async (t) => {
  const uid = process.geteuid?.() ?? 0;
  const gid = process.getegid?.() ?? 0;
  const entries = [
    { id: `${TD}/a`, selectors: [`unix:uid:${uid}`], hint: 'internal' },
    { id: `${TD}/b`, selectors: [`unix:gid:${gid}`], hint: 'internal' },
    { id: `${TD}/c`, selectors: SELF },
    { id: `${TD}/d`, selectors: SELF },
  ];
  const { client } = await serve(t, { config: { entries } });
  const told = ({ svids }: Svids): string[] => svids.map(({ spiffe_id, hint }) => `${spiffe_id} ${hint}`);
  const expected = [`${TD}/a internal`, `${TD}/c `, `${TD}/d `];
  t.deepEqual(told(await client.stream<Svids>(`${API}FetchX509SVID`).next()), expected);
  t.deepEqual(told(await client.unary<Svids>(`${API}FetchJWTSVID`, { audience: ['x'] })), expected);
});

test('WA-74: the order of identities is the same after a restart, and the first is the default', async (t) => {
  const directory = temporaryDirectory(t);
  const ids = ['z', 'm', 'a', 'B'].map((name) => ({ id: `${TD}/${name}`, selectors: SELF }));
  const orders: string[][] = [];
  for (const entries of [ids, [...ids].reverse()]) {
    const agent = await startTestAgent({ directory, config: { entries } });
    const client = new RawClient(agent.socketPath);
    orders.push((await client.stream<Svids>(`${API}FetchX509SVID`).next()).svids.map(({ spiffe_id }) => spiffe_id));
    client.close();
    await agent.stop();
  }
  t.deepEqual(orders[0], [`${TD}/B`, `${TD}/a`, `${TD}/m`, `${TD}/z`]);
  t.deepEqual(orders[1], orders[0]);
});

for (const keyType of ['ec-p256', 'ec-p384', 'rsa-2048']) {
  test(`WA-29, XS-15, XS-19, XS-22, XS-24, XS-27: a leaf with an ${keyType} key has the profile to the bit, and its key is PKCS#8`, async (t) => {
    const { client } = await serve(t, { config: { x509: { keyType } } });
    const svid = (await client.stream<Svids>(`${API}FetchX509SVID`).next()).svids[0]!;
    const leaf = new ParsedCertificate(svid.x509_svid);
    t.is(leaf.rawData.byteLength, svid.x509_svid.length, 'WA-28: nothing follows the leaf');
    const constraints = leaf.getExtension(BasicConstraintsExtension);
    t.true(constraints?.critical);
    t.is(Buffer.from(constraints!.value).toString('hex'), '3000', 'CA:FALSE is left out, as DER wants it');
    const usage = leaf.getExtension(KeyUsagesExtension);
    t.true(usage?.critical);
    t.is(usage?.usages, KeyUsageFlags.digitalSignature, 'XS-23: and nothing else');
    t.deepEqual(leaf.getExtension(ExtendedKeyUsageExtension)?.usages.toSorted(), ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
    t.deepEqual(leaf.getExtension(SubjectAlternativeNameExtension)?.names.items.map(({ type, value }) => [type, value]), [['url', OWN_ID]]);
    // PrivateKeyInfo: SEQUENCE, INTEGER 0, AlgorithmIdentifier.
    t.regex(svid.x509_svid_key.toString('hex'), /^30(?:[0-7].|81..|82....)02010030/);
    t.true(new X509Certificate(svid.x509_svid).checkPrivateKey(createPrivateKey({ key: svid.x509_svid_key, format: 'der', type: 'pkcs8' })));
  });
}

test('XS-08, XS-10, XS-14, XS-20, XS-28, XS-43, XS-39: the CA has the ID of the trust domain without a path, and may do nothing but sign', async (t) => {
  const { client } = await serve(t);
  const svid = (await client.stream<Svids>(`${API}FetchX509SVID`).next()).svids[0]!;
  const root = new ParsedCertificate(svid.bundle);
  t.deepEqual(root.getExtension(SubjectAlternativeNameExtension)?.names.items.map(({ type, value }) => [type, value]), [['url', TD]]);
  t.like(root.getExtension(BasicConstraintsExtension), { ca: true, critical: true });
  t.like(root.getExtension(KeyUsagesExtension), { critical: true, usages: KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign });
  t.is(root.getExtension(ExtendedKeyUsageExtension), null);
  t.not(root.subject, '');
  t.is(root.issuer, root.subject);
  t.true(await root.verify());
});

for (const [what, method, request, details] of [
  ['an audience that is too long', 'FetchJWTSVID', { audience: ['a'.repeat(2_049)] }, 'an audience is too long'],
  ['an audience of too many bytes', 'FetchJWTSVID', { audience: ['ä'.repeat(1_025)] }, 'an audience is too long'],
  ['an audience to validate for that is too long', 'ValidateJWTSVID', { audience: 'a'.repeat(2_049), svid: 'x' }, 'an audience is too long'],
  ['a token that is too long', 'ValidateJWTSVID', { audience: 'x', svid: 'a'.repeat(65_537) }, 'svid is too long'],
  ['an empty audience among others', 'FetchJWTSVID', { audience: ['x', ''] }, 'audience must be specified'],
  ['an ID of another trust domain', 'FetchJWTSVID', { audience: ['x'], spiffe_id: 'spiffe://partner.test/a' }, 'no identity issued'],
  ['an ID with a slash at its end', 'FetchJWTSVID', { audience: ['x'], spiffe_id: `${OWN_ID}/` }, 'spiffe_id is not a SPIFFE ID'],
] as const) {
  test(`WA-17, WA-43: ${what} ends with "${details}"`, async (t) => {
    const { client } = await serve(t);
    await t.throwsAsync(client.unary(`${API}${method}`, request), { message: details });
  });
}

test('the longest audience and 32 of them stand in the token, in their order', async (t) => {
  const { client } = await serve(t);
  const audience = Array.from({ length: 32 }, (_, index) => `${String(32 - index).padStart(2, '0')}${'a'.repeat(2_046)}`);
  const { svids } = await client.unary<Svids>(`${API}FetchJWTSVID`, { audience });
  const { aud } = JSON.parse(Buffer.from(svids[0]!.svid.split('.')[1]!, 'base64url').toString()) as { aud: string[] };
  t.deepEqual(aud, audience);
});

test('health lists what it knows, and watching an unknown service says so and goes on', async (t) => {
  const { client } = await serve(t);
  t.deepEqual(await client.unary(`${HEALTH}List`, {}, []), { statuses: { '': { status: 'SERVING' }, SpiffeWorkloadAPI: { status: 'SERVING' } } });
  const watch = client.stream(`${HEALTH}Watch`, { service: 'other' }, []);
  t.deepEqual(await watch.next(), { status: 'SERVICE_UNKNOWN' });
  t.is((await client.unary<{ status: string }>(`${HEALTH}Check`, { service: '' }, [])).status, 'SERVING');
  t.is(watch.waiting, 0);
});

test('a stream that its reader cancels is forgotten, and the connection serves on', async (t) => {
  const { agent, client } = await serve(t);
  const streams = ['FetchX509SVID', 'FetchX509Bundles', 'FetchJWTBundles'].map((method) => client.stream(`${API}${method}`));
  for (const stream of streams) await stream.next();
  t.is(agent.agent.taken.calls, 3);
  for (const stream of streams) stream.cancel();
  await until(() => agent.agent.taken.calls === 0, 'the calls are over');
  t.is((await client.stream<Svids>(`${API}FetchX509SVID`).next()).svids.length, 1);
  t.is(agent.agent.taken.connections, 1);
});
