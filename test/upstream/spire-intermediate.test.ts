import test from 'ava';
import { createIntermediate } from '../../src/authority/certificate.ts';
import { newKeyPair } from '../../src/authority/keys.ts';
import { systemRandom } from '../../src/random.ts';
import { SpireIntermediate } from '../../src/upstream/spire/intermediate.ts';
import { testIssuer } from '../support/authorities.ts';
import { asking, patience, trustDomain } from './spire-tools.ts';

const HOUR = 3_600_000;
const NOW = Math.floor(Date.now() / 1000) * 1000;

const [former, next] = [await testIssuer(NOW - 2 * HOUR, NOW + HOUR), await testIssuer(NOW - HOUR, NOW + 2 * HOUR)];

/** A session whose server answers `chain`, whatever it is asked. */
function scene(chainOf: () => Promise<readonly Buffer[]>) {
  const server = { roots: [former.certificate] as readonly Buffer[], tainted: [] as readonly Buffer[], looks: 0, asked: [] as unknown[] };
  const session = {
    syncMs: 1_000,
    bundle: { roots: () => server.roots, isTainted: (root: Buffer) => server.tainted.includes(root), onChange: () => () => undefined },
    problem: () => undefined,
    onReturn: () => () => undefined,
    look: async () => {
      server.looks += 1;
      server.roots = [former.certificate, next.certificate];
    },
    asDownstream: async (_purpose: string, _method: string, request: unknown) => {
      server.asked.push(request);
      return { caCertChain: await chainOf(), x509Authorities: server.roots.length === 0 ? [former.certificate] : [former.certificate, ...(server.tainted.length > 0 ? [next.certificate] : [])] };
    },
    close: async () => undefined,
  };
  return { server, upstream: new SpireIntermediate(session as never) };
}

async function nodeCaUnder(issuer: typeof former): Promise<Buffer> {
  const { publicKey } = await newKeyPair('ec-p256');
  return createIntermediate(issuer, { trustDomain, publicKey, nameConstraint: 'none', notBefore: NOW - 60_000, notAfter: NOW + HOUR / 2 }, systemRandom);
}

test('a CA is asked for with its key and its life in seconds, and all nodes have twice the time that SPIRE agents take', async (t) => {
  const { server, upstream } = scene(async () => [await nodeCaUnder(former)]);
  await upstream.sign(await asking(90_500), patience());
  t.like(server.asked[0], { preferredTtl: 90 });
  t.is(upstream.overlapMs, 10_000);
});

test('an answer without a certificate is refused', async (t) => {
  const { upstream } = scene(async () => []);
  await t.throwsAsync(upstream.sign(await asking(), patience()), { code: 'authority_unavailable', message: /NewDownstreamX509CA holds no certificate/ });
});

test('the root is left out of the chain where the server has put it in', async (t) => {
  const ca = await nodeCaUnder(former);
  const { upstream } = scene(async () => [ca, former.certificate]);
  t.deepEqual((await upstream.sign(await asking(), patience())).chain, [ca]);
  t.true(upstream.issuer()?.equals(former.certificate));
});

test('an answer that is newer than the bundle has it looked at first', async (t) => {
  const { server, upstream } = scene(() => nodeCaUnder(former).then((ca) => [ca]));
  server.roots = [];
  const { roots } = await upstream.sign(await asking(), patience());
  t.is(server.looks, 1);
  t.deepEqual(roots, [former.certificate, next.certificate]);
});

test('a tainted root names another issuer until something else has signed; a server that goes on with it is not asked again and again', async (t) => {
  let under = former;
  const { server, upstream } = scene(async () => [await nodeCaUnder(under)]);
  t.is(upstream.issuer(), undefined);
  await upstream.sign(await asking(), patience());
  server.roots = [former.certificate, next.certificate];
  server.tainted = [former.certificate];
  t.is(upstream.issuer(), next.certificate);
  await upstream.sign(await asking(), patience());
  t.true(upstream.issuer()?.equals(former.certificate));
  under = next;
  await upstream.sign(await asking(), patience());
  t.true(upstream.issuer()?.equals(next.certificate));
});

test('after a restart a node CA under a tainted root is replaced too', (t) => {
  const { server, upstream } = scene(async () => []);
  server.roots = [former.certificate, next.certificate];
  server.tainted = [former.certificate];
  t.is(upstream.issuer(), next.certificate);
});
