import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { newKeyPair } from '../../src/authority/keys.ts';
import type { NameConstraint } from '../../src/authority/name-constraints.ts';
import { NodeAuthority } from '../../src/authority/node-authority.ts';
import { SignetError } from '../../src/errors.ts';
import type { SignedX509 } from '../../src/spiffe/signing.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import { VaultClient } from '../../src/upstream/vault/client.ts';
import { VaultIntermediate } from '../../src/upstream/vault/intermediate.ts';
import type { VaultLimits } from '../../src/upstream/vault/vault-options.ts';
import { certificatePem, type TestCaOptions } from '../support/authorities.ts';
import { caNow, FakeCa, leaf, nodeCa, type Asked, type Signed } from '../support/fake-ca.ts';
import { answers, cutBefore, cutWithin, delayed, FaultProxy, originAt, rewritten, silent, truncated, type Origin } from '../support/fault-proxy.ts';
import { leafOf, openssl } from '../support/vault-intermediates.ts';
import { vaultMissing } from '../support/vault-server.ts';
import { directory, judgeRoot } from '../support/vault-upstream.ts';
import { agentToken, agentTools, never, perSvid, prepareVault, trustDomain, until, x509Request, type AgentTools, type PreparedVault } from './vault-tools.ts';

const missing = vaultMissing({ own: true });
const title = (text: string): string => (missing === undefined ? text : `${text} (${missing})`);
const testIf = missing === undefined ? test : test.skip;
const HOUR = 3_600_000;
const POLL_MS = 3_000;
const INTERMEDIATE = 'signet-intermediate';

let vault: PreparedVault;
test.before(async () => {
  if (missing !== undefined) return;
  vault = await prepareVault();
  await vault.server.setup({ TRUST_DOMAIN: trustDomain, POLICY: INTERMEDIATE });
});
test.after.always(async () => {
  await vault?.close();
});

/** A proxy, whoever is behind it, and an agent's connection to it. */
async function behindProxy(t: ExecutionContext, origin: Origin, token: string, limits: Partial<VaultLimits> = {}) {
  const proxy = await FaultProxy.start(t, origin);
  const tools = agentTools();
  const refusals: string[] = [];
  tools.events.on('authorityFailed', ({ error }) => void refusals.push(error));
  const tokenFile = join(directory(t), 'token');
  writeFileSync(tokenFile, token, { mode: 0o600 });
  const { address, caFile } = proxy;
  const client = new VaultClient({ address, caFile, auth: { method: 'token', tokenFile }, limits }, tools);
  t.teardown(() => client.close());
  return { proxy, tools, client, refusals };
}

type Place = Awaited<ReturnType<typeof behindProxy>>;

/** Whether somebody was told: by an event of the connection, the role or the authority. */
function isNamed({ tools, refusals }: Place, words: RegExp): boolean {
  return [...tools.failures.map(({ error }) => error), ...refusals].some((text) => words.test(text));
}

/** What a workload would get verifies, by code that is not ours. */
function isServable(t: ExecutionContext, chain: readonly Buffer[], roots: readonly Buffer[]): void {
  t.regex(openssl(t, chain, roots), /: OK/);
}

/** A node CA that was got in good times, and an authority that wants another one since its restart. */
async function renewing(t: ExecutionContext, place: Place) {
  const { tools, client } = place;
  const upstream = new VaultIntermediate({ mount: 'pki', issuer: 'default', pollMs: POLL_MS }, { ...tools, client, judgeRoot });
  t.teardown(() => upstream.close());
  const privateDir = directory(t);
  const open = async (nameConstraint: NameConstraint): Promise<NodeAuthority> => {
    const node = await NodeAuthority.open({ trustDomain, privateDir, ttlMs: HOUR, nameConstraint }, { ...tools, upstream });
    t.teardown(() => node.close());
    return node;
  };
  const first = await open('none');
  const before = { ca: first.issuer().certificate, roots: first.current().x509Authorities };
  await first.close();
  return { open, upstream, before };
}

/** The intermediate tier in good times, then `spoil`, then good times again. */
async function intermediateRides(t: ExecutionContext, place: Place, words: RegExp, spoil: () => unknown): Promise<void> {
  const { proxy, refusals } = place;
  const { open, before } = await renewing(t, place);
  await spoil();
  const node = await open('uri');
  const changes: unknown[] = [];
  const stops = [node.onChange((bundle) => changes.push(bundle)), node.onIssuerChange((change) => changes.push(change))];
  await until(`${words} is told, and it is asked again`, () => isNamed(place, words) && refusals.length >= 2);
  t.regex(node.status().failing ?? '', words);
  t.deepEqual(changes, []);
  t.deepEqual(node.issuer().certificate, before.ca, 'the last good one signs');
  t.deepEqual(node.current().x509Authorities, before.roots);
  isServable(t, [await leafOf(node), ...node.intermediates()], before.roots);
  for (const stop of stops) stop();
  proxy.mend();
  await until('another one signs', () => !node.issuer().certificate.equals(before.ca));
  await until('nothing fails', () => node.status().failing === undefined);
  isServable(t, [await leafOf(node), ...node.intermediates()], node.current().x509Authorities);
}

