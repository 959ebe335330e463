import test, { type ExecutionContext } from 'ava';
import type { JsonObject } from '../../../src/kubernetes/json.ts';
import { createLog } from '../../../src/log.ts';
import { RuleStatusAggregator, type AggregatorOptions } from '../../../src/registration/status/aggregator.ts';
import type { RuleTally } from '../../../src/registration/status/tally.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { MemoryApi, pass, turn, type Call } from './memory-api.ts';
import { tally } from './tallies.ts';

const GROUP = '/apis/spire.spiffe.io/v1alpha1';
const REPORTS = '/apis/signet.dev/v1alpha1/nodereports';
const WEB = `${GROUP}/clusterspiffeids/web`;
const ENTRY = `${GROUP}/clusterstaticentries/entry`;

interface Scene {
  readonly api: MemoryApi;
  readonly clock: FakeClock;
  readonly logged: JsonObject[];
  own: readonly RuleTally[];
  stop(): Promise<void>;
}

function setUp(t: ExecutionContext, own: readonly RuleTally[], options: Partial<AggregatorOptions> = {}, api = new MemoryApi()): Scene {
  const clock = new FakeClock();
  const logged: JsonObject[] = [];
  const log = createLog('debug', { write: (line) => void logged.push(JSON.parse(line) as JsonObject) });
  const random = { bytes: (count: number) => Buffer.alloc(count), fraction: () => 0.5 };
  const term = new AbortController();
  const scene: Scene = { api, clock, logged, own, stop: async () => (term.abort(new Error('stopped')), run) };
  const isOurs = (): boolean => true;
  const aggregator = new RuleStatusAggregator({ client: api, nodeName: 'own-node', reporter: 'pod-1', own: () => scene.own, isOurs, clock, random, log, ...options });
  // Objects are put after this, as if they had been there before.
  const run = turn().then(() => aggregator.run(term.signal));
  t.teardown(() => scene.stop());
  return scene;
}

function putRule(api: MemoryApi, path: string, spec: JsonObject = { spiffeIDTemplate: 'one' }): string {
  return String((api.put(path, { ...api.objects.get(path), spec })['metadata'] as JsonObject)['uid']);
}

function report(api: MemoryApi, node: string, ...rules: RuleTally[]): void {
  api.put(`${REPORTS}/${node}`, { spec: { reporter: node, rules } });
}

const statusWrites = (api: MemoryApi): Call[] => api.calls.filter(({ verb }) => verb === 'applyStatus');
const events = (api: MemoryApi): Call[] => api.calls.filter(({ verb, path }) => verb === 'create' && path === '/apis/events.k8s.io/v1/namespaces/default/events');
const statsOf = (api: MemoryApi, path = WEB): unknown => (api.objects.get(path)?.['status'] as JsonObject | undefined)?.['stats'];

test('a rule gets the sum of all nodes, in one write to the version that was seen, and then none', async (t) => {
  const scene = setUp(t, []);
  const uid = putRule(scene.api, WEB);
  scene.own = [tally('web', { uid, podsSelected: 1 })];
  for (let node = 0; node < 50; node++) report(scene.api, `node-${node}`, tally('web', { uid, podsFailed: node === 0 ? 1 : 0 }));
  await pass(scene.clock, 15_000);
  t.deepEqual(statsOf(scene.api), { podsSelected: 101, podEntryRenderFailures: 1, entriesMasked: 0, entriesToSet: 100, entryFailures: 0 });
  await pass(scene.clock, 3_600_000);
  t.is(scene.api.writes.length, 1);
  const [write] = statusWrites(scene.api);
  t.is(write?.path, WEB);
  t.like(write?.object, { apiVersion: 'spire.spiffe.io/v1alpha1', kind: 'ClusterSPIFFEID', metadata: { name: 'web', resourceVersion: '1' } });
});

test('a change that concerns all nodes costs one write, once all have told', async (t) => {
  const scene = setUp(t, []);
  const uid = putRule(scene.api, WEB);
  scene.own = [tally('web', { uid })];
  for (let node = 0; node < 50; node++) report(scene.api, `node-${node}`, tally('web', { uid }));
  await pass(scene.clock, 60_000);
  t.is(scene.api.writes.length, 1);
  putRule(scene.api, WEB, { spiffeIDTemplate: 'two' });
  scene.own = [tally('web', { uid, generation: 2, podsSelected: 1 })];
  for (let node = 0; node < 50; node++) {
    await pass(scene.clock, 1_000);
    report(scene.api, `node-${node}`, tally('web', { uid, generation: 2, podsSelected: 1 }));
  }
  t.is(scene.api.writes.length, 1);
  await pass(scene.clock, 15_000);
  t.is(scene.api.writes.length, 2);
  t.like(statsOf(scene.api), { podsSelected: 51, entriesToSet: 51 });
});

