/** The whole agent under a real step-ca. */
import { X509Certificate } from 'node:crypto';
import type { ExecutionContext } from 'ava';
import type { AuthorityView } from '../../src/admin/messages.ts';
import { run } from '../cli/run.ts';
import { eventually } from '../e2e/wait.ts';
import { startTestAgent, type TestAgent } from '../support/agent.ts';
import { testIf } from '../support/kernel-conditions.ts';
import { until } from '../support/kubernetes-api.ts';
import { RawClient } from '../support/raw-client.ts';
import { stepCaMissing } from '../support/step-ca-server.ts';
import { stepScene, type StepScene } from '../support/step-ca-upstream.ts';
import { directory } from '../support/vault-upstream.ts';
import { certificatesOf, firstOf, type Svids } from './life/timed-agent.ts';

const missing = stepCaMissing();
const needsStepCa = [missing === undefined, missing ?? ''] as const;

async function setUp(t: ExecutionContext, config: (scene: StepScene) => Promise<object> | object) {
  const scene = await stepScene(t);
  const place = directory(t);
  const { address, fingerprint } = scene.server;
  const stepCa = { address: address.origin, fingerprint, ...(await config(scene)) };
  const start = async (): Promise<{ agent: TestAgent; client: RawClient }> => {
    const agent = await startTestAgent({ directory: place, config: { authority: { type: 'step-ca', stepCa } } });
    t.teardown(() => agent.stop());
    const client = new RawClient(agent.socketPath);
    t.teardown(() => client.close());
    return { agent, client };
  };
  return { scene, start };
}

async function held(client: RawClient): Promise<{ chain: X509Certificate[]; roots: X509Certificate[] }> {
  const { svids } = await firstOf<Svids>(client, 'FetchX509SVID');
  return { chain: certificatesOf(svids[0]!.x509_svid), roots: certificatesOf(svids[0]!.bundle) };
}

testIf(needsStepCa, 'leaves stand under a node CA of step-ca, which may be away, even while the agent restarts', async (t) => {
  const { scene, start } = await setUp(t, ({ jwk }) => ({ provisioner: jwk }));
  const first = await start();
  const { chain, roots } = await held(first.client);
  const [leaf, node, between, ...rest] = chain;
  t.deepEqual(rest, []);
  t.true(leaf!.verify(node!.publicKey) && node!.verify(between!.publicKey) && between!.verify(roots[0]!.publicKey));
  t.is(node!.subjectAltName, 'URI:spiffe://example.org');
  first.client.close();
  await first.agent.stop();
  await scene.server.stop();
  const second = await start();
  t.true((await held(second.client)).chain[0]!.verify(node!.publicKey), 'the node CA is the same');
  await until(() => second.agent.agent.readiness.reasons().some(({ code }) => code === 'upstream_away'), 'the outage to be told');
  t.true(second.agent.agent.readiness.ready);
  await scene.server.start();
  await until(() => second.agent.agent.readiness.reasons().length === 0, 'the recovery');
});

testIf(needsStepCa, 'a node CA that is tainted is not followed by its own key: a token makes the next one', async (t) => {
  const { start } = await setUp(t, async (scene) => ({ provisioner: await scene.x5c(86_400_000), renew: true }));
  const { agent, client } = await start();
  const before = (await held(client)).chain[1]!;
  const env = { SIGNET_ADMIN_SOCKET: agent.config.admin.socketPath };
  const { keys } = JSON.parse((await run(['authority', 'show', '--output', 'json'], { env })).stdout) as AuthorityView;
  const active = keys.find(({ kind, state }) => kind === 'x509' && state === 'active');
  t.is((await run(['authority', 'taint', active!.id], { env })).code, 0);
  const after = await eventually('leaves under another node CA', 15_000, async () => {
    const [, node] = (await held(client)).chain;
    return node!.fingerprint256 === before.fingerprint256 ? undefined : node!;
  });
  t.not(after.subject, before.subject, 'a renewed one would have its name');
});
