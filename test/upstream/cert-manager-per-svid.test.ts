import 'reflect-metadata';
import { createPublicKey } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import test, { type ExecutionContext } from 'ava';
import { judgeIssuedLeaf } from '../../src/authority/issued-leaf.ts';
import { isSignetError, SignetError } from '../../src/errors.ts';
import type { SignedX509, X509Request } from '../../src/spiffe/signing.ts';
import { CertManagerError } from '../../src/upstream/cert-manager/cert-manager-error.ts';
import type { Issued, Wanted } from '../../src/upstream/cert-manager/certificate-request.ts';
import { CertManagerX509Signer } from '../../src/upstream/cert-manager/per-svid.ts';
import { certificatePem, testCa, type TestCa, type TestCaOptions } from '../support/authorities.ts';
import { believed, ISSUER, openRoom, trustDomain, type Room } from '../support/cert-manager-room.ts';
import { settle } from '../support/signers.ts';
import { never, x509Request } from './vault-tools.ts';

const HOUR = 3_600_000;
const { KeyUsageFlags } = x509;

/** A leaf as cert-manager's CA issuer makes it: from this moment on, without subject key identifier. */
async function leafOf({ clock }: Room, { id, publicKey }: X509Request, parent: TestCa, ttlMs: number, changes: TestCaOptions = {}): Promise<Buffer> {
  const usage = new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]);
  const keys = { publicKey: createPublicKey({ key: publicKey, format: 'der', type: 'spki' }), privateKey: parent.privateKey };
  const usual = { parent, keys, ca: false, uses: KeyUsageFlags.digitalSignature, uris: [id], isNameless: true, name: 'O=Signet', from: clock.now(), to: clock.now() + ttlMs, more: [usage] };
  return (await testCa({ ...usual, ...changes })).certificate;
}

interface Opened {
  readonly room: Room;
  readonly signer: CertManagerX509Signer;
  readonly wanted: Wanted[];
  sign(request: X509Request): Promise<SignedX509 | Error>;
}

/** A signer whose requests are answered by `answer`. */
function open(t: ExecutionContext, answer: (count: number, wanted: Wanted) => Promise<Issued>, usableFrom: (root: Buffer) => number = () => 0): Opened {
  const room = openRoom(t);
  const wanted: Wanted[] = [];
  const requests = {
    issue: async (one: Wanted): Promise<Issued> => {
      wanted.push(one);
      return answer(wanted.length, one);
    },
  };
  const roots = { roots: () => room.anchors.roots(), usableFrom };
  const known = (signal: AbortSignal): Promise<void> => room.anchors.known(signal);
  const options = { trustDomain, issuer: ISSUER, guard: { waitMs: 5_000, failures: 1 } };
  const signer = new CertManagerX509Signer(options, { ...room.tools, trouble: room.trouble, requests, roots, known, judgeLeaf: judgeIssuedLeaf });
  t.teardown(() => signer.close());
  const sign = async (request: X509Request): Promise<SignedX509 | Error> => {
    let outcome: SignedX509 | Error | undefined;
    void signer.sign(request, never).then(
      (signed) => (outcome = signed),
      (error: Error) => (outcome = error),
    );
    for (let step = 0; outcome === undefined && step < 400; step += 1) {
      await settle();
      if (step > 100) room.clock.advance(100);
    }
    return outcome ?? new Error('nothing came');
  };
  return { room, signer, wanted, sign };
}

const chained = (...ders: readonly Buffer[]): Issued => ({ certificate: certificatePem(...ders), ca: '' });

test('a leaf without subject key identifier is taken: RFC 5280 §4.2.1.2 asks it of CAs', async (t) => {
  const request = await x509Request('a');
  const opened = open(t, async (_, { ttlMs }) => chained(await leafOf(opened.room, request, believed, ttlMs)));
  const signed = (await opened.sign(request)) as SignedX509;
  t.is(signed.chain.length, 1);
  t.like(opened.wanted[0], { isCA: false, ttlMs: HOUR });
});

test('a leaf below an intermediate comes with it', async (t) => {
  const request = await x509Request('a');
  const parent = await testCa({ parent: believed });
  const opened = open(t, async (_, { ttlMs }) => chained(await leafOf(opened.room, request, parent, ttlMs), parent.certificate));
  t.deepEqual(((await opened.sign(request)) as SignedX509).chain.slice(1), [parent.certificate]);
});

test('a leaf that would outlive its issuer is asked for again, with less (XS-44)', async (t) => {
  const request = await x509Request('a');
  const now = Date.UTC(2030, 0, 1);
  const parent = await testCa({ parent: believed, to: now + HOUR / 2 });
  const opened = open(t, async (_, { ttlMs }) => chained(await leafOf(opened.room, request, parent, ttlMs), parent.certificate));
  const signed = (await opened.sign(request)) as SignedX509;
  t.deepEqual(opened.wanted.map(({ ttlMs }) => ttlMs), [HOUR, HOUR / 2 - 30_000]);
  t.true(signed.notAfter < now + HOUR / 2);
  await opened.sign(request);
  t.is(opened.wanted.length, 3, 'known from now on');
});

