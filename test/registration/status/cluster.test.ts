/** Against the API server that SIGNET_TEST_KUBECONFIG leads to, in an API group and with objects of its own, which are removed. */
import test, { type ExecutionContext } from 'ava';
import { randomBytes, randomUUID } from 'node:crypto';
import { SystemClock } from '../../../src/clock.ts';
import { hasStatus } from '../../../src/kubernetes/api-error.ts';
import { objectAt, objectsAt, textAt, type JsonObject } from '../../../src/kubernetes/json.ts';
import { LeaseElection } from '../../../src/kubernetes/lease.ts';
import { LEASES, namespacedPathOf, pathOf, type Resource } from '../../../src/kubernetes/resources.ts';
import { RuleStatusAggregator } from '../../../src/registration/status/aggregator.ts';
import { NodeReporter } from '../../../src/registration/status/node-reporter.ts';
import type { RuleTally } from '../../../src/registration/status/tally.ts';
import { until } from '../../support/kubernetes-api.ts';
import { reachCluster, type Cluster } from '../../support/kubernetes-cluster.ts';
import { makeOwnKinds, type OwnKinds } from './cluster-crds.ts';
import { tally } from './tallies.ts';

const found = await reachCluster();
const clock = new SystemClock();
const random = { bytes: (count: number) => randomBytes(count), fraction: () => 0 };
const SUFFIX = randomBytes(4).toString('hex');
const RULE = `web-${SUFFIX}`;
const NAMESPACE = 'default';
const LEASE = `signet-status-${SUFFIX}`;
const NAMESPACED_EVENTS: Resource = { name: 'events', path: `/apis/events.k8s.io/v1/namespaces/${NAMESPACE}/events` };

if (typeof found === 'string') test.skip(`a real API server (${found})`, (t) => t.pass());
else {
  const kinds = await makeOwnKinds(found.client);
  test.after.always(async () => {
    await found.client.delete(namespacedPathOf(LEASES, NAMESPACE, LEASE)).catch(() => undefined);
    const names: string[] = [];
    const take = (raw: JsonObject): unknown => names.push(textAt(objectAt(raw, 'metadata'), 'name'));
    await found.client.list(NAMESPACED_EVENTS, {}, take).catch(() => undefined);
    for (const name of names.filter((one) => one.includes(SUFFIX))) await found.client.delete(`${NAMESPACED_EVENTS.path}/${name}`).catch(() => undefined);
    await kinds.remove();
    found.client.close();
  });
  define(found, kinds);
}

async function makeRule({ client }: Cluster, resource: Resource, kind: string, name: string): Promise<Pick<RuleTally, 'uid' | 'generation'>> {
  const apiVersion = resource.path.split('/').slice(2, 4).join('/');
  const made = await client.create(resource.path, { apiVersion, kind, metadata: { name }, spec: { spiffeIDTemplate: 'one' } });
  const metadata = objectAt(made, 'metadata');
  return { uid: textAt(metadata, 'uid'), generation: Number(metadata['generation']) };
}

function reporterOf(t: ExecutionContext, { client }: Cluster, kinds: OwnKinds, nodeName: string, nodeUid?: string): NodeReporter {
  const resource = kinds.resources.reports;
  const options = { client, nodeName, reporter: randomUUID(), nodeUid: async () => nodeUid, resource, quietMs: 10, intervalMs: 100 };
  const reporter = new NodeReporter({ ...options, clock, random });
  t.teardown(() => reporter.close());
  return reporter;
}