test('a node that never tells of the new version is waited for a minute and a half', async (t) => {
  const scene = setUp(t, []);
  const uid = putRule(scene.api, WEB);
  scene.own = [tally('web', { uid })];
  report(scene.api, 'dead', tally('web', { uid }));
  await pass(scene.clock, 60_000);
  putRule(scene.api, WEB, { spiffeIDTemplate: 'two' });
  scene.own = [tally('web', { uid, generation: 2 })];
  await pass(scene.clock, 80_000);
  t.is(scene.api.writes.length, 1);
  await pass(scene.clock, 20_000);
  t.is(scene.api.writes.length, 2);
  t.like(statsOf(scene.api), { podsSelected: 2 });
});

test('a report that is gone with its Node no longer counts', async (t) => {
  const scene = setUp(t, []);
  const uid = putRule(scene.api, WEB);
  scene.own = [tally('web', { uid })];
  report(scene.api, 'gone', tally('web', { uid, podsSelected: 7 }));
  await pass(scene.clock, 60_000);
  t.like(statsOf(scene.api), { podsSelected: 9 });
  scene.api.remove(`${REPORTS}/gone`);
  await pass(scene.clock, 60_000);
  t.like(statsOf(scene.api), { podsSelected: 2 });
});

test('a new holder writes nothing when everything is right, and goes on when something changes', async (t) => {
  const first = setUp(t, []);
  const uid = putRule(first.api, WEB);
  first.own = [tally('web', { uid })];
  report(first.api, 'a', tally('web', { uid, podsFailed: 1, problem: 'pod a has no label "team"' }));
  await pass(first.clock, 60_000);
  await first.stop();
  t.is(statusWrites(first.api).length, 1);
  t.is(events(first.api).length, 1);
  const second = setUp(t, [tally('web', { uid })], {}, first.api);
  await pass(second.clock, 600_000);
  t.is(statusWrites(first.api).length, 1);
  t.is(first.api.objects.size, 3, 'the Event that is told again is the same one');
  report(first.api, 'a', tally('web', { uid, podsSelected: 5 }));
  await pass(second.clock, 60_000);
  t.like(statsOf(first.api), { podsSelected: 7, podEntryRenderFailures: 0 });
});

test('rules of others are not touched', async (t) => {
  const scene = setUp(t, [], { isOurs: ({ className }) => className === 'signet' });
  const uid = putRule(scene.api, WEB, { className: 'spire' });
  const ours = putRule(scene.api, `${GROUP}/clusterspiffeids/ours`, { className: 'signet' });
  scene.own = [tally('web', { uid, problem: 'x' }), tally('ours', { uid: ours })];
  await pass(scene.clock, 120_000);
  t.deepEqual(scene.api.writes.map(({ path }) => path), [`${GROUP}/clusterspiffeids/ours`]);
});

test('a rule that the own node has not evaluated is left as it is', async (t) => {
  const scene = setUp(t, []);
  const uid = putRule(scene.api, WEB);
  report(scene.api, 'a', tally('web', { uid }));
  await pass(scene.clock, 600_000);
  t.deepEqual(scene.api.writes, []);
  scene.own = [tally('web', { uid, podsSelected: 0 })];
  await pass(scene.clock, 20_000);
  t.like(statsOf(scene.api), { podsSelected: 2 });
});

test('without readable reports nothing is written: the sums would be those of one node', async (t) => {
  for (const code of [403, 404]) {
    const scene = setUp(t, []);
    scene.api.refused.set(REPORTS, code);
    const uid = putRule(scene.api, WEB);
    scene.own = [tally('web', { uid })];
    await pass(scene.clock, 300_000);
    t.deepEqual(scene.api.writes, []);
  }
});

test('namespaces are counted where the holder knows them', async (t) => {
  const scene = setUp(t, [], { namespacesSelected: () => 4 });
  const uid = putRule(scene.api, WEB);
  scene.own = [tally('web', { uid })];
  await pass(scene.clock, 60_000);
  t.like(statsOf(scene.api), { namespacesSelected: 4 });
});

