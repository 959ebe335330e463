import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { NameConstraint } from '../../src/authority/name-constraints.ts';
import { NodeAuthority } from '../../src/authority/node-authority.ts';
import type { SignedX509 } from '../../src/spiffe/signing.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import { VaultClient } from '../../src/upstream/vault/client.ts';
import { VaultIntermediate } from '../../src/upstream/vault/intermediate.ts';
import type { VaultLimits } from '../../src/upstream/vault/vault-options.ts';
import { certificatePem, type TestCaOptions } from '../support/authorities.ts';
import { caNow, FakeCa, leaf, nodeCa, type Asked, type Signed } from '../support/fake-ca.ts';
import { answers, cutBefore, cutWithin, delayed, FaultProxy, originAt, rewritten, silent, truncated, type Origin } from '../support/fault-proxy.ts';
import { slots } from '../interop/slots.ts';
import { leafOf, openssl } from '../support/vault-intermediates.ts';
import { vaultMissing } from '../support/vault-server.ts';
import { directory, judgeRoot } from '../support/vault-upstream.ts';
import { agentToken, agentTools, never, perSvid, prepareVault, trustDomain, until, x509Request, type PreparedVault } from './vault-tools.ts';

const missing = vaultMissing({ own: true });
/** Scenes at once: with all of them, the time limits of one would be met by the work of others. */
const inTurn = slots(8);
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
  // OpenSSL wants some certificate between leaf and root: the leaf itself is no way up.
  t.regex(openssl(t, chain.length === 1 ? [...chain, ...chain] : chain, roots), /: OK/);
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
  const { signer, bundle } = perSvid(t, client, tools, { pollMs: POLL_MS });
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
  t.true(new X509Certificate(chain[0] ?? Buffer.of()).publicKey.export({ format: 'der', type: 'spki' }).equals(next.publicKey));
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
  testIf(title(`intermediate: ${what}: the last good node CA goes on, the fault is named, and it is over when the proxy is well`), (t) =>
    inTurn(async () => {
      const place = await behindProxy(t, originAt(vault.server.address), await agentToken(vault.server, INTERMEDIATE), limits);
      await intermediateRides(t, place, words, () => spoil(place.proxy));
    }),
  );
  testIf(title(`per-svid: ${what}: nothing is served, the fault is named, and who waits is served when the proxy is well`), (t) =>
    inTurn(async () => {
      const place = await behindProxy(t, originAt(vault.server.address), await agentToken(vault.server), limits);
      await perSvidRides(t, place, words, () => spoil(place.proxy));
    }),
  );
}

test('answers that come late, but come, are taken in both tiers', (t) =>
  inTurn(async () => {
    const { place } = await behindFake(t);
    place.proxy.break(delayed(300));
    const { before } = await renewing(t, place);
    t.is(new X509Certificate(before.ca).subjectAltName, 'URI:spiffe://example.org');
    const { signer, bundle } = perSvid(t, place.client, place.tools, { pollMs: POLL_MS });
    isServable(t, (await signer.sign(await x509Request('a'), never)).chain, bundle.roots());
    t.deepEqual(place.tools.failures, []);
  }),
);

/** What a CA answers wrongly, in each tier where it can; `sign` gets what was asked for. */
interface Wrong {
  readonly what: string;
  readonly words: RegExp;
  readonly sign: (fake: FakeCa, asked: Asked) => Promise<Signed>;
}

/** An agent under a fake CA that answers rightly at first, and again once the proxy is mended. */
async function behindFake(t: ExecutionContext) {
  const fake = await FakeCa.create();
  const place = await behindProxy(t, fake.origin, 's.token');
  const mend = place.proxy.mend.bind(place.proxy);
  place.proxy.mend = () => (mend(), (fake.instead = undefined));
  return { fake, place };
}

const keyOf = async (): Promise<Pick<Asked, 'publicKey'>> => ({ publicKey: (await caNow()).publicKey });
const PAST = { from: Date.now() - 2 * HOUR, to: Date.now() - HOUR };

/** Wrong in itself. */
const changed = (what: string, changes: TestCaOptions, words: RegExp): Wrong => ({ what, words, sign: (fake, asked) => nodeCa(fake, asked, changes) });

