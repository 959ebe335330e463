import test, { type ExecutionContext } from 'ava';
import { objectAt, textAt, type JsonObject } from '../../src/kubernetes/json.ts';
import { createLog } from '../../src/log.ts';
import { BundlePublisher, type BundlePublisherOptions } from '../../src/trust/publish/bundle-publisher.ts';
import { jwtKeysIn, rootsIn } from '../../src/trust/publish/documents.ts';
import { pass, turn } from '../registration/status/memory-api.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { evenRandom } from '../support/signers.ts';
import { ChangingBundle, PublishApi, makeJwtKey, makeRoot } from './publish-api.ts';

const CONFIG_MAP = '/api/v1/namespaces/signet-system/configmaps/signet-bundle';
const BETA = '/apis/certificates.k8s.io/v1beta1';
const ALPHA = '/apis/certificates.k8s.io/v1alpha1';
const CLUSTER_BUNDLE = 'clustertrustbundles/signet.dev%3Aexample.org%3Abundle';
const ANNOTATED = { 'signet.dev/trust-domain': 'example.org' };
const FIVE_MINUTES = 300_000;
/** The longest until a place is looked at again, and the time for it. */
const A_LOOK = 760_000;

const [A, B, C] = await Promise.all([makeRoot(), makeRoot(), makeRoot()]);

interface Running {
  readonly publisher: BundlePublisher;
  readonly api: PublishApi;
  readonly clock: FakeClock;
  readonly bundle: ChangingBundle;
  readonly logged: JsonObject[];
  events(name: string): JsonObject[];
}

interface Setting extends Partial<BundlePublisherOptions> {
  readonly api?: PublishApi;
  readonly clock?: FakeClock;
}

function publisherOf(t: ExecutionContext, bundle: ChangingBundle, setting: Setting = {}): Running {
  const { api = new PublishApi(), clock = new FakeClock(), ...more } = setting;
  const logged: JsonObject[] = [];
  const log = createLog('debug', { write: (line) => void logged.push(JSON.parse(line) as JsonObject) });
  const options = { client: api, bundle, identity: 'pod-1', namespace: 'signet-system', configMap: {}, clock, random: evenRandom, log };
  const publisher = new BundlePublisher({ ...options, ...more });
  t.teardown(() => publisher.close());
  return { publisher, api, clock, bundle, logged, events: (name) => logged.filter(({ event }) => event === name) };
}

/** Runs until it holds the Lease. */
async function running(t: ExecutionContext, bundle: ChangingBundle, setting: Setting = {}): Promise<Running> {
  const one = publisherOf(t, bundle, setting);
  one.publisher.start();
  await pass(one.clock, 10_000);
  t.true(one.publisher.isHolder);
  return one;
}

const data = (api: PublishApi): JsonObject => objectAt(api.objects.get(CONFIG_MAP) ?? {}, 'data');
const published = (api: PublishApi): Buffer[] => rootsIn(textAt(data(api), 'bundle.pem'));
const publishedKids = (api: PublishApi): string[] => jwtKeysIn(textAt(data(api), 'bundle.spiffe')).map(({ kid }) => kid);
const sorted = (...roots: Buffer[]): Buffer[] => [...roots].sort(Buffer.compare);
const serveClusterBundles = (api: PublishApi, version = BETA): void => api.put(version, { resources: [{ name: 'clustertrustbundles' }] });

test('the holder writes both forms of the bundle, with the trust domain beside them: TD-02', async (t) => {
  const key = makeJwtKey();
  const { api } = await running(t, new ChangingBundle([B, A], [key]));
  t.deepEqual(published(api), sorted(A, B));
  t.deepEqual(publishedKids(api), [key.kid]);
  t.deepEqual(Object.keys(data(api)).sort(), ['bundle.pem', 'bundle.spiffe']);
  t.like(objectAt(api.objects.get(CONFIG_MAP) ?? {}, 'metadata'), { name: 'signet-bundle', namespace: 'signet-system', annotations: ANNOTATED });
});

