/** Against the API server that SIGNET_TEST_KUBECONFIG leads to. Everything is made in a namespace and an API group of its own, and removed. */
import test, { type ExecutionContext } from 'ava';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SystemClock } from '../../src/clock.ts';
import { KubernetesClient, type WatchEvent } from '../../src/kubernetes/api-client.ts';
import { KubernetesError, hasStatus } from '../../src/kubernetes/api-error.ts';
import { credentialsFrom } from '../../src/kubernetes/credentials.ts';
import { Informer } from '../../src/kubernetes/informer.ts';
import { objectAt, objectsAt, textAt, type JsonObject } from '../../src/kubernetes/json.ts';
import { Kubelet } from '../../src/kubernetes/kubelet.ts';
import { trimNamespace } from '../../src/kubernetes/objects.ts';
import { PodIndex } from '../../src/kubernetes/pod-index.ts';
import { podsFromApi } from '../../src/kubernetes/pod-lookup.ts';
import { podTrim, type Pod } from '../../src/kubernetes/pod.ts';
import { NAMESPACES, NODES, PODS, namespacedPathOf, onNode, pathOf, type Resource } from '../../src/kubernetes/resources.ts';
import { systemRandom } from '../../src/random.ts';
import { until } from '../support/kubernetes-api.ts';
import { reachCluster, type Cluster } from '../support/kubernetes-cluster.ts';
import { CONTAINER_ID, running } from '../support/kubernetes-pods.ts';

const found = await reachCluster();
const node = typeof found === 'string' ? undefined : await realNode(found);
const clock = new SystemClock();
const SUFFIX = randomBytes(4).toString('hex');
const NAMESPACE = `signet-test-${SUFFIX}`;
/**
 * A node that is not there: nothing runs its pods, and their status is ours to write. One for each test, since the controllers take
 * the pods of a missing node away some 40 s after they have missed it.
 */
const nodeOf = (purpose: string): string => `signet-test-${SUFFIX}-${purpose}`;
const GROUP = `signet-test-${SUFFIX}.example.org`;
const RBAC = '/apis/rbac.authorization.k8s.io/v1';
const CRDS: Resource = { name: 'customresourcedefinitions', path: '/apis/apiextensions.k8s.io/v1/customresourcedefinitions' };
const CONFIG_MAPS: Resource = { name: 'configmaps', path: '/api/v1/configmaps' };
const SERVICE_ACCOUNTS: Resource = { name: 'serviceaccounts', path: '/api/v1/serviceaccounts' };

if (typeof found === 'string') test.skip(`a real API server (${found})`, (t) => t.pass());
else {
  test.before(async () => {
    await found.client.create(NAMESPACES.path, { metadata: { name: NAMESPACE } });
    await found.client.create(namespacedPathOf(SERVICE_ACCOUNTS, NAMESPACE), { metadata: { name: 'web' } });
  });
  test.after.always(async () => {
    for (const kind of ['clusterrolebindings', 'clusterroles']) await found.client.delete(`${RBAC}/${kind}/${NAMESPACE}`).catch(() => undefined);
    await found.client.delete(pathOf(CRDS, `widgets.${GROUP}`)).catch(() => undefined);
    await found.client.delete(pathOf(NAMESPACES, NAMESPACE)).catch(() => undefined);
    found.client.close();
  });
  define(found);
  if (node === undefined) test.skip('a real kubelet (the cluster has no node)', (t) => t.pass());
  else defineKubelet(found, node);
}

async function makePod({ client }: Cluster, nodeName: string, name: string): Promise<JsonObject> {
  const spec = {
    nodeName,
    serviceAccountName: 'web',
    terminationGracePeriodSeconds: 0,
    containers: [{ name: 'main', image: 'nginx:1.29' }],
    // A pod of an unknown node is not deleted, nor evicted, for it.
    tolerations: [{ operator: 'Exists' }],
  };
  return client.create(namespacedPathOf(PODS, NAMESPACE), { kind: 'Pod', apiVersion: 'v1', metadata: { name, labels: { app: 'web' } }, spec });
}

function uidOf(raw: JsonObject): string {
  return textAt(objectAt(raw, 'metadata'), 'uid');
}

function podInformer(t: ExecutionContext, { client }: Cluster, nodeName: string): Informer<Pod> {
  const informer = new Informer({ client, resource: PODS, fieldSelector: onNode(nodeName), trim: podTrim(), clock, random: systemRandom });
  t.teardown(() => informer.close());
  informer.start();
  return informer;
}

