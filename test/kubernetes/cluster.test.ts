import test, { type ExecutionContext } from 'ava';
import { SystemClock } from '../../src/clock.ts';
import { KubernetesClient } from '../../src/kubernetes/api-client.ts';
import { Cluster, type ClusterOptions } from '../../src/kubernetes/cluster.ts';
import type { JsonObject } from '../../src/kubernetes/json.ts';
import type { Kubelet } from '../../src/kubernetes/kubelet.ts';
import { podTrim } from '../../src/kubernetes/pod.ts';
import { LARGEST_SNAPSHOT, type ClusterMemory } from '../../src/kubernetes/snapshot.ts';
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

interface Opened {
  readonly cluster: Cluster;
  readonly clock: FakeClock;
  /** Events of warnings. */
  readonly warned: string[];
}

function open(t: ExecutionContext, api: FakeApi, more: Partial<ClusterOptions> = {}): Opened {
  const clock = new FakeClock();
  const client = new KubernetesClient({ credentials: api.credentials(), clock: new SystemClock() });
  const random = { bytes: (count: number) => Buffer.alloc(count), fraction: () => 0.5 };
  const warned: string[] = [];
  const log = { debug: () => undefined, info: () => undefined, warn: (fields: object) => void warned.push(String((fields as { event: string }).event)), error: () => undefined };
  const cluster = new Cluster({ nodeName: 'node-1', client, kubelet: undefined, source: 'api', customResources: true, ...more }, { clock, random, log });
  t.teardown(async () => {
    await cluster.close();
    client.close();
  });
  return { cluster, clock, warned };
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

test('a memory of another version of the program counts for nothing', async (t) => {
  const memory = new Memory();
  const api = await setUp(t);
  const first = open(t, api, { memory, version: '1.0.0' });
  first.cluster.start();
  await first.cluster.whenSynced();
  await first.cluster.close();
  t.true(open(t, api, { memory, version: '1.0.0' }).cluster.isSeeded);
  t.false(open(t, api, { memory, version: '1.0.1' }).cluster.isSeeded);
});

test('what a memory has of an object is trimmed anew when the API server tells it, although it has not changed', async (t) => {
  const memory = new Memory();
  const api = await setUp(t);
  const first = open(t, api, { memory });
  first.cluster.start();
  await first.cluster.whenSynced();
  await first.cluster.close();
  const older = JSON.parse(memory.text ?? '') as { resources: { pods: [string, { item: Record<string, unknown> }][] } };
  for (const [, { item }] of older.resources.pods) delete item['owners'];
  memory.text = JSON.stringify(older);
  const { cluster } = open(t, api, { memory });
  t.is(cluster.pods.find(POD_UID)?.owners, undefined);
  cluster.start();
  await cluster.whenSynced();
  t.deepEqual(cluster.pods.find(POD_UID)?.owners, []);
});

test('when there is too much to be remembered, what was remembered before is not believed any more', async (t) => {
  const memory = new Memory();
  const api = await setUp(t);
  const { cluster, clock, warned } = open(t, api, { memory });
  cluster.start();
  await cluster.whenSynced();
  await until(() => api.watched().length === 1, 'the watch');
  clock.advance(2_000);
  await until(() => memory.writes === 1, 'the first write');
  const pods = Array.from({ length: 100 }, (_, i) => rawPod({ name: `p${i}`, uid: `u${i}`, version: `${200 + i}`, labels: { text: 'x'.repeat(50_000) } }));
  for (const one of pods) api.tell('ADDED', one, PODS);
  await until(() => cluster.pods.size === 101, 'the pods');
  clock.advance(2_000);
  await until(() => memory.writes === 2, 'the second write');
  t.true((memory.text ?? '').length < 1_000);
  t.false(open(t, api, { memory }).cluster.isSeeded);
  t.deepEqual(warned, ['kubernetes.not_remembered']);
  for (const one of pods.slice(20)) api.tell('DELETED', one, PODS);
  await until(() => cluster.pods.size === 21, 'the end of the pods');
  clock.advance(2_000);
  await until(() => memory.writes === 3, 'the third write');
  t.true((memory.text ?? '').length > 1_000_000 && Buffer.byteLength(memory.text ?? '') <= LARGEST_SNAPSHOT);
  t.true(open(t, api, { memory }).cluster.isSeeded);
});

test('more than 32 MiB of pods of one tenant hinder nobody else, neither at the start nor later', async (t) => {
  const api = await setUp(t);
  const labels = Object.fromEntries(Array.from({ length: 10_500 }, (_, i) => [`${'a'.repeat(40)}${i}`, 'v'.repeat(63)]));
  const large = Array.from({ length: 30 }, (_, i) => rawPod({ name: `big-${i}`, namespace: 'tenant', uid: `big-${i}`, version: `${200 + i}`, labels }));
  t.true(JSON.stringify(large).length > 33_554_432);
  api.collections.set(PODS, [rawPod(), ...large]);
  const { cluster, clock, warned } = open(t, api, { customResources: false });
  cluster.start();
  await cluster.whenSynced();
  t.is((await cluster.pods.waitFor(POD_UID, 1_000))?.labels['app'], 'web');
  await t.throwsAsync(cluster.pods.waitFor('big-7', 1_000), { code: 'caller_unknown', message: /pod tenant\/big-7 come to \d{7} bytes/ });
  t.deepEqual(warned, large.map(() => 'kubernetes.pod_too_large'));
  t.is(cluster.pods.oversized, 30);
  // A list is due again.
  await until(() => api.watches.size === 1, 'the watch');
  clock.advance(3_600_000);
  api.watches.forEach(({ response }) => response.end());
  await until(() => (clock.advance(1_000), api.lists().length === 2 && api.watches.size === 1), 'the next list and watch');
  t.is(cluster.failure, undefined);
  api.tell('ADDED', rawPod({ name: 'new', uid: 'new', version: '900' }), PODS);
  t.is((await cluster.pods.waitFor('new', 1_000))?.name, 'new');
  t.is(warned.length, 30, 'each is told of once');
});

test('the API server takes requests and is silent: the kubelet is asked beside it', async (t) => {
  const api = await setUp(t);
  api.collections.set(PODS, []);
  let asked = 0;
  const pod = podTrim()(rawPod());
  const kubelet = { pods: async () => ((asked += 1), [pod]), close: () => undefined } as unknown as Kubelet;
  const { cluster, clock } = open(t, api, { kubelet: () => kubelet, customResources: false });
  cluster.start();
  await cluster.whenSynced();
  await until(() => api.watches.size === 1, 'the watch');
  api.faults.push(() => true);
  const found = cluster.pods.waitFor(POD_UID, 5_000);
  clock.advance(5_000);
  await until(() => api.lists().length === 2, 'the question to the API server');
  t.is(asked, 0);
  clock.advance(1_500);
  t.is(asked, 1, 'long before the API server is given up');
  t.is((await found)?.name, 'web-1');
  t.is(cluster.failure, undefined, 'the watch is only silent so far');
});

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