test('namespace, name and keys of the ConfigMap are the operator\'s choice', async (t) => {
  const { api } = await running(t, new ChangingBundle([A]), { configMap: { namespace: 'web', name: 'roots', pemKey: 'ca.crt', spiffeKey: 'td.json' } });
  const found = api.objects.get('/api/v1/namespaces/web/configmaps/roots') ?? {};
  t.deepEqual(Object.keys(objectAt(found, 'data')).sort(), ['ca.crt', 'td.json']);
  t.is(api.objects.get(CONFIG_MAP), undefined);
});

test('without a place nothing is asked of the cluster', async (t) => {
  const { publisher, api, clock } = publisherOf(t, new ChangingBundle([A]), { configMap: undefined });
  publisher.start();
  await pass(clock, 60_000);
  t.deepEqual(api.calls, []);
});

test('a restart writes nothing, and neither does another agent that takes over', async (t) => {
  const first = await running(t, new ChangingBundle([A, B]));
  await first.publisher.close();
  const { api } = first;
  t.is(api.writes.length, 1);
  for (const identity of ['pod-1', 'pod-2']) {
    const next = await running(t, new ChangingBundle([B, A]), { api, identity });
    await pass(next.clock, A_LOOK);
    await next.publisher.close();
  }
  t.is(api.writes.length, 1);
});

test('a change is written a moment later, and many in a moment are one write', async (t) => {
  const { api, clock, bundle } = await running(t, new ChangingBundle([A]));
  for (let round = 0; round < 20; round += 1) {
    bundle.set([A, B], [makeJwtKey()]);
    await turn();
  }
  const last = makeJwtKey();
  bundle.set([A, B, C], [last]);
  await pass(clock, 2_000);
  t.deepEqual(published(api), sorted(A, B, C));
  t.deepEqual(publishedKids(api), [last.kid]);
  t.is(api.writes.length, 2);
  await pass(clock, 3 * A_LOOK);
  t.is(api.writes.length, 2, 'nothing changes, nothing is written');
});

test('a change that comes while a write is under way is not lost', async (t) => {
  const { api, clock, bundle } = await running(t, new ChangingBundle([A]));
  api.beforeWrite = () => {
    api.beforeWrite = undefined;
    bundle.set([A, B, C]);
  };
  bundle.set([A, B]);
  await pass(clock, 5_000);
  t.deepEqual(published(api), sorted(A, B, C));
});

test('a bundle without a root is never published', async (t) => {
  const { api, clock, bundle, publisher, events } = await running(t, new ChangingBundle([], [makeJwtKey()]));
  await pass(clock, 200_000);
  t.deepEqual(api.writes, []);
  t.is(events('bundle.publish_failed').length, 1);
  t.regex([...publisher.failures.values()].join(), /has no root yet, and an empty one is not published/);
  bundle.set([A]);
  await pass(clock, 2_000);
  t.deepEqual(published(api), [A]);
  t.is(publisher.failures.size, 0);
  bundle.set([]);
  await pass(clock, A_LOOK);
  t.deepEqual(published(api), [A], 'what was published stays');
});

test('a new holder keeps the roots that it does not know for five minutes, and adds its own at once', async (t) => {
  const first = await running(t, new ChangingBundle([A, B]));
  await first.publisher.close();
  const { api } = first;
  const { clock, events } = await running(t, new ChangingBundle([A, C]), { api, identity: 'pod-2' });
  t.deepEqual(published(api), sorted(A, B, C));
  t.regex(textAt(events('bundle.published')[0] ?? {}, 'msg'), /1 of them published before, unknown to this agent and kept/);
  await pass(clock, FIVE_MINUTES - 20_000);
  t.deepEqual(published(api), sorted(A, B, C));
  await pass(clock, 30_000);
  t.deepEqual(published(api), sorted(A, C));
});

test('five minutes count from the last change of the own roots too: files of a CA reach the nodes one after the other', async (t) => {
  const first = await running(t, new ChangingBundle([A, B]));
  await first.publisher.close();
  const { api } = first;
  const { clock, bundle } = await running(t, new ChangingBundle([A]), { api, identity: 'pod-2' });
  await pass(clock, 240_000);
  bundle.set([A, C]);
  await pass(clock, 240_000);
  t.deepEqual(published(api), sorted(A, B, C));
  bundle.set([A, B, C]);
  await pass(clock, A_LOOK);
  t.deepEqual(published(api), sorted(A, B, C), 'the file has come');
});

