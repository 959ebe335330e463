import { X509Certificate, type KeyObject } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { spkiOf } from '../../src/authority/certificate.ts';
import { newKeyPair } from '../../src/authority/keys.ts';
import { LeafMint } from '../../src/authority/leaf-mint.ts';
import { SignetError } from '../../src/errors.ts';
import { systemRandom } from '../../src/random.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import { AgentKeeper } from '../../src/upstream/spire/agent-keeper.ts';
import type { Store } from '../../src/upstream/spire/agent-state.ts';
import type { AttestAgentRequest, WireSvid } from '../../src/upstream/spire/messages.ts';
import { SpireError } from '../../src/upstream/spire/spire-error.ts';
import { testIssuer } from '../support/authorities.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { listen, scratch, trustDomain } from './spire-tools.ts';

const { signal: never } = new AbortController();
const MINUTE = 60_000;
const OTHER_KEY = String((await newKeyPair('ec-p256')).privateKey.export({ format: 'pem', type: 'pkcs8' }));
const AGENT = 'spiffe://example.org/spire/agent/join_token/one';

/** A server that signs SVIDs of ten minutes for agents, or refuses, as a test says. */
async function scene(t: ExecutionContext, { token = 'token-1' } = {}) {
  const clock = new FakeClock(Math.floor(Date.now() / 1000) * 1000);
  const ca = await testIssuer(clock.now() - MINUTE, clock.now() + 60 * MINUTE);
  const directory = scratch(t);
  const tokenFile = join(directory, 'token');
  writeFileSync(tokenFile, token);
  let text: string | undefined;
  const store: Store & { refuse?: SignetError } = {
    path: '/state/spire-agent.json',
    read: () => text,
    write: async (next) => {
      if (store.refuse) throw store.refuse;
      text = next;
    },
  };
  const told = listen();
  const asked: string[] = [];
  const server = { refusal: undefined as SpireError | undefined, svid: undefined as WireSvid | null | undefined, reattestable: false, id: AGENT };
  const keys: KeyObject[] = [];
  const sign = async (): Promise<WireSvid | null> => {
    if (server.refusal !== undefined) throw server.refusal;
    if (server.svid !== undefined) return server.svid;
    const key = keys.at(-1);
    if (key === undefined) throw new Error('no key was made');
    const { der } = await new LeafMint(systemRandom).mint(ca, { id: parseSpiffeId(server.id), publicKey: spkiOf(key), dnsNames: [], notBefore: clock.now(), notAfter: clock.now() + 10 * MINUTE });
    return { certChain: [der], id: null };
  };
  const connection = {
    call: async (method: string): Promise<never> => {
      asked.push(method);
      return { svid: await sign() } as never;
    },
    attest: async (first: AttestAgentRequest) => {
      asked.push(`AttestAgent ${first.params?.data.payload.toString() ?? ''}`);
      return { svid: await sign(), reattestable: server.reattestable };
    },
  };
  const newKey = async () => {
    const pair = await newKeyPair('ec-p256');
    keys.push(pair.publicKey);
    return { privateKey: pair.privateKey, csr: Buffer.from('csr') };
  };
  const open = (): AgentKeeper => new AgentKeeper({ trustDomain, attestation: { method: 'join_token', tokenFile } }, { ...told.tools, clock, random: { bytes: systemRandom.bytes, fraction: () => 0.5 }, connection, newKey, store });
  return { clock, tokenFile, store, told, asked, server, open, state: () => text };
}

function fault(name: SpireError['fault'], message: string = name): SpireError {
  return new SpireError(name, message);
}

test('a node joins once, and a restart asks nothing', async (t) => {
  const { open, asked, state } = await scene(t);
  const keeper = open();
  const [one, other] = await Promise.all([keeper.get(never), keeper.get(never)]);
  t.is(one, other);
  t.is(one.id, AGENT);
  const again = await open().get(never);
  t.deepEqual(again.chain, one.chain);
  t.true(again.privateKey.equals(one.privateKey));
  t.deepEqual(asked, ['AttestAgent token-1']);
  t.true(state()?.includes('PRIVATE KEY'));
});

test('an SVID is renewed at half of its life, kept before it is used, and what fails meanwhile changes nothing', async (t) => {
  const { open, asked, clock, server, told, state } = await scene(t);
  const keeper = open();
  const first = await keeper.get(never);
  clock.advance(5 * MINUTE - 1);
  t.is(await keeper.get(never), first);
  clock.advance(1);
  server.refusal = fault('unreachable');
  t.is(await keeper.get(never), first);
  t.is(await keeper.get(never), first);
  t.deepEqual(asked.slice(1), ['RenewAgent']);
  t.regex(told.lines.at(-1) ?? '', /could not be renewed, and ends at .*: unreachable/);
  clock.advance(10_000);
  server.refusal = undefined;
  const kept = state();
  t.not(await keeper.get(never), first);
  t.not(state(), kept);
});

test('a renewed SVID that cannot be kept is not used before the last part of the life of the former one', async (t) => {
  const { open, clock, store } = await scene(t);
  const keeper = open();
  const first = await keeper.get(never);
  store.refuse = new SignetError('state_unwritable', 'the disk is full');
  clock.advance(6 * MINUTE);
  t.is(await keeper.get(never), first);
  clock.advance(3 * MINUTE);
  t.not(await keeper.get(never), first);
});