const WRONG: readonly (readonly [what: string, changes: (request: X509Request) => Promise<TestCaOptions>, words: RegExp])[] = [
  ['another identity (XS-01)', async () => ({ uris: ['spiffe://example.org/b'] }), /XS-01/],
  ['two identities (XS-01)', async ({ id }) => ({ uris: [id, 'spiffe://example.org/b'] }), /XS-01/],
  ['another key (WA-29)', async () => ({ keys: { publicKey: believed.publicKey, privateKey: believed.privateKey } }), /WA-29/],
  ['a CA (XS-15)', async () => ({ ca: true }), /XS-15/],
  ['no extended key usage (XS-27)', async () => ({ more: [] }), /XS-27/],
  ['the use of a CA (XS-24)', async () => ({ uses: KeyUsageFlags.digitalSignature | KeyUsageFlags.keyCertSign }), /XS-24/],
  ['a longer life than was asked for', async () => ({ to: Date.UTC(2030, 0, 1) + 5 * HOUR }), /longer than was asked for/],
  ['a life that has not begun', async () => ({ from: Date.UTC(2030, 0, 1) + HOUR / 2 }), /the clock of one of the two is wrong/],
];

for (const [what, changes, words] of WRONG) {
  test(`a leaf with ${what} is refused and told`, async (t) => {
    const request = await x509Request('a');
    const opened = open(t, async (_, { ttlMs }) => chained(await leafOf(opened.room, request, believed, ttlMs, await changes(request))));
    const error = await opened.sign(request);
    t.true(error instanceof CertManagerError);
    t.regex((error as Error).message, words);
    t.is(opened.room.failed.length, 1);
    t.is(opened.signer.problem(), opened.room.failed[0]);
  });
}

test('a leaf under a root that nobody believes is refused and told', async (t) => {
  const request = await x509Request('a');
  const stranger = await testCa({ name: 'CN=Stranger' });
  const opened = open(t, async (_, { ttlMs }) => ({ certificate: certificatePem(await leafOf(opened.room, request, stranger, ttlMs)), ca: certificatePem(stranger.certificate) }));
  t.like(await opened.sign(request), { fault: 'unknown_root' });
});

test('an identity outside the trust domain, or without a path, is never asked for', async (t) => {
  const { sign, wanted } = open(t, () => Promise.reject(new Error('asked')));
  for (const id of ['spiffe://other.org/a', 'spiffe://example.org']) t.true(isSignetError(await sign(await x509Request('', { id })), 'profile_violation'));
  t.is(wanted.length, 0);
});

test('a denied request is the affair of that one: others are asked for at once', async (t) => {
  const [a, b] = [await x509Request('a'), await x509Request('b')];
  const opened = open(t, async (count, { ttlMs }) => {
    if (count === 1) throw new CertManagerError('denied', 'denied');
    return chained(await leafOf(opened.room, b, believed, ttlMs));
  });
  t.like(await opened.sign(a), { fault: 'denied' });
  t.is(opened.signer.state().breaker, 'closed');
  t.true('chain' in (await opened.sign(b)));
});

for (const fault of ['unreachable', 'forbidden', 'not_approved', 'no_issuer', 'unauthenticated', 'webhook'] as const) {
  test(`${fault}: what waits is asked again, and the return is told`, async (t) => {
    const request = await x509Request('a');
    const opened = open(t, async (count, { ttlMs }) => {
      if (count < 3) throw new CertManagerError(fault, fault);
      return chained(await leafOf(opened.room, request, believed, ttlMs));
    });
    let returns = 0;
    opened.signer.onRecover(() => void (returns += 1));
    t.true('chain' in (await opened.sign(request)));
    t.is(opened.wanted.length, 3);
    t.is(returns, 1);
  });
}

test('FED-02: a leaf under a new root is held back as long as there is another; who has none gets it', async (t) => {
  const request = await x509Request('a');
  const next = await testCa({ name: 'CN=Next' });
  let parent = believed;
  const now = Date.UTC(2030, 0, 1);
  const opened = open(t, async (_, { ttlMs }) => chained(await leafOf(opened.room, request, parent, ttlMs)), (root) => (root.equals(next.certificate) ? now + 60_000 : now));
  t.true('chain' in (await opened.sign(request)));
  opened.room.believe(believed, next);
  await settle();
  parent = next;
  const held = await opened.sign({ ...request, heldUntil: now + HOUR });
  t.true(held instanceof SignetError);
  t.regex((held as Error).message, /may not be everywhere before .*the SVID that there is goes on until then/);
  t.deepEqual(opened.room.failed, [], 'nothing is wrong above');
  t.true('chain' in (await opened.sign(request)), 'nobody waits for what is better than nothing');
  opened.room.clock.advance(61_000);
  t.true('chain' in (await opened.sign({ ...request, heldUntil: now + HOUR })));
});