test('an agent that has been up for long but never knew a root keeps it as well', async (t) => {
  const clock = new FakeClock();
  const api = new PublishApi();
  const second = publisherOf(t, new ChangingBundle([A]), { api, clock, identity: 'pod-2' });
  const first = await running(t, new ChangingBundle([A, B]), { api, clock });
  await pass(clock, 10 * FIVE_MINUTES);
  await first.publisher.close();
  second.publisher.start();
  await pass(clock, 20_000);
  t.true(second.publisher.isHolder);
  t.deepEqual(published(api), sorted(A, B));
});

test('what the holder has seen leave its own bundle goes at once, however new it is', async (t) => {
  const [old, key] = [makeJwtKey(), makeJwtKey()];
  const { api, clock, bundle } = await running(t, new ChangingBundle([A, B], [old, key]));
  bundle.set([A], [key]);
  await pass(clock, 2_000);
  t.deepEqual(published(api), [A]);
  t.deepEqual(publishedKids(api), [key.kid]);
});

test('a root that comes back to the own bundle is published again', async (t) => {
  const first = await running(t, new ChangingBundle([A, B]));
  const { api, clock, bundle } = first;
  bundle.set([A]);
  await pass(clock, 2_000);
  bundle.set([A, B]);
  await pass(clock, 2_000);
  t.deepEqual(published(api), sorted(A, B));
});

test('JWT keys of other nodes stay published until the new holder must have heard of them', async (t) => {
  const [own, theirs] = [makeJwtKey(), makeJwtKey()];
  const first = await running(t, new ChangingBundle([A], [own, theirs]));
  await first.publisher.close();
  const { api } = first;
  const { clock } = await running(t, new ChangingBundle([A], [own]), { api, identity: 'pod-2' });
  t.is(api.writes.length, 1, 'nothing to write yet');
  t.deepEqual(publishedKids(api), [own.kid, theirs.kid].sort());
  await pass(clock, FIVE_MINUTES + 10_000);
  t.deepEqual(publishedKids(api), [own.kid]);
});

test('a root that has ended is not kept', async (t) => {
  const clock = new FakeClock();
  const ended = await makeRoot(clock.now() - 86_400_000, clock.now() - 1_000);
  const first = await running(t, new ChangingBundle([A, ended]));
  await first.publisher.close();
  const { api } = first;
  await running(t, new ChangingBundle([A]), { api, identity: 'pod-2' });
  t.deepEqual(published(api), [A]);
});

test('what somebody else writes into it is put right, and a root that they add is not kept', async (t) => {
  const { api, clock, bundle } = await running(t, new ChangingBundle([A]));
  const before = api.objects.get(CONFIG_MAP) ?? {};
  const pem = textAt(data(api), 'bundle.pem');
  const foreign = await running(t, new ChangingBundle([C]));
  const added = `${pem}${textAt(data(foreign.api), 'bundle.pem')}`;
  t.deepEqual(rootsIn(added), [A, C]);
  api.put(CONFIG_MAP, { ...before, data: { ...data(api), 'bundle.pem': added } }, 'kubectl-edit');
  bundle.set([A], [makeJwtKey()]);
  await pass(clock, 2_000);
  t.is(textAt(data(api), 'bundle.pem'), pem, 'in the first minutes, too');
  api.put(CONFIG_MAP, { ...api.objects.get(CONFIG_MAP), data: { ...data(api), 'bundle.pem': added } }, 'kubectl-edit');
  await pass(clock, A_LOOK);
  t.is(textAt(data(api), 'bundle.pem'), pem, 'at the next look');
});

test('other keys and labels of the ConfigMap are left alone', async (t) => {
  const api = new PublishApi();
  api.put(CONFIG_MAP, { metadata: { labels: { team: 'web' } }, data: { note: 'mine' } }, 'kubectl');
  await running(t, new ChangingBundle([A]), { api });
  t.is(data(api)['note'], 'mine');
  t.deepEqual(published(api), [A]);
});

test('a ConfigMap that is deleted comes back at the next look', async (t) => {
  const { api, clock } = await running(t, new ChangingBundle([A]));
  api.objects.delete(CONFIG_MAP);
  await pass(clock, A_LOOK);
  t.deepEqual(published(api), [A]);
});

