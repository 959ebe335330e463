import { X509Certificate } from 'node:crypto';
import test from 'ava';
import type { Issuer } from '../../src/authority/certificate.ts';
import { newEncodedKeyPair } from '../../src/authority/keys.ts';
import { NodeX509Signer, type IssuerSource } from '../../src/authority/x509-signer.ts';
import { SignetError } from '../../src/errors.ts';
import { systemRandom } from '../../src/random.ts';
import { parseSpiffeId, parseTrustDomain } from '../../src/spiffe/id.ts';
import type { X509Request } from '../../src/spiffe/signing.ts';
import { testIssuer } from '../support/authorities.ts';
import { FakeClock } from '../support/fake-clock.ts';

const HOUR = 3_600_000;
const MINUTE = 60_000;
const clock = new FakeClock();
const NOW = clock.now();
const keys = await newEncodedKeyPair('ec-p256');
const day = await testIssuer(NOW - 12 * HOUR, NOW + 12 * HOUR);
const { signal } = new AbortController();

function signer(issuer: Issuer | undefined, more: Partial<IssuerSource> = {}): NodeX509Signer {
  const source: IssuerSource = {
    ready: async () => undefined,
    issuer: () => {
      if (issuer === undefined) throw new SignetError('authority_unavailable', 'none');
      return issuer;
    },
    intermediates: () => [],
    ...more,
  };
  return new NodeX509Signer(source, parseTrustDomain('example.org'), clock, systemRandom);
}

function request(id: string, more: Partial<X509Request> = {}): X509Request {
  return { id: parseSpiffeId(id), publicKey: keys.publicKey, ttlMs: HOUR, dnsNames: [], csr: () => Promise.reject(new Error('nobody asks for it')), ...more };
}

test('a leaf begins a minute before it is made and ends after its TTL', async (t) => {
  const signed = await signer(day).sign(request('spiffe://example.org/a'), signal);
  t.deepEqual([signed.notBefore, signed.notAfter], [NOW - MINUTE, NOW + HOUR]);
  const leaf = new X509Certificate(signed.chain[0]!);
  t.deepEqual([leaf.validFromDate.getTime(), leaf.validToDate.getTime()], [signed.notBefore, signed.notAfter]);
  t.is(leaf.serialNumber.toLowerCase(), signed.serial);
});

test('XS-44: a leaf lies inside the validity of its issuer at both ends', async (t) => {
  const young = await testIssuer(NOW - 10_000, NOW + 30 * MINUTE);
  const signed = await signer(young).sign(request('spiffe://example.org/a'), signal);
  t.deepEqual([signed.notBefore, signed.notAfter], [NOW - 10_000, NOW + 30 * MINUTE]);
  t.is(signer(young).horizon(), NOW + 30 * MINUTE);
});

test('XS-44: serial numbers are positive, of at most 20 octets, and never twice', async (t) => {
  const serials = new Set<string>();
  for (let count = 0; count < 50; count += 1) serials.add((await signer(day).sign(request('spiffe://example.org/a'), signal)).serial);
  t.is(serials.size, 50);
  for (const serial of serials) t.regex(serial, /^[4-7][0-9a-f]{31}$/);
});

test('XS-03: DNS names stand beside the one URI', async (t) => {
  const signed = await signer(day).sign(request('spiffe://example.org/a', { dnsNames: ['db.example', 'db'] }), signal);
  t.is(new X509Certificate(signed.chain[0]!).subjectAltName, 'URI:spiffe://example.org/a, DNS:db.example, DNS:db');
});

test('WA-28: intermediates follow the leaf', async (t) => {
  const between = Buffer.from('between');
  const { chain } = await signer(day, { intermediates: () => [between] }).sign(request('spiffe://example.org/a'), signal);
  t.is(chain.length, 2);
  t.is(chain[1], between);
});

for (const [rule, id] of [['ID-27', 'spiffe://partner.test/a'], ['ID-27', 'spiffe://example.org.evil.test/a'], ['XS-04', 'spiffe://example.org']] as const) {
  test(`${rule}: ${id} is not signed`, async (t) => {
    await t.throwsAsync(signer(day).sign(request(id), signal), { code: 'profile_violation' });
  });
}

test('an issuer that is about to end, and none at all, sign nothing', async (t) => {
  const ending = await testIssuer(NOW - HOUR, NOW + 500);
  await t.throwsAsync(signer(ending).sign(request('spiffe://example.org/a'), signal), { code: 'authority_unavailable', message: /nothing can be signed/ });
  await t.throwsAsync(signer(undefined).sign(request('spiffe://example.org/a'), signal), { code: 'authority_unavailable' });
});

test('while an issuer is being made a signature waits for it', async (t) => {
  const made = Promise.withResolvers<void>();
  let issuer: Issuer | undefined;
  const waiting = signer(undefined, { ready: () => made.promise, issuer: () => issuer! }).sign(request('spiffe://example.org/a'), signal);
  issuer = day;
  made.resolve();
  t.true(new X509Certificate((await waiting).chain[0]!).verify(day.publicKey));
});

test('an aborted request is not signed', async (t) => {
  await t.throwsAsync(signer(day).sign(request('spiffe://example.org/a'), AbortSignal.abort(new Error('enough'))), { message: 'enough' });
});

test('a leaf comes with the chain of the CA that signed it, although another one signs by the time it is made', async (t) => {
  const next = await testIssuer(NOW - 12 * HOUR, NOW + 12 * HOUR);
  let current = day;
  const issuer = (): Issuer => {
    queueMicrotask(() => (current = next));
    return current;
  };
  const signed = await signer(day, { issuer, intermediates: () => [current.certificate] }).sign(request('spiffe://example.org/a'), signal);
  t.true(signed.chain[1]?.equals(day.certificate));
  t.is(current, next);
});