test('a static entry is told to be rendered, masked and set', async (t) => {
  const scene = setUp(t, []);
  const uid = putRule(scene.api, ENTRY, { spiffeID: 'spiffe://example.org/a' });
  scene.own = [tally('entry', { kind: 'ClusterStaticEntry', uid, podsSelected: 0 })];
  await pass(scene.clock, 60_000);
  t.deepEqual(scene.api.objects.get(ENTRY)?.['status'], { rendered: true, masked: false, set: true });
});

test('a problem is told once as an Event of the rule, and once that it is over', async (t) => {
  const scene = setUp(t, []);
  const uid = putRule(scene.api, WEB);
  scene.own = [tally('web', { uid, podsSelected: 0, problem: 'spiffeIDTemplate: unknown field .Foo' })];
  await pass(scene.clock, 1_800_000);
  t.is(events(scene.api).length, 1);
  t.like(events(scene.api)[0]?.object, {
    apiVersion: 'events.k8s.io/v1',
    kind: 'Event',
    metadata: { namespace: 'default' },
    regarding: { apiVersion: 'spire.spiffe.io/v1alpha1', kind: 'ClusterSPIFFEID', name: 'web', uid },
    reportingController: 'signet.dev/agent',
    reportingInstance: 'pod-1',
    reason: 'RuleProblem',
    type: 'Warning',
    note: 'spiffeIDTemplate: unknown field .Foo',
  });
  scene.own = [tally('web', { uid, generation: 2 })];
  putRule(scene.api, WEB, { spiffeIDTemplate: 'two' });
  await pass(scene.clock, 1_800_000);
  t.deepEqual(events(scene.api).map(({ object }) => object['reason']), ['RuleProblem', 'RuleAccepted']);
});

test('a problem that lasts is told again after its Event is forgotten, and a text that changes all the time is not told each time', async (t) => {
  const scene = setUp(t, []);
  const uid = putRule(scene.api, WEB);
  scene.own = [tally('web', { uid, problem: 'lasting' })];
  await pass(scene.clock, 3 * 3_600_000);
  t.is(events(scene.api).length, 3);
  for (let pod = 0; pod < 120; pod++) {
    scene.own = [tally('web', { uid, problem: `pod web-${pod} has no label "team"` })];
    await pass(scene.clock, 15_000);
  }
  t.true(events(scene.api).length <= 3 + 6, `${events(scene.api).length} events`);
});

test('a status that another program writes too is contested ever more rarely, and said once', async (t) => {
  const scene = setUp(t, []);
  const uid = putRule(scene.api, WEB);
  scene.own = [tally('web', { uid })];
  for (let minute = 0; minute < 120; minute++) {
    await pass(scene.clock, 60_000);
    scene.api.put(WEB, { ...scene.api.objects.get(WEB), status: { stats: { podsSelected: 0 } } });
  }
  const count = statusWrites(scene.api).length;
  t.true(count >= 5 && count <= 10, `${count} writes`);
  t.is(scene.logged.filter(({ event }) => event === 'rule_status.contested').length, 1);
});

test('a refused write is said once and does not stop the others', async (t) => {
  const scene = setUp(t, []);
  const uid = putRule(scene.api, WEB);
  const entry = putRule(scene.api, ENTRY);
  scene.api.refused.set(`${WEB}`, 403);
  scene.own = [tally('web', { uid }), tally('entry', { kind: 'ClusterStaticEntry', uid: entry })];
  await pass(scene.clock, 600_000);
  t.true(statusWrites(scene.api).length <= 7);
  t.is(scene.logged.filter(({ event }) => event === 'rule_status.failed').length, 1);
  t.like(scene.api.objects.get(ENTRY), { status: { set: true } });
});

test('five hundred new rules are written at a bounded pace', async (t) => {
  const scene = setUp(t, []);
  const uids = Array.from({ length: 500 }, (_, i) => putRule(scene.api, `${GROUP}/clusterspiffeids/r${i}`));
  scene.own = uids.map((uid, i) => tally(`r${i}`, { uid }));
  await pass(scene.clock, 60_000);
  const atFirst = statusWrites(scene.api).length;
  t.true(atFirst <= 100, `${atFirst} writes in the first minute`);
  await pass(scene.clock, 600_000);
  t.is(statusWrites(scene.api).length, 500);
});

test('the end of the term ends all watches and timers at once', async (t) => {
  const scene = setUp(t, []);
  const uid = putRule(scene.api, WEB);
  scene.own = [tally('web', { uid })];
  await pass(scene.clock, 5_000);
  t.is(scene.api.watchesOf(REPORTS), 1);
  await scene.stop();
  t.is(scene.clock.pending, 0);
  await pass(scene.clock, 60_000);
  t.deepEqual(scene.api.writes, []);
});