/** Signed by a CA under the root that is wrong. */
const below = (what: string, changes: TestCaOptions, words: RegExp): Wrong => ({
  what,
  words,
  sign: async (fake, asked) => {
    const ca = await caNow({ parent: fake.root, ...changes });
    return nodeCa(fake, asked, {}, [ca, fake.root]);
  },
});

const stranger = async (): Promise<readonly [FakeCa['ca'], FakeCa['root']]> => {
  const root = await caNow();
  return [await caNow({ parent: root }), root];
};

const WRONG_NODE_CAS: readonly Wrong[] = [
  { what: 'for another key', words: /it holds another public key/, sign: async (fake, asked) => nodeCa(fake, { ...asked, ...(await keyOf()) }) },
  changed('of another trust domain', { uris: ['spiffe://evil.org'] }, /its SPIFFE ID is spiffe:\/\/evil\.org/),
  changed('of two trust domains', { uris: ['spiffe://example.org', 'spiffe://evil.org'] }, /its SPIFFE ID is spiffe:\/\/evil\.org/),
  changed('without SPIFFE ID', { uris: [] }, /its URI SANs are \[\]/),
  changed('without keyCertSign', { uses: 2 }, /it lacks the key usage keyCertSign/),
  changed('that has expired', PAST, /it has expired/),
  changed('that is not valid yet', { from: Date.now() + HOUR, to: Date.now() + 2 * HOUR }, /it is not valid before/),
  changed('that lives longer than was asked for', { to: Date.now() + 20 * HOUR }, /later than .*, which was asked for/),
  changed('without the name constraint', { more: [] }, /it lacks the critical name constraint/),
  { what: 'that is no CA', words: /it lacks CA:TRUE/, sign: (fake, asked) => nodeCa(fake, asked, { ca: false }) },
  changed('with a longer path', { pathLength: 1 }, /its path length is 1 and not 0/),
  { what: 'of another issuer', words: /no root that is given verifies it/, sign: async (fake, asked) => nodeCa(fake, asked, {}, await stranger()) },
  { what: 'of another CA under the root', words: /not signed by the CA that the upstream has named/, sign: async (fake, asked) => nodeCa(fake, asked, {}, [await caNow({ parent: fake.root }), fake.root]) },
  { what: 'of the root itself', words: /not signed by the CA that the upstream has named/, sign: (fake, asked) => nodeCa(fake, asked, {}, [fake.root]) },
  { what: 'with a forged signature', words: /no root that is given verifies it/, sign: async (fake, asked) => nodeCa(fake, asked, { parent: { ...fake.ca, privateKey: (await caNow()).privateKey } }) },
  below('of a CA of another trust domain', { uris: ['spiffe://evil.org'] }, /above it stands .*its SPIFFE ID is spiffe:\/\/evil\.org/),
  below('of a CA without keyCertSign', { uses: 2 }, /above it stands .*it lacks the key usage keyCertSign|no root that is given verifies it/),
  below('of a CA that has expired', PAST, /above it stands .*it has expired/),
  below('of what is no CA', { ca: false }, /above it stands .*it lacks CA:TRUE|no root that is given verifies it/),
  below('of a CA whose path ends there', { pathLength: 0 }, /above it stands .*its path length is 0/),
  { what: 'that is the CA above', words: /it holds another public key/, sign: (fake) => Promise.resolve({ certificate: fake.ca.certificate, above: [fake.root.certificate] }) },
];

for (const { what, words, sign } of WRONG_NODE_CAS) {
  test(`intermediate: a node CA ${what} never signs, is named, and is over with the next good answer`, (t) =>
    inTurn(async () => {
      const { fake, place } = await behindFake(t);
      await intermediateRides(t, place, words, () => (fake.instead = (asked) => sign(fake, asked)));
    }),
  );
  test(`intermediate: a node CA ${what} is no beginning either`, (t) =>
    inTurn(async () => {
      const { fake, place: { client, tools } } = await behindFake(t);
      fake.instead = (asked) => sign(fake, asked);
      const upstream = new VaultIntermediate({ mount: 'pki', issuer: 'default', pollMs: POLL_MS }, { ...tools, client, judgeRoot });
      t.teardown(() => upstream.close());
      const options = { trustDomain, privateDir: directory(t), ttlMs: HOUR, nameConstraint: 'uri' } as const;
      await t.throwsAsync(NodeAuthority.open(options, { ...tools, upstream }), { code: 'profile_violation', message: words });
    }),
  );
}