test('a bundle of another trust domain is not overwritten, and the operator learns why', async (t) => {
  const api = new PublishApi();
  api.put(CONFIG_MAP, { metadata: { annotations: { 'signet.dev/trust-domain': 'other.org' } }, data: { 'bundle.pem': 'theirs' } }, 'signet');
  const { clock, events, publisher } = await running(t, new ChangingBundle([A]), { api });
  await pass(clock, A_LOOK);
  t.is(data(api)['bundle.pem'], 'theirs');
  t.is(events('bundle.publish_failed').length, 1);
  t.regex(publisher.failures.get('ConfigMap signet-system/signet-bundle') ?? '', /has the bundle of other\.org, not of example\.org: delete it, or publish to another one/);
});

test('a key that another program has made is not taken over', async (t) => {
  const api = new PublishApi();
  api.put(CONFIG_MAP, { metadata: {}, data: { 'bundle.pem': 'theirs' } }, 'trust-manager');
  const { clock, publisher } = await running(t, new ChangingBundle([A]), { api });
  await pass(clock, 120_000);
  t.is(data(api)['bundle.pem'], 'theirs');
  t.true(api.writes.every(({ force }) => !force));
  t.regex([...publisher.failures.values()].join(), /trust-manager/);
});

test('a cluster without ClusterTrustBundle is asked again every ten minutes, silently', async (t) => {
  const api = new PublishApi();
  const { clock, bundle, logged } = await running(t, new ChangingBundle([A]), { api, clusterTrustBundle: true, configMap: undefined });
  const asked = (): number => api.calls.filter(({ path }) => path === BETA).length;
  t.is(asked(), 1);
  for (let round = 0; round < 5; round += 1) {
    bundle.set([A, ...(round % 2 === 0 ? [B] : [])]);
    await pass(clock, 20_000);
  }
  t.is(asked(), 1, 'not at each change');
  t.deepEqual(logged.filter(({ level }) => level !== 'info'), []);
  serveClusterBundles(api);
  await pass(clock, 1_400_000);
  const found = api.objects.get(`${BETA}/${CLUSTER_BUNDLE}`) ?? {};
  t.deepEqual(rootsIn(textAt(objectAt(found, 'spec'), 'trustBundle')), sorted(A, B));
});

for (const [name, version] of [['v1beta1', BETA], ['v1alpha1', ALPHA]] as const) {
  test(`a cluster with ClusterTrustBundle ${name} gets the roots under the trust domain's signer`, async (t) => {
    const api = new PublishApi();
    serveClusterBundles(api, version);
    const { clock } = await running(t, new ChangingBundle([B, A], [makeJwtKey()]), { api, clusterTrustBundle: true });
    const found = api.objects.get(`${version}/${CLUSTER_BUNDLE}`) ?? {};
    t.like(found, { apiVersion: `certificates.k8s.io/${name}`, kind: 'ClusterTrustBundle' });
    t.is(textAt(objectAt(found, 'metadata'), 'name'), 'signet.dev:example.org:bundle');
    t.is(textAt(objectAt(found, 'spec'), 'signerName'), 'signet.dev/example.org');
    t.deepEqual(rootsIn(textAt(objectAt(found, 'spec'), 'trustBundle')), sorted(A, B));
    t.deepEqual(published(api), sorted(A, B));
    await pass(clock, A_LOOK);
    t.is(api.writes.length, 2);
  });
}

test('with both versions the newer one is used, and with another resource in the group only it is not', async (t) => {
  const api = new PublishApi();
  serveClusterBundles(api, ALPHA);
  api.put(BETA, { resources: [{ name: 'podcertificaterequests' }] });
  await running(t, new ChangingBundle([A]), { api, clusterTrustBundle: true });
  t.true(api.objects.has(`${ALPHA}/${CLUSTER_BUNDLE}`));
  const both = new PublishApi();
  serveClusterBundles(both, ALPHA);
  serveClusterBundles(both, BETA);
  await running(t, new ChangingBundle([A]), { api: both, clusterTrustBundle: true });
  t.true(both.objects.has(`${BETA}/${CLUSTER_BUNDLE}`));
  t.false(both.objects.has(`${ALPHA}/${CLUSTER_BUNDLE}`));
});

