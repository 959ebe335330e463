import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { caFiles, MountedSecret, testCa, type TestCa } from '../../support/authorities.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { certificatesOf, firstOf, leafOf, MINUTE, SECOND, startTimedAgent, whileMoving, type Svids, type TimedAgent } from './timed-agent.ts';

interface Scene {
  readonly clock: FakeClock;
  readonly directory: string;
  readonly secret: MountedSecret;
  readonly start: () => Promise<TimedAgent>;
}

async function setUp(t: ExecutionContext, ca: TestCa): Promise<Scene> {
  const directory = mkdtempSync(join(tmpdir(), 'signet-files-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const secret = new MountedSecret(join(directory, 'ca'), caFiles(ca));
  const clock = new FakeClock();
  const files = { certificate: secret.path('tls.crt'), key: secret.path('tls.key'), roots: [secret.path('ca.crt')] };
  const config = { authority: { type: 'files', ttl: '2h', files }, x509: { ttl: '10m' } };
  return { clock, directory, secret, start: () => startTimedAgent(t, { clock, directory, config }) };
}

/** True when the chain leads from the leaf by signatures and dates to one of the roots that came with it. */
function verifies({ svids: [svid] }: Svids, now: number): boolean {
  if (svid === undefined) return false;
  const chain = certificatesOf(svid.x509_svid);
  const isAlive = (one: X509Certificate): boolean => one.validFromDate.getTime() <= now && now < one.validToDate.getTime();
  const links = chain.slice(1).every((issuer, index) => chain[index]?.verify(issuer.publicKey) === true);
  return links && chain.every(isAlive) && certificatesOf(svid.bundle).some((root) => isAlive(root) && chain.at(-1)?.verify(root.publicKey) === true);
}

test('leaves stand under a node CA under the CA in the files, whose root is the bundle', async (t) => {
  const clock = new FakeClock();
  const ca = await testCa({ name: 'O=Test, CN=operator', from: clock.now() - MINUTE, to: clock.now() + 1_000 * MINUTE });
  const { start } = await setUp(t, ca);
  const { client } = await start();
  const message = await firstOf<Svids>(client, 'FetchX509SVID');
  const [leaf, node, ...rest] = certificatesOf(message.svids[0]!.x509_svid);
  t.deepEqual(rest, []);
  t.true(leaf!.verify(node!.publicKey));
  t.true(node!.ca && node!.verify(new X509Certificate(ca.certificate).publicKey));
  t.is(node!.subjectAltName, 'URI:spiffe://example.org');
  t.true(message.svids[0]!.bundle.equals(ca.certificate));
});

test('files that are gone, and a restart meanwhile, are not noticed by workloads until the node CA ends', async (t) => {
  const clock = new FakeClock();
  const ca = await testCa({ name: 'O=Test, CN=operator', from: clock.now() - MINUTE, to: clock.now() + 10_000 * MINUTE });
  const scene = await setUp(t, ca);
  const first = await scene.start();
  await firstOf<Svids>(first.client, 'FetchX509SVID');
  await first.stop();
  rmSync(scene.secret.directory, { recursive: true });
  const second = await scene.start();
  const kept = await firstOf<Svids>(second.client, 'FetchX509SVID');
  t.true(verifies(kept, scene.clock.now()));
  scene.clock.advance(6 * SECOND);
  await whileMoving(scene.clock, async () => {
    while (second.agent.agent.readiness.reasons().length === 0) await new Promise((resolve) => setTimeout(resolve, 2));
  });
  t.true(second.agent.agent.readiness.ready, 'it is degraded, and serves');
  t.is(second.agent.agent.readiness.reasons()[0]?.code, 'upstream_away');
  t.deepEqual(readdirSync(join(scene.directory, 'private', 'authority')), ['node-authority.json']);
});

test('when the operator replaces the CA, having published its root before, every SVID verifies at every moment', async (t) => {
  const clock = new FakeClock();
  const dates = { from: clock.now() - MINUTE, to: clock.now() + 10_000 * MINUTE };
  const [old, next] = [await testCa({ name: 'O=Test, CN=old', ...dates }), await testCa({ name: 'O=Test, CN=next', ...dates })];
  const scene = await setUp(t, old);
  const { client, agent } = await scene.start();
  const stream = client.stream<Svids>('/SpiffeWorkloadAPI/FetchX509SVID');
  let newest = await stream.next();
  let isUnder = old;
  const follow = async (minutes: number): Promise<void> => {
    for (let step = 0; step < minutes * 6; step += 1) {
      await whileMoving(scene.clock, () => new Promise((resolve) => setTimeout(resolve, 4)), 10 * SECOND);
      newest = await firstOf<Svids>(client, 'FetchX509SVID');
      if (!verifies(newest, scene.clock.now())) t.fail(`at step ${step} under ${isUnder === old ? 'the old' : 'the new'} CA`);
    }
  };
  scene.secret.update(caFiles(old, { roots: [old, next] }));
  await follow(5);
  t.is(certificatesOf(newest.svids[0]!.bundle).length, 2, 'the new root is in the bundle before anything stands under it');
  isUnder = next;
  scene.secret.update(caFiles(next, { roots: [old, next] }));
  await follow(10);
  const node = certificatesOf(newest.svids[0]!.x509_svid)[1];
  t.true(node?.verify(new X509Certificate(next.certificate).publicKey) === true, 'leaves are replaced soon');
  t.true(leafOf(newest).verify(node!.publicKey));
  t.true(agent.agent.readiness.ready);
});