test('a token that was taken is used although it cannot be kept: it works once', async (t) => {
  const { open, store, told } = await scene(t);
  store.refuse = new SignetError('state_unwritable', 'the disk is full');
  t.is((await open().get(never)).id, AGENT);
  t.regex(told.lines.join('\n'), /cannot be kept, so that a restart has to join anew: the disk is full/);
});

test('a node that may prove itself again is attested, not renewed', async (t) => {
  const { open, asked, clock, server } = await scene(t);
  server.reattestable = true;
  const keeper = open();
  await keeper.get(never);
  clock.advance(5 * MINUTE);
  await keeper.get(never);
  t.deepEqual(asked, ['AttestAgent token-1', 'AttestAgent token-1']);
});

test('a refused token is asked for once, and another one at once', async (t) => {
  const { open, asked, server, tokenFile } = await scene(t);
  server.refusal = fault('refused', 'join token does not exist or has already been used');
  const keeper = open();
  for (let attempt = 0; attempt < 3; attempt += 1) await t.throwsAsync(keeper.get(never), { message: /cannot join by join_token \(join token does not exist or has already been used\)\. What to do: make a token with/ });
  t.is(asked.length, 1);
  server.refusal = undefined;
  writeFileSync(tokenFile, 'token-2\n');
  await keeper.get(never);
  t.deepEqual(asked, ['AttestAgent token-1', 'AttestAgent token-2']);
});

test('a limit of the server says nothing of the token', async (t) => {
  const { open, asked, server } = await scene(t);
  server.refusal = fault('rate_limited', 'too many');
  const keeper = open();
  await t.throwsAsync(keeper.get(never), { message: /too many\)\. It is tried again/ });
  server.refusal = undefined;
  await keeper.get(never);
  t.is(asked.length, 2);
});

test('an agent that the server has forgotten joins anew; where it cannot, it asks by what it has, since it may be remembered', async (t) => {
  const { open, server } = await scene(t);
  const keeper = open();
  const held = await keeper.get(never);
  server.refusal = fault('refused', 'already been used');
  keeper.lost(held, fault('evicted', 'the server does not know our agent'));
  t.is(keeper.current(), undefined);
  const error = await t.throwsAsync(keeper.get(never), { message: /^the server does not know our agent\. this node cannot join .*already been used/ });
  t.is((error as SpireError).fault, 'evicted');
  // A datastore that was restored meanwhile.
  t.is(await keeper.get(never), held);
});

test('a ban is told with the command that lifts it', async (t) => {
  const { open, server } = await scene(t);
  const keeper = open();
  keeper.lost(await keeper.get(never), fault('banned', 'our agent is banned'));
  server.refusal = fault('refused', 'already been used');
  await t.throwsAsync(keeper.get(never), { message: /our agent is banned.*lift the ban with "spire-server agent evict -spiffeID spiffe:\/\/example\.org\/spire\/agent\/join_token\/one", and make a token/ });
});

test('an SVID that has ended while the node was off is told as such', async (t) => {
  const { open, clock, server } = await scene(t);
  await open().get(never);
  clock.advance(11 * MINUTE);
  server.refusal = fault('refused', 'already been used');
  await t.throwsAsync(open().get(never), { message: /the SVID of our agent spiffe:\S+ has ended at .*already been used/ });
});

test('an SVID for another trust domain is refused', async (t) => {
  const { open, server, state } = await scene(t);
  server.id = 'spiffe://evil.org/spire/agent/x';
  await t.throwsAsync(open().get(never), { message: /for no agent of example\.org/ });
  t.is(state(), undefined);
});

test('an answer without SVID, or with one for another key, is refused', async (t) => {
  const { open, server, clock } = await scene(t);
  server.svid = null;
  await t.throwsAsync(open().get(never), { message: /answered to AttestAgent is refused: there is no certificate/ });
  const ca = await testIssuer(clock.now() - MINUTE, clock.now() + 60 * MINUTE);
  server.svid = { certChain: [ca.certificate], id: null };
  await t.throwsAsync(open().get(never), { message: /its certificate is for another key/ });
});

for (const [what, change, message] of [
  ['damaged', () => '{', /is damaged or foreign: .*What to do: move it away; this node then joins the SPIRE server anew/],
  ['of another trust domain', (text: string) => text.replace('"trustDomain": "example.org"', '"trustDomain": "other.org"'), /it belongs to the trust domain "other\.org"/],
  ['with a key of another', (text: string) => text.replace(/"privateKey": "[^"]+"/, `"privateKey": ${JSON.stringify(OTHER_KEY)}`), /for another key/],
] as const) {
  test(`a state that is ${what} is refused at the start`, async (t) => {
    const { open, store, state } = await scene(t);
    await open().get(never);
    await store.write(change(state() ?? ''));
    t.throws(open, { code: 'state_refused', message });
  });
}

test('whoever gives up waiting does not end it for the others', async (t) => {
  const { open } = await scene(t);
  const keeper = open();
  const giving = new AbortController();
  const [first, second] = [keeper.get(giving.signal), keeper.get(never)];
  giving.abort(new SignetError('stopped', 'enough'));
  await t.throwsAsync(first, { message: 'enough' });
  t.is(new X509Certificate((await second).chain[0] ?? Buffer.alloc(0)).subjectAltName, `URI:${AGENT}`);
});