/** What is at `path` once `isWanted`. */
async function whenAt({ client }: Cluster, path: string, what: string, isWanted: (object: JsonObject) => boolean, boundMs = 30_000): Promise<JsonObject> {
  const end = performance.now() + boundMs;
  for (;;) {
    const object = await client.get(path).catch((error: unknown) => (hasStatus(error, 404) ? {} : Promise.reject(error as Error)));
    if (isWanted(object)) return object;
    if (performance.now() > end) throw new Error(`not within ${boundMs} ms: ${what}; there is ${JSON.stringify(object)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function define(cluster: Cluster, kinds: OwnKinds): void {
  const { client } = cluster;
  const { reports, spiffeIds, staticEntries } = kinds.resources;

  test.serial('reports of two nodes become the status of a rule, and a problem an Event of it', async (t) => {
    t.timeout(120_000);
    const [web, entry] = [await makeRule(cluster, spiffeIds, 'ClusterSPIFFEID', RULE), await makeRule(cluster, staticEntries, 'ClusterStaticEntry', RULE)];
    const problem = 'pod web-1 has no label "team"';
    const [one, two] = [reporterOf(t, cluster, kinds, `one-${SUFFIX}`), reporterOf(t, cluster, kinds, `two-${SUFFIX}`)];
    one.set([tally(RULE, { ...web, podsSelected: 3, podsFailed: 1, problem })]);
    two.set([tally(RULE, { ...web, podsSelected: 4, entriesMasked: 1 })]);
    const own = [tally(RULE, { ...web, podsSelected: 1 }), tally(RULE, { kind: 'ClusterStaticEntry', ...entry, podsSelected: 0 })];
    const isOurs = (): boolean => true;
    const limits = { quietMs: 500, latestMs: 5_000, intervalMs: 1_000 };
    const term = new AbortController();
    const aggregator = new RuleStatusAggregator({ client, nodeName: 'own', reporter: 'test', own: () => own, isOurs, clock, random, resources: kinds.resources, limits });
    const run = aggregator.run(term.signal);
    t.teardown(async () => (term.abort(new Error('the test has ended')), run));
    const statsOf = (rule: JsonObject): JsonObject => objectAt(objectAt(rule, 'status'), 'stats');
    const rule = await whenAt(cluster, pathOf(spiffeIds, RULE), 'the sum', (object) => statsOf(object)['podsSelected'] === 8);
    t.deepEqual(statsOf(rule), { podsSelected: 8, podEntryRenderFailures: 1, entriesMasked: 1, entriesToSet: 6, entryFailures: 0 });
    t.is(objectAt(rule, 'metadata')['generation'], 1, 'a status is no new version of the rule');
    const static_ = await whenAt(cluster, pathOf(staticEntries, RULE), 'the entry', (object) => objectAt(object, 'status')['set'] === true);
    t.deepEqual(static_['status'], { rendered: true, masked: false, set: true });
    const events: JsonObject[] = [];
    const end = performance.now() + 15_000;
    while (events.length === 0 && performance.now() < end) {
      await client.list(NAMESPACED_EVENTS, {}, (raw) => void (textAt(objectAt(raw, 'regarding'), 'uid') === web.uid && events.push(raw)));
    }
    t.like(events[0], { note: problem, reason: 'RuleProblem', type: 'Warning', regarding: { kind: 'ClusterSPIFFEID', name: RULE } });
    const version = textAt(objectAt(rule, 'metadata'), 'resourceVersion');
    two.set([]);
    const later = await whenAt(cluster, pathOf(spiffeIds, RULE), 'the new sum', (object) => statsOf(object)['podsSelected'] === 4);
    t.not(textAt(objectAt(later, 'metadata'), 'resourceVersion'), version);
    t.deepEqual(objectsAt(objectAt(await client.get(pathOf(reports, `two-${SUFFIX}`)), 'spec'), 'rules'), []);
  });

  test.serial('a status found for one rule is not written to its successor with the same name', async (t) => {
    const name = `again-${SUFFIX}`;
    const path = pathOf(spiffeIds, name);
    await makeRule(cluster, spiffeIds, 'ClusterSPIFFEID', name);
    const resourceVersion = textAt(objectAt(await client.get(path), 'metadata'), 'resourceVersion');
    await client.delete(path);
    await makeRule(cluster, spiffeIds, 'ClusterSPIFFEID', name);
    const apiVersion = `${kinds.group}/v1alpha1`;
    const object = { apiVersion, kind: 'ClusterSPIFFEID', metadata: { name, resourceVersion }, status: { stats: { podsSelected: 1 } } };
    const error = await t.throwsAsync(client.applyStatus(path, object, { fieldManager: 'signet-rule-status', force: true }));
    t.true(hasStatus(error, 409), error?.message);
  });

  test.serial('the report of a Node that is gone is removed by the cluster itself', async (t) => {
    t.timeout(200_000);
    const [name, uid] = [`gone-${SUFFIX}`, randomUUID()];
    const made: JsonObject[] = [];
    const watching = {
      get: (...args: Parameters<typeof client.get>) => client.get(...args),
      apply: async (...args: Parameters<typeof client.apply>) => (made.push(await client.apply(...args)), made.at(-1)),
    };
    reporterOf(t, { ...cluster, client: watching as unknown as typeof client }, kinds, name, uid).set([tally(RULE)]);
    await until(() => made.length > 0, 'the report');
    t.like(objectsAt(objectAt(made[0] ?? {}, 'metadata'), 'ownerReferences')[0], { kind: 'Node', name, uid });
    // The collector learns of a new kind within half a minute or so.
    await whenAt(cluster, pathOf(reports, name), 'its removal', (object) => object['metadata'] === undefined, 180_000);
    t.pass();
  });

  test.serial('a restarted agent leaves a right report as it is', async (t) => {
    const name = `right-${SUFFIX}`;
    reporterOf(t, cluster, kinds, name).set([tally(RULE), tally('other', { problem: 'é'.repeat(200) })]);
    const before = await whenAt(cluster, pathOf(reports, name), 'the report', (object) => object['metadata'] !== undefined);
    let reads = 0;
    let writes = 0;
    const counting = {
      get: (...args: Parameters<typeof client.get>) => client.get(...args).finally(() => (reads += 1)),
      apply: (...args: Parameters<typeof client.apply>) => ((writes += 1), client.apply(...args)),
    };
    const again = reporterOf(t, { ...cluster, client: counting as unknown as typeof client }, kinds, name);
    again.set([tally('other', { problem: 'é'.repeat(200) }), tally(RULE)]);
    await until(() => reads === 1, 'the reading');
    await again.close();
    t.is(writes, 0);
    t.is(textAt(objectAt(await client.get(pathOf(reports, name)), 'metadata'), 'resourceVersion'), textAt(objectAt(before, 'metadata'), 'resourceVersion'));
  });

  test.serial('of five candidates one holds the Lease at any time, also when holders go', async (t) => {
    t.timeout(120_000);
    let [holders, most] = [0, 0];
    const terms: string[] = [];
    const hold = async (name: string, signal: AbortSignal): Promise<void> => {
      terms.push(name);
      most = Math.max(most, (holders += 1));
      await new Promise<void>((resolve) => (signal.aborted ? resolve() : signal.addEventListener('abort', () => resolve(), { once: true })));
      holders -= 1;
    };
    const candidates = ['a', 'b', 'c', 'd', 'e'].map((name) => {
      const options = { client, namespace: NAMESPACE, name: LEASE, identity: name, clock, random, durationMs: 3_000, pollMs: 500 };
      return new LeaseElection({ ...options, hold: (signal) => hold(name, signal) });
    });
    t.teardown(() => Promise.all(candidates.map((one) => one.close())));
    for (const one of candidates) one.start();
    const left = new Set(candidates);
    for (let round = 1; round <= 3; round++) {
      await until(() => terms.length === round && holders === 1, `holder ${round}`, 30_000);
      const holder = [...left].find(({ isHolder }) => isHolder);
      if (holder !== undefined) left.delete(holder);
      await holder?.close();
    }
    await until(() => terms.length === 4 && holders === 1, 'the fourth holder', 30_000);
    t.is(most, 1);
    t.is(new Set(terms).size, 4);
    const spec = objectAt(await client.get(namespacedPathOf(LEASES, NAMESPACE, LEASE)), 'spec');
    t.is(spec['holderIdentity'], terms[3]);
    t.is(spec['leaseTransitions'], 3);
  });
}