test('JWT keys do not touch the ClusterTrustBundle', async (t) => {
  const api = new PublishApi();
  serveClusterBundles(api);
  const { clock, bundle } = await running(t, new ChangingBundle([A]), { api, clusterTrustBundle: true });
  bundle.set([A], [makeJwtKey()]);
  await pass(clock, 5_000);
  t.deepEqual(api.writes.map(({ path }) => path.includes('configmaps')), [true, false, true]);
});

test('a trust domain that cannot name a signer fails there only, and says why', async (t) => {
  const api = new PublishApi();
  serveClusterBundles(api);
  const { publisher } = await running(t, new ChangingBundle([A], [], 'my_domain.test'), { api, clusterTrustBundle: true });
  t.deepEqual(published(api), [A]);
  t.regex(publisher.failures.get('ClusterTrustBundle signet.dev:my_domain.test:bundle') ?? '', /cannot be the name of a signer in Kubernetes/);
});

test('one place that fails does not hold up the other; each reason is said once, and the end of it', async (t) => {
  const api = new PublishApi();
  serveClusterBundles(api);
  api.refused.set(CONFIG_MAP, 403);
  const { clock, events, publisher } = await running(t, new ChangingBundle([A]), { api, clusterTrustBundle: true });
  t.true(api.objects.has(`${BETA}/${CLUSTER_BUNDLE}`));
  await pass(clock, 600_000);
  const asked = api.calls.filter(({ path }) => path === CONFIG_MAP).length;
  t.true(asked > 8 && asked < 30, `${asked} attempts in ten minutes`);
  t.is(events('bundle.publish_failed').length, 1);
  t.deepEqual([...publisher.failures.keys()], ['ConfigMap signet-system/signet-bundle']);
  api.refused.clear();
  await pass(clock, 61_000);
  t.deepEqual(published(api), [A]);
  t.is(events('bundle.publish_recovered').length, 1);
  t.is(publisher.failures.size, 0);
});

test('a change is tried at once even while an earlier failure waits', async (t) => {
  const api = new PublishApi();
  api.refused.set(CONFIG_MAP, 503);
  const { clock, bundle } = await running(t, new ChangingBundle([A]), { api });
  await pass(clock, 300_000);
  api.refused.clear();
  bundle.set([A, B]);
  await pass(clock, 2_000);
  t.deepEqual(published(api), sorted(A, B));
});

test('of two writers in one moment the later one sees what the earlier one wrote, and keeps it', async (t) => {
  const { api, clock, bundle } = await running(t, new ChangingBundle([A]));
  const theirs = (await running(t, new ChangingBundle([A, C]))).api.objects.get(CONFIG_MAP) ?? {};
  api.beforeWrite = async (path) => {
    api.beforeWrite = undefined;
    await api.apply(path, { metadata: { annotations: ANNOTATED }, data: objectAt(theirs, 'data') }, { fieldManager: 'signet', force: true });
  };
  bundle.set([A, B]);
  await pass(clock, 2_000);
  t.deepEqual(published(api), sorted(A, B, C));
});

test('one agent of two publishes; when it goes the other one does', async (t) => {
  const [api, clock] = [new PublishApi(), new FakeClock()];
  const first = await running(t, new ChangingBundle([A]), { api, clock });
  const second = publisherOf(t, new ChangingBundle([A]), { api, clock, identity: 'pod-2' });
  second.publisher.start();
  await pass(clock, 60_000);
  t.deepEqual([first.publisher.isHolder, second.publisher.isHolder], [true, false]);
  second.bundle.set([A, B]);
  await pass(clock, 10_000);
  t.deepEqual(published(api), [A], 'the second one is silent');
  await first.publisher.close();
  await pass(clock, 400_000);
  t.true(second.publisher.isHolder);
  t.deepEqual(published(api), sorted(A, B));
});

test('after the Lease is lost nothing is written, and closing leaves what is published', async (t) => {
  const { api, clock, bundle, publisher } = await running(t, new ChangingBundle([A]));
  await publisher.close();
  bundle.set([A, B]);
  await pass(clock, A_LOOK);
  await turn();
  t.false(publisher.isHolder);
  t.deepEqual(published(api), [A]);
});