interface NodeAddress {
  readonly name: string;
  readonly address: string;
}

/** The cluster's node, or undefined where it is only an API server. */
async function realNode({ client }: Cluster): Promise<NodeAddress | undefined> {
  const nodes: NodeAddress[] = [];
  await client.list(NODES, {}, (raw) => {
    const addresses = objectsAt(objectAt(raw, 'status'), 'addresses');
    const address = addresses.find((one) => textAt(one, 'type') === 'InternalIP');
    nodes.push({ name: textAt(objectAt(raw, 'metadata'), 'name'), address: textAt(address ?? {}, 'address') });
  });
  return nodes[0];
}

/** A client that shows what is in `path` as its token. */
function tokenClient(t: ExecutionContext, { credentials }: Cluster, path: string, ca: string): KubernetesClient {
  const client = new KubernetesClient({ credentials: credentialsFrom({ server: credentials.server, origin: 'test', ca: { text: ca }, token: { path } }), clock });
  t.teardown(() => client.close());
  return client;
}

async function newToken({ client }: Cluster): Promise<string> {
  const answer = await client.create(`${namespacedPathOf(SERVICE_ACCOUNTS, NAMESPACE, 'web')}/token`, {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenRequest',
    spec: { expirationSeconds: 600 },
  });
  return textAt(objectAt(answer, 'status'), 'token');
}

