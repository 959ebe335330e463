import test, { type ExecutionContext } from 'ava';
import { createRoot, issuerFrom, type Issuer } from '../../src/authority/certificate.ts';
import { judgeIssuedLeaf } from '../../src/authority/issued-leaf.ts';
import { newKeyPair } from '../../src/authority/keys.ts';
import { EventBus, type Events } from '../../src/events.ts';
import type { JsonObject } from '../../src/kubernetes/json.ts';
import type { Log } from '../../src/log.ts';
import { systemRandom } from '../../src/random.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import type { X509Request } from '../../src/spiffe/signing.ts';
import type { VaultAnswer } from '../../src/upstream/vault/client.ts';
import { VaultX509Signer } from '../../src/upstream/vault/per-svid.ts';
import { VaultError } from '../../src/upstream/vault/vault-error.ts';
import { certificatePem } from '../support/authorities.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { createLeaf } from '../support/library-certificates.ts';
import { settle } from '../support/signers.ts';
import { never, trustDomain, x509Request } from './vault-tools.ts';

const HOUR = 3_600_000;
const NOW = Date.UTC(2030, 0, 1);

async function root(): Promise<Issuer> {
  const keys = await newKeyPair('ec-p256');
  return issuerFrom(await createRoot(keys, { id: parseSpiffeId('spiffe://example.org'), notBefore: NOW - HOUR, notAfter: NOW + 1_000 * HOUR }, systemRandom), keys);
}

const [believed, stranger] = [await root(), await root()];

async function leafFor({ id, publicKey, dnsNames }: X509Request, issuer = believed): Promise<string> {
  const { der } = await createLeaf(issuer, { id, publicKey, dnsNames, notBefore: NOW - 60_000, notAfter: NOW + HOUR }, systemRandom);
  return certificatePem(der);
}

/** A signer above which somebody answers whatever `answer` says. Its clock stands still. */
function under(t: ExecutionContext, answer: (count: number) => Promise<JsonObject>) {
  const clock = new FakeClock(NOW);
  const events = new EventBus();
  const failures: Events['upstreamFailed'][] = [];
  events.on('upstreamFailed', (fact) => void failures.push(fact));
  const log: Log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  let count = 0;
  const bodies: JsonObject[] = [];
  const client = {
    onReturn: () => () => undefined,
    request: async (_: string, path: string, request: { body?: JsonObject } = {}): Promise<VaultAnswer> => {
      count += 1;
      bodies.push({ path, ...request.body });
      return { data: await answer(count), auth: {}, warnings: [] };
    },
  };
  const trust = { roots: () => [believed.certificate], issuer: () => Promise.resolve({ ref: 'default', notAfter: Infinity }), refresh: () => Promise.resolve() };
  const options = { trustDomain, mount: 'team/pki', role: 'signet', guard: { waitMs: 10_000, failures: 1, attemptMs: 5_000 } };
  const signer = new VaultX509Signer(options, { client, trust, judgeLeaf: judgeIssuedLeaf, clock, random: systemRandom, events, log });
  t.teardown(() => signer.close());
  /** Moves time until the request has ended. */
  const ended = async (request: X509Request): Promise<string> => {
    let outcome: string | undefined;
    void signer.sign(request, never).then(
      () => (outcome = 'signed'),
      (error: Error) => (outcome = error.message),
    );
    for (let step = 0; outcome === undefined && step < 200; step += 1) {
      await settle();
      clock.advance(250);
    }
    return outcome ?? 'nothing';
  };
  return { clock, signer, failures, ended, asked: () => count, bodies };
}

test('what is sent: the request, a life as text, by the issuer and the role, and no more', async (t) => {
  const request = await x509Request('a');
  const { signer, bodies } = under(t, async () => ({ certificate: await leafFor(request) }));
  await signer.sign(request, never);
  const [{ csr, ...rest } = { csr: '' }] = bodies;
  t.deepEqual(rest, { path: 'team/pki/issuer/default/sign/signet', ttl: '3600s', format: 'pem' });
  t.regex(String(csr), /^-----BEGIN CERTIFICATE REQUEST-----\n/);
});

const WRONG: readonly (readonly [what: string, answer: (request: X509Request) => Promise<JsonObject>, words: RegExp])[] = [
  ['nothing', () => Promise.resolve({}), /no certificate/],
  ['no PEM', () => Promise.resolve({ certificate: 'garbage' }), /no certificate/],
  ['PEM around garbage', () => Promise.resolve({ certificate: '-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n' }), /cannot be read/],
  ['a certificate for another key (WA-29)', async () => ({ certificate: await leafFor(await x509Request('a')) }), /WA-29/],
  ['the certificate of another identity (XS-01)', async (request) => ({ certificate: await leafFor({ ...request, id: parseSpiffeId('spiffe://example.org/b') }) }), /XS-01/],
  ['the CA itself', () => Promise.resolve({ certificate: certificatePem(believed.certificate) }), /XS-15/],
  ['a leaf of a CA that nobody believes', async (request) => ({ certificate: await leafFor(request, stranger), ca_chain: [certificatePem(stranger.certificate)] }), /not among those that are believed/],
];

for (const [what, answer, words] of WRONG) {
  test(`${what} in place of the SVID is never served, and is named`, async (t) => {
    const request = await x509Request('a');
    const { signer, ended } = under(t, () => answer(request));
    t.regex(await ended(request), words);
    t.regex(signer.problem() ?? '', words);
  });
}

test('delays, refusals and errors are waited out, and a Retry-After is held to', async (t) => {
  const request = await x509Request('a');
  const times: number[] = [];
  const never = new Promise<JsonObject>(() => undefined);
  const { clock, ended } = under(t, async (count) => {
    times.push(clock.now());
    if (count === 1) return never;
    if (count === 2) throw new VaultError('rate_limited', '429', { status: 429, retryAfterMs: 2_000 });
    if (count === 3) throw new VaultError('unavailable', '503', { status: 503 });
    return { certificate: await leafFor(request) };
  });
  t.is(await ended(request), 'signed');
  t.is(times.length, 4);
  t.true((times[1] ?? 0) - (times[0] ?? 0) >= 5_000, 'an attempt without an answer ends');
  t.true((times[2] ?? 0) - (times[1] ?? 0) >= 2_000, 'Retry-After');
});

test('while the upstream fails it is asked at most once a second, however many wait', async (t) => {
  const { signer, clock, asked } = under(t, () => Promise.reject(new VaultError('sealed', 'sealed', { status: 503 })));
  const request = await x509Request('a');
  for (let count = 0; count < 100; count += 1) void signer.sign(request, never).catch(() => undefined);
  await settle();
  const first = asked();
  t.true(first <= 8, `${first}`);
  for (let step = 0; step < 36; step += 1) {
    clock.advance(250);
    await settle();
  }
  t.true(asked() - first <= 12, `${asked() - first} in 9 seconds`);
});
