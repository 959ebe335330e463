import test, { type ExecutionContext } from 'ava';
import { SystemClock } from '../../src/clock.ts';
import { KubernetesClient } from '../../src/kubernetes/api-client.ts';
import { Cluster, type ClusterOptions } from '../../src/kubernetes/cluster.ts';
import type { JsonObject } from '../../src/kubernetes/json.ts';
import type { ClusterMemory } from '../../src/kubernetes/snapshot.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FakeApi, object, until } from '../support/kubernetes-api.ts';
import { POD_UID, rawPod } from '../support/kubernetes-pods.ts';

const PODS = '/api/v1/pods';
const RULES = '/apis/spire.spiffe.io/v1alpha1/clusterspiffeids';
const NAMESPACES = '/api/v1/namespaces';

class Memory implements ClusterMemory {
  text: string | undefined;
  writes = 0;
  read(): string | undefined {
    return this.text;
  }
  async write(text: string): Promise<void> {
    this.writes += 1;
    this.text = text;
  }
}

function rule(name: string, uid: string): JsonObject {
  return { metadata: { name, uid, resourceVersion: '3', generation: 2 }, spec: { spiffeIDTemplate: 'spiffe://example.org/a' } };
}

async function setUp(t: ExecutionContext): Promise<FakeApi> {
  const api = await FakeApi.start();
  api.collections.set(PODS, [rawPod()]);
  t.teardown(() => api.stop());
  return api;
}

function open(t: ExecutionContext, api: FakeApi, more: Partial<ClusterOptions> = {}): { cluster: Cluster; clock: FakeClock } {
  const clock = new FakeClock();
  const client = new KubernetesClient({ credentials: api.credentials(), clock: new SystemClock() });
  const random = { bytes: (count: number) => Buffer.alloc(count), fraction: () => 0.5 };
  const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  const cluster = new Cluster({ nodeName: 'node-1', client, kubelet: undefined, source: 'api', customResources: true, ...more }, { clock, random, log });
  t.teardown(async () => {
    await cluster.close();
    client.close();
  });
  return { cluster, clock };
}

test('pods and rules are one list and one watch each, and nothing else is asked for', async (t) => {
  const api = await setUp(t);
  api.collections.set(RULES, [rule('a', 'ra')]);
  const { cluster } = open(t, api);
  t.false(cluster.knowsRules);
  cluster.start();
  await cluster.whenSynced();
  t.true(cluster.knowsRules && cluster.isSynced);
  t.is(cluster.pods.find(POD_UID)?.name, 'web-1');
  t.deepEqual([...(cluster.spiffeIds?.items() ?? [])], [{ uid: 'ra', name: 'a', generation: 2, spec: { spiffeIDTemplate: 'spiffe://example.org/a' } }]);
  await until(() => api.watched().length === 2, 'both watches');
  t.deepEqual(api.lists().map(({ path }) => path).sort(), [PODS, RULES, '/apis/spire.spiffe.io/v1alpha1/clusterstaticentries'].sort());
  t.is(api.lists().find(({ path }) => path === PODS)?.query.get('fieldSelector'), 'spec.nodeName=node-1');
});

test('namespaces are followed only when a rule needs them, as metadata', async (t) => {
  const api = await setUp(t);
  api.collections.set(NAMESPACES, [object('shop', 'ns', 1, { metadata: { name: 'shop', uid: 'ns', resourceVersion: '1', labels: { env: 'prod' } } })]);
  const { cluster } = open(t, api);
  cluster.start();
  await cluster.whenSynced();
  t.is(cluster.namespaceLabels('shop'), undefined);
  let told = 0;
  cluster.onChange(() => (told += 1));
  cluster.need({ annotations: false, namespaces: true, node: false });
  t.false(cluster.knowsRules, 'a rule that looks at them cannot be judged yet');
  await until(() => cluster.knowsRules, 'the namespaces');
  t.is(cluster.namespaceLabels('shop')?.['env'], 'prod');
  await until(() => told > 0, 'to be told');
  const asked = api.lists().find(({ path }) => path === NAMESPACES);
  t.regex(String(asked?.headers.accept), /PartialObjectMetadataList/);
});