function define(cluster: Cluster): void {
  const { client, credentials } = cluster;

  test.serial('a pod is indexed by the watch, its container when the status comes, and kept after its deletion', async (t) => {
    const node = nodeOf('index');
    const informer = podInformer(t, cluster, node);
    await informer.whenSynced();
    const lookup = podsFromApi(client, node, podTrim());
    const index = new PodIndex({ source: informer, clock, lookup });
    t.teardown(() => index.close());
    const uid = uidOf(await makePod(cluster, node, 'web-1'));
    const pod = await index.waitFor(uid, 10_000);
    t.like(pod, { uid, name: 'web-1', namespace: NAMESPACE, serviceAccount: 'web', nodeName: node });
    t.is(pod?.labels['app'], 'web');
    const waiting = index.waitForContainer(uid, CONTAINER_ID, 10_000);
    await client.patchStatus(namespacedPathOf(PODS, NAMESPACE, 'web-1'), running());
    const { container } = (await waiting) ?? {};
    t.like(container, { name: 'main', image: 'nginx:1.29', imageId: 'docker.io/library/nginx@sha256:abc', containerId: CONTAINER_ID });
    t.deepEqual((await lookup(new AbortController().signal)).map((one) => one.uid), [uid]);
    await client.delete(namespacedPathOf(PODS, NAMESPACE, 'web-1'), { uid });
    await until(() => index.unlisted === 1, 'the deletion');
    t.is(informer.size, 0);
    t.is(index.find(uid)?.name, 'web-1');
  });

  test.serial('a list comes in pages, and the watch goes on from a bookmark that it sent', async (t) => {
    // A bookmark comes into a quiet watch about once a minute.
    t.timeout(150_000);
    const fieldSelector = onNode(nodeOf('pages'));
    for (const name of ['page-1', 'page-2', 'page-3']) await makePod(cluster, nodeOf('pages'), name);
    const names: string[] = [];
    const version = await client.list(PODS, { fieldSelector, limit: 1 }, (raw) => names.push(textAt(objectAt(raw, 'metadata'), 'name')));
    t.deepEqual(names.sort(), ['page-1', 'page-2', 'page-3']);
    const isBookmark = ({ type }: WatchEvent): boolean => type === 'BOOKMARK';
    const bookmark = await firstOf(client.watch(PODS, { fieldSelector, resourceVersion: version, timeoutSeconds: 130 }), isBookmark);
    const resourceVersion = textAt(objectAt(bookmark.object, 'metadata'), 'resourceVersion');
    await makePod(cluster, nodeOf('pages'), 'page-4');
    const added = await firstOf(client.watch(PODS, { fieldSelector, resourceVersion }), ({ type }) => type === 'ADDED');
    t.is(textAt(objectAt(added.object, 'metadata'), 'name'), 'page-4');
  });

  test.serial('a version that the server has not reached is refused as such', async (t) => {
    const error = await t.throwsAsync(client.list(PODS, { resourceVersion: '999999999' }, () => undefined), { instanceOf: KubernetesError });
    t.like(error, { status: 504, reason: 'Timeout', retryAfterMs: 1_000 });
  });

  test.serial('namespaces come with metadata only, and follow a label', async (t) => {
    const informer = new Informer({ client, resource: NAMESPACES, trim: trimNamespace, clock, random: systemRandom });
    t.teardown(() => informer.close());
    informer.start();
    await informer.whenSynced();
    t.is(informer.get(NAMESPACE)?.labels['env'], undefined);
    const labelled = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: NAMESPACE, labels: { env: 'prod' } } };
    await client.apply(pathOf(NAMESPACES, NAMESPACE), labelled, { fieldManager: 'signet-test' });
    await until(() => informer.get(NAMESPACE)?.labels['env'] === 'prod', 'the label');
    t.pass();
  });

  test.serial('server-side apply makes an object, is refused where another owns a field, and takes it over by force', async (t) => {
    const path = namespacedPathOf(CONFIG_MAPS, NAMESPACE, 'shared');
    const of = (value: string): JsonObject => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'shared' }, data: { key: value } });
    await client.apply(path, of('a'), { fieldManager: 'one' });
    const error = await t.throwsAsync(client.apply(path, of('b'), { fieldManager: 'two' }), { instanceOf: KubernetesError });
    t.like(error, { status: 409, reason: 'Conflict' });
    t.regex(error?.message ?? '', /conflict with "one"/);
    await client.apply(path, of('b'), { fieldManager: 'two', force: true });
    t.is(textAt(objectAt(await client.get(path), 'data'), 'key'), 'b');
    const stale = await t.throwsAsync(client.delete(path, { uid: 'another' }), { instanceOf: KubernetesError });
    t.is(stale?.status, 409);
    await client.delete(path);
    t.true(hasStatus(await t.throwsAsync(client.get(path)), 404));
  });

  test.serial('a CRD is absent, appears, has a status of its own, and disappears', async (t) => {
    const widgets: Resource = { name: 'widgets', path: `/apis/${GROUP}/v1/widgets`, optional: true };
    const informer = new Informer({ client, resource: widgets, trim: (raw) => raw, clock, random: systemRandom, absentMs: 500 });
    t.teardown(() => informer.close());
    informer.start();
    await informer.whenSynced();
    t.is(informer.size, 0);
    const open = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
    const version = { name: 'v1', served: true, storage: true, subresources: { status: {} }, schema: { openAPIV3Schema: open } };
    const names = { plural: 'widgets', singular: 'widget', kind: 'Widget', listKind: 'WidgetList' };
    await client.create(CRDS.path, { metadata: { name: `widgets.${GROUP}` }, spec: { group: GROUP, names, scope: 'Cluster', versions: [version] } });
    const widget = { apiVersion: `${GROUP}/v1`, kind: 'Widget', metadata: { name: 'one' } };
    await applyOnceServed(client, pathOf(widgets, 'one'), widget);
    await until(() => informer.size === 1, 'the object');
    await client.applyStatus(pathOf(widgets, 'one'), { ...widget, status: { seen: 3 } }, { fieldManager: 'signet-test' });
    await until(() => objectAt(informer.get('one') ?? {}, 'status')['seen'] === 3, 'the status');
    await client.delete(pathOf(CRDS, `widgets.${GROUP}`));
    await until(() => informer.size === 0, 'the end of the CRD', 60_000);
    t.true(informer.synced);
  });

  test.serial('a service account without a role is told what it lacks, and may read once it has one', async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'signet-cluster-'));
    t.teardown(() => rmSync(directory, { recursive: true }));
    const path = join(directory, 'token');
    const { ca = '' } = await credentials.read();
    const account = tokenClient(t, cluster, path, ca);
    writeFileSync(path, 'not-a-token');
    t.like(await t.throwsAsync(account.get('/api'), { instanceOf: KubernetesError }), { status: 401, reason: 'Unauthorized' });
    writeFileSync(path, await newToken(cluster));
    const pods: Resource = { name: 'pods', path: namespacedPathOf(PODS, NAMESPACE) };
    const forbidden = await t.throwsAsync(account.list(pods, {}, () => undefined), { instanceOf: KubernetesError });
    t.like(forbidden, { status: 403, reason: 'Forbidden' });
    const user = `system:serviceaccount:${NAMESPACE}:web`;
    t.true(forbidden?.message.endsWith(`403 Forbidden: pods is forbidden: User "${user}" cannot list resource "pods" in API group "" in the namespace "${NAMESPACE}"`), forbidden?.message);
    await allowReadingPods(client);
    const isAllowed = (): Promise<boolean> => account.list(pods, { resourceVersion: '0' }, () => undefined).then(() => true, () => false);
    let allowed = false;
    for (let tries = 0; tries < 100 && !allowed; tries++) allowed = await isAllowed();
    t.true(allowed);
    writeFileSync(path, await newToken(cluster));
    await t.notThrowsAsync(account.list(pods, { resourceVersion: '0' }, () => undefined));
  });

  test.serial('a TokenReview tells who has a token', async (t) => {
    const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token: await newToken(cluster) } };
    const status = objectAt(await client.create('/apis/authentication.k8s.io/v1/tokenreviews', review), 'status');
    t.is(textAt(objectAt(status, 'user'), 'username'), `system:serviceaccount:${NAMESPACE}:web`);
  });

  test.serial('two informers with the same view tell the same pods after many changes', async (t) => {
    const node = nodeOf('many');
    const informer = podInformer(t, cluster, node);
    await informer.whenSynced();
    for (let i = 0; i < 10; i++) await makePod(cluster, node, `many-${i}`);
    for (let i = 0; i < 10; i += 2) await client.delete(namespacedPathOf(PODS, NAMESPACE, `many-${i}`));
    const names = (): string[] => [...informer.items()].map(({ name }) => name).sort();
    await until(() => names().join() === 'many-1,many-3,many-5,many-7,many-9', 'five pods');
    const other = podInformer(t, cluster, node);
    await other.whenSynced();
    t.deepEqual([...other.items()].map(({ uid }) => uid).sort(), [...informer.items()].map(({ uid }) => uid).sort());
  });
}