const changedLeaf = (what: string, changes: Parameters<typeof leaf>[2], words: RegExp): Wrong => ({ what, words, sign: (fake, asked) => leaf(fake, asked, changes) });

const leafBelow = (what: string, changes: TestCaOptions, words: RegExp): Wrong => ({
  what,
  words,
  sign: async (fake, asked) => leaf(fake, asked, {}, [await caNow({ parent: fake.root, ...changes }), fake.root]),
});

const WRONG_LEAVES: readonly Wrong[] = [
  { what: 'for another key (WA-29)', words: /WA-29/, sign: async (fake, asked) => leaf(fake, asked, await keyOf()) },
  changedLeaf('of another trust domain (XS-01)', { id: parseSpiffeId('spiffe://evil.org/a') }, /XS-01.*evil\.org/),
  changedLeaf('of another workload (XS-01)', { id: parseSpiffeId('spiffe://example.org/b') }, /XS-01/),
  changedLeaf('with a DNS name that nobody asked for', { dnsNames: ['web.example.org'] }, /the DNS SANs are/),
  changedLeaf('that has expired', { notBefore: PAST.from, notAfter: PAST.to }, /it has ended at/),
  changedLeaf('that is not valid yet', { notBefore: Date.now() + HOUR, notAfter: Date.now() + 1.5 * HOUR }, /it is not valid before/),
  changedLeaf('that lives longer than was asked for', { notAfter: Date.now() + 20 * HOUR }, /longer than was asked for/),
  { what: 'that is a CA (XS-15)', words: /XS-15/, sign: (fake, asked) => nodeCa(fake, asked, { uris: ['spiffe://example.org/a'] }) },
  { what: 'of another issuer', words: /no root that is given verifies it|not among those that are believed/, sign: async (fake, asked) => leaf(fake, asked, {}, await stranger()) },
  { what: 'with a forged signature (SP-02)', words: /SP-02/, sign: async (fake, asked) => leaf(fake, asked, {}, [fake.ca, fake.root], { ...fake.ca, privateKey: (await caNow()).privateKey }) },
  leafBelow('of a CA of another trust domain', { uris: ['spiffe://evil.org'] }, /its SPIFFE ID is spiffe:\/\/evil\.org/),
  leafBelow('of a CA without keyCertSign', { uses: 2 }, /it lacks the key usage keyCertSign/),
  leafBelow('of a CA that has expired', PAST, /it has expired/),
  leafBelow('of what is no CA', { ca: false }, /it lacks CA:TRUE/),
  {
    what: 'below more CAs than one of them allows',
    words: /its path length is 0/,
    sign: async (fake, asked) => {
      const short = await caNow({ parent: fake.root, pathLength: 0 });
      return leaf(fake, asked, {}, [await caNow({ parent: short }), short, fake.root]);
    },
  },
];

for (const { what, words, sign } of WRONG_LEAVES) {
  test(`per-svid: a leaf ${what} is never served, is named, and is over with the next good answer`, (t) =>
    inTurn(async () => {
      const { fake, place } = await behindFake(t);
      const spoil = (): void => {
        fake.instead = (asked) => sign(fake, asked);
        // Changes nothing, but counts the attempts.
        place.proxy.break(rewritten((body) => body), SIGN);
      };
      await perSvidRides(t, place, words, spoil);
    }),
  );
}

const WRONG_ROOTS: readonly (readonly [what: string, changes: TestCaOptions, isTold: boolean])[] = [
  ['of another trust domain', { uris: ['spiffe://evil.org'] }, true],
  ['that is no CA', { ca: false }, true],
  // For OpenSSL it is none, since it may not even have signed itself.
  ['without keyCertSign', { uses: 2 }, false],
  ['that has expired', PAST, false],
];

for (const [what, changes, isTold] of WRONG_ROOTS) {
  test(`a root ${what} among the issuers of the mount is not in the bundle${isTold ? ', and is named' : ''}`, (t) =>
    inTurn(async () => {
      const { fake, place } = await behindFake(t);
      fake.more = [await caNow(changes)];
      const { before } = await renewing(t, place);
      t.deepEqual(before.roots, [fake.root.certificate]);
      t.is(place.tools.warnings.some((text) => text.startsWith('a root in pki of Vault is left out: ')), isTold, place.tools.warnings.join());
    }),
  );
}