test('annotations are kept only when a rule needs them', async (t) => {
  const api = await setUp(t);
  api.collections.set(PODS, [rawPod({ annotations: { team: 'blue' } })]);
  const { cluster } = open(t, api);
  cluster.start();
  await cluster.whenSynced();
  t.is(cluster.pods.find(POD_UID)?.annotations, undefined);
  cluster.need({ annotations: true, namespaces: false, node: false });
  await until(() => cluster.pods.find(POD_UID)?.annotations !== undefined, 'the annotations');
  t.is(cluster.pods.find(POD_UID)?.annotations?.['team'], 'blue');
});

test('after a restart while the API server is away, pods and rules are those that were known last', async (t) => {
  const memory = new Memory();
  const api = await setUp(t);
  api.collections.set(RULES, [rule('a', 'ra')]);
  const first = open(t, api, { memory });
  first.cluster.start();
  await first.cluster.whenSynced();
  await first.cluster.close();
  t.is(memory.writes, 1, 'what was not written yet is written when it closes');
  await api.stop();
  const { cluster } = open(t, api, { memory });
  cluster.start();
  t.true(cluster.isSeeded && cluster.knowsRules);
  t.false(cluster.isSynced);
  const pod = cluster.pods.find(POD_UID);
  t.is(pod?.serviceAccount, 'web');
  t.is(pod?.labels['constructor'], undefined, 'labels have no prototype');
  t.is([...(cluster.spiffeIds?.items() ?? [])].length, 1);
  await until(() => cluster.failure !== undefined, 'the outage to be noticed');
});

test('what is known is written once for many changes, and not again without a change', async (t) => {
  const memory = new Memory();
  const api = await setUp(t);
  const { cluster, clock } = open(t, api, { memory });
  cluster.start();
  await cluster.whenSynced();
  await until(() => api.watched().length === 1, 'the watch');
  for (let i = 0; i < 20; i += 1) api.tell('ADDED', rawPod({ name: `p${i}`, uid: `u${i}`, version: String(200 + i) }), PODS);
  await until(() => cluster.pods.size === 21, 'the pods');
  clock.advance(2_000);
  await until(() => memory.writes === 1, 'the write');
  clock.advance(60_000);
  t.is(memory.writes, 1);
});

for (const [what, spoil] of [
  ['of another node', (text: string) => text.replace('node-1', 'node-2')],
  ['of another version', (text: string) => text.replace('"version":1', '"version":2')],
  ['that is damaged', (text: string) => text.slice(0, -9)],
] as const) {
  test(`a memory ${what} counts for nothing`, async (t) => {
    const memory = new Memory();
    const api = await setUp(t);
    const first = open(t, api, { memory });
    first.cluster.start();
    await first.cluster.whenSynced();
    await first.cluster.close();
    memory.text = spoil(memory.text ?? '');
    const { cluster } = open(t, api, { memory });
    t.false(cluster.isSeeded || cluster.knowsRules);
    t.is(cluster.pods.find(POD_UID), undefined);
  });
}

test('nothing is written before everything was known once', async (t) => {
  const memory = new Memory();
  const api = await setUp(t);
  api.faults.push((seen, response) => seen.path === RULES && (response.destroy(), true));
  const { cluster } = open(t, api, { memory });
  cluster.start();
  await until(() => cluster.pods.synced, 'the pods');
  await cluster.close();
  t.is(memory.writes, 0);
});

test('a rule that is made, changed or deleted is told; a write to its status is not', async (t) => {
  const api = await setUp(t);
  api.collections.set(RULES, []);
  const { cluster } = open(t, api);
  cluster.start();
  await cluster.whenSynced();
  await until(() => api.watched().length === 2, 'the watches');
  const told: string[] = [];
  cluster.onChange(() => told.push([...(cluster.spiffeIds?.items() ?? [])].map(({ name, generation }) => `${name}@${generation}`).join()));
  const version = (resourceVersion: string, generation: number): JsonObject => {
    const { metadata, spec } = rule('a', 'ra') as { metadata: JsonObject; spec: JsonObject };
    return { metadata: { ...metadata, resourceVersion, generation }, spec, status: { stats: { podsSelected: Number(resourceVersion) } } };
  };
  api.tell('ADDED', version('201', 1), RULES);
  await until(() => told.length === 1, 'the new rule');
  api.tell('MODIFIED', version('202', 1), RULES);
  api.tell('MODIFIED', version('203', 2), RULES);
  await until(() => told.length === 2, 'the changed rule');
  api.tell('DELETED', version('204', 2), RULES);
  await until(() => told.length === 3, 'the deleted rule');
  t.deepEqual(told, ['a@1', 'a@2', '']);
});