function defineKubelet(cluster: Cluster, node: NodeAddress): void {
  test.serial('a real kubelet refuses an account without a role, and tells its pods to one that may get nodes/pods', async (t) => {
    const { ca = '' } = await cluster.credentials.read();
    const token = { text: await newToken(cluster) };
    const kubelet = new Kubelet({ host: node.address, serverName: node.name, token, ca: { text: ca }, clock, trim: podTrim() });
    t.teardown(() => kubelet.close());
    const error = await t.throwsAsync(kubelet.pods(), { instanceOf: KubernetesError });
    t.is(error?.status, 403);
    t.regex(error?.message ?? '', /\/pods: 403: Forbidden \(user=system:serviceaccount:/);
    await allowReadingNodePods(cluster.client);
    let pods: Pod[] | undefined;
    await until(() => (void kubelet.pods().then((told) => (pods = told), () => undefined), pods !== undefined), 'the role to count');
    t.true(pods?.every(({ nodeName }) => nodeName === node.name));
    const fromApi = await podsFromApi(cluster.client, node.name, podTrim())(new AbortController().signal);
    t.deepEqual(pods?.map(({ uid }) => uid).sort(), fromApi.map(({ uid, configHash }) => configHash ?? uid).sort());
  });
}

async function allowReadingNodePods(client: KubernetesClient): Promise<void> {
  const metadata = { name: NAMESPACE };
  await client.create(`${RBAC}/clusterroles`, { metadata, rules: [{ apiGroups: [''], resources: ['nodes/pods'], verbs: ['get'] }] });
  await client.create(`${RBAC}/clusterrolebindings`, {
    metadata,
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: NAMESPACE },
    subjects: [{ kind: 'ServiceAccount', name: 'web', namespace: NAMESPACE }],
  });
}

async function firstOf(watch: AsyncIterable<WatchEvent>, isWanted: (event: WatchEvent) => boolean): Promise<WatchEvent> {
  for await (const event of watch) if (isWanted(event)) return event;
  throw new Error('the watch ended before the event');
}

/** A new CRD is served a moment after it was accepted. */
async function applyOnceServed(client: KubernetesClient, path: string, object: JsonObject): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      return void (await client.apply(path, object, { fieldManager: 'signet-test' }));
    } catch (error) {
      if (tries === 500 || !hasStatus(error, 404)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

async function allowReadingPods(client: KubernetesClient): Promise<void> {
  const rbac = `${RBAC}/namespaces/${NAMESPACE}`;
  const rules = [{ apiGroups: [''], resources: ['pods'], verbs: ['get', 'list', 'watch'] }];
  await client.create(`${rbac}/roles`, { metadata: { name: 'read-pods' }, rules });
  await client.create(`${rbac}/rolebindings`, {
    metadata: { name: 'read-pods' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'read-pods' },
    subjects: [{ kind: 'ServiceAccount', name: 'web', namespace: NAMESPACE }],
  });
}
