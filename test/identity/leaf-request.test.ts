import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import test from 'ava';
import { newEncodedKeyPair } from '../../src/authority/keys.ts';
import { createLeafRequest } from '../../src/identity/leaf-request.ts';
import { X509Identities } from '../../src/identity/x509-identities.ts';
import { KEY_TYPES } from '../../src/spiffe/key-type.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import type { X509Request, X509Signer } from '../../src/spiffe/signing.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { evenRandom, newEvents, ScriptedSigner, settle, testEntry } from '../support/signers.ts';

const NAMES = { id: parseSpiffeId('spiffe://example.org/a'), dnsNames: ['web', 'db.example.org'] };

for (const type of KEY_TYPES) {
  test(`a request shows that its ${type} key is held, and asks for the names and no more`, async (t) => {
    const keys = await newEncodedKeyPair(type);
    const request = new x509.Pkcs10CertificateRequest(await createLeafRequest(keys, NAMES));
    t.true(await request.verify());
    t.deepEqual(Buffer.from(request.publicKey.rawData), keys.publicKey);
    const [extension, ...more] = request.extensions;
    t.deepEqual(more, []);
    const names = extension === undefined ? [] : new x509.SubjectAlternativeNameExtension(extension.rawData).names.items;
    t.deepEqual(names.map(({ value }) => value), [NAMES.id, ...NAMES.dnsNames]);
  });
}

test('a signer gets a request for the key of the SVID, and hears until when the one before is held', async (t) => {
  const clock = new FakeClock();
  const scripted = new ScriptedSigner(clock);
  const requests: X509Request[] = [];
  const signer: X509Signer = {
    horizon: () => Infinity,
    sign: (request, signal) => {
      requests.push(request);
      return scripted.sign(request, signal);
    },
  };
  const identities = new X509Identities({ keyType: 'ec-p256', ttlMs: 1_000_000, capacity: 1 }, { signer, newKeyPair: newEncodedKeyPair, clock, random: evenRandom, events: newEvents() });
  t.teardown(() => identities.close());
  const made = Promise.withResolvers<void>();
  const lease = identities.acquire(testEntry('a'), () => made.resolve());
  await made.promise;
  const end = lease.current()?.notAfter;
  const again = Promise.withResolvers<void>();
  identities.acquire(testEntry('a'), () => again.resolve());
  clock.advance(500_000);
  await again.promise;
  t.deepEqual(requests.map(({ heldUntil }) => heldUntil), [undefined, end]);
  const csr = new x509.Pkcs10CertificateRequest(await requests[0]!.csr());
  t.true(Buffer.from(csr.publicKey.rawData).equals(requests[0]!.publicKey));
  t.false('privateKey' in requests[0]!);
});

test('what failed is tried at once when the signer is back, and what did not fail is left alone', async (t) => {
  const clock = new FakeClock();
  const signer = new ScriptedSigner(clock);
  const pair = await newEncodedKeyPair('ec-p256');
  const identities = new X509Identities({ keyType: 'ec-p256', ttlMs: 1_000_000, capacity: 10 }, { signer, newKeyPair: () => Promise.resolve(pair), clock, random: evenRandom, events: newEvents() });
  t.teardown(() => identities.close());
  const good = identities.acquire(testEntry('good'), () => undefined);
  await settle();
  signer.isAway = true;
  const bad = identities.acquire(testEntry('bad'), () => undefined);
  for (let failure = 0; failure < 8; failure += 1) {
    await settle();
    clock.advance(10_000);
  }
  await settle();
  signer.isAway = false;
  identities.retryFailed();
  clock.advance(0);
  await settle();
  t.truthy(bad.current());
  t.is(good.current()?.serial, '1');
  t.is(signer.count, 2);
});