/** The per-svid tier: what is asked for in bad times is signed in good ones. */
async function perSvidRides(t: ExecutionContext, place: Place, words: RegExp, spoil: () => unknown): Promise<void> {
  const { proxy, client, tools } = place;
  const { signer, bundle } = perSvid(t, client, tools as AgentTools, { pollMs: POLL_MS });
  const request = await x509Request('a');
  isServable(t, (await signer.sign(request, never)).chain, bundle.roots());
  const roots = bundle.roots();
  await spoil();
  const [next, met] = [await x509Request('a'), proxy.faulty];
  let served: SignedX509 | undefined;
  const signing = signer.sign(next, never).then((signed) => (served = signed));
  // A test that fails before does not wait for it.
  signing.catch(() => undefined);
  await until(`${words} is told, and it is asked again`, () => isNamed(place, words) && proxy.faulty >= met + 2 && words.test(signer.problem() ?? ''));
  t.is(served, undefined);
  t.deepEqual(bundle.roots(), roots);
  proxy.mend();
  const { chain } = await signing;
  t.true(new X509Certificate(chain[0] ?? Buffer.of()).publicKey.equals(next.publicKey));
  isServable(t, chain, bundle.roots());
  await until('nothing fails', () => signer.problem() === undefined && client.problem() === undefined);
}

/** The certificate in an answer, changed. */
function withCertificate(change: (der: Buffer) => Buffer): (body: string) => string {
  return (text) => {
    const body = JSON.parse(text) as { data: { certificate: string } };
    const der = new X509Certificate(body.data.certificate).raw;
    return JSON.stringify({ ...body, data: { ...body.data, certificate: certificatePem(change(der)) } });
  };
}

const flipped = (at: number) => withCertificate((der) => (der[der.length - at]! ^= 1, der));
const SIGN = /\/sign/;
const SLOW = { answerMs: 2_000 };

interface Case {
  readonly what: string;
  readonly spoil: (proxy: FaultProxy) => unknown;
  readonly words: RegExp;
  readonly limits?: Partial<VaultLimits>;
}

const FAULTS: readonly Case[] = [
  { what: 'answers that come too late', spoil: (proxy) => proxy.break(delayed(4_000)), words: /no complete answer after 2000 ms/, limits: SLOW },
  { what: 'no answers', spoil: (proxy) => proxy.break(silent), words: /no complete answer after 2000 ms/, limits: SLOW },
  { what: 'connections cut before TLS', spoil: (proxy) => proxy.deafen(), words: /cannot be reached: ECONNRESET/ },
  { what: 'connections cut before the answer', spoil: (proxy) => proxy.break(cutBefore), words: /cannot be reached: ECONNRESET/ },
  { what: 'connections cut within the answer', spoil: (proxy) => proxy.break(cutWithin), words: /cannot be reached: .*(aborted|terminated)/ },
  { what: '429', spoil: (proxy) => proxy.break(answers(429, '{"errors":["rate limit quota exceeded"]}', { 'retry-after': '1' })), words: /429: rate limit quota exceeded/ },
  { what: '500', spoil: (proxy) => proxy.break(answers(500, '{"errors":["internal error"]}')), words: /500: internal error/ },
  { what: '503 of a load balancer', spoil: (proxy) => proxy.break(answers(503, '<html>no healthy upstream</html>')), words: /503: <html>no healthy upstream/ },
  { what: 'garbage', spoil: (proxy) => proxy.break(answers(200, '\u0000\u0001garbage')), words: /the answer is not a JSON object/ },
  { what: 'JSON cut in half', spoil: (proxy) => proxy.break(truncated), words: /the answer is not a JSON object/ },
  { what: 'JSON without a certificate', spoil: (proxy) => proxy.break(answers(200, '{"data":{}}'), SIGN), words: /no certificate/ },
  { what: 'a bit of the signature changed', spoil: (proxy) => proxy.break(rewritten(flipped(1)), SIGN), words: /no root that is given verifies it|SP-02/ },
  { what: 'a certificate cut in half', spoil: (proxy) => proxy.break(rewritten(withCertificate((der) => der.subarray(0, 200))), SIGN), words: /cannot be read/ },
  { what: 'a proxy with a certificate of another CA', spoil: (proxy) => proxy.disguise(), words: /TLS fails: .*not verified by/ },
];

for (const { what, spoil, words, limits = {} } of FAULTS) {
  testIf(title(`intermediate: ${what}: the last good node CA goes on, the fault is named, and it is over when the proxy is well`), async (t) => {
    const place = await behindProxy(t, originAt(vault.server.address), await agentToken(vault.server, INTERMEDIATE), limits);
    await intermediateRides(t, place, words, () => spoil(place.proxy));
  });
  testIf(title(`per-svid: ${what}: nothing is served, the fault is named, and who waits is served when the proxy is well`), async (t) => {
    const place = await behindProxy(t, originAt(vault.server.address), await agentToken(vault.server), limits);
    await perSvidRides(t, place, words, () => spoil(place.proxy));
  });
}
