import test, { type ExecutionContext } from 'ava';
import { SystemClock } from '../../../src/clock.ts';
import { KubernetesClient } from '../../../src/kubernetes/api-client.ts';
import { objectAt, objectsAt, type JsonObject } from '../../../src/kubernetes/json.ts';
import { createLog } from '../../../src/log.ts';
import { NodeReporter, type NodeReporterOptions } from '../../../src/registration/status/node-reporter.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeApi, answer, status, until, type Fault } from '../../support/kubernetes-api.ts';
import { MemoryApi, pass } from './memory-api.ts';
import { tally } from './tallies.ts';

const PATH = '/apis/signet.dev/v1alpha1/nodereports/node-1';

interface Scene {
  readonly api: MemoryApi;
  readonly clock: FakeClock;
  readonly reporter: NodeReporter;
  readonly logged: JsonObject[];
}

function setUp(t: ExecutionContext, options: Partial<NodeReporterOptions> = {}, api = new MemoryApi(), clock = new FakeClock()): Scene {
  const logged: JsonObject[] = [];
  const log = createLog('debug', { write: (line) => void logged.push(JSON.parse(line) as JsonObject) });
  const random = { bytes: (count: number) => Buffer.alloc(count), fraction: () => 0 };
  const nodeUid = async (): Promise<string> => 'uid-of-node-1';
  const reporter = new NodeReporter({ client: api, nodeName: 'node-1', reporter: 'pod-1', nodeUid, clock, random, log, ...options });
  t.teardown(() => reporter.close());
  return { api, clock, reporter, logged };
}

function rulesIn(api: MemoryApi): readonly JsonObject[] {
  return objectsAt(objectAt(api.objects.get(PATH) ?? {}, 'spec'), 'rules');
}

test('a report is written after a quiet time, belongs to its Node, and is then left alone', async (t) => {
  const { api, clock, reporter } = setUp(t);
  reporter.set([tally('web')]);
  await pass(clock, 4_000);
  t.deepEqual(api.calls, []);
  await pass(clock, 1_000);
  t.deepEqual(api.calls.map(({ verb, path }) => `${verb} ${path}`), [`get ${PATH}`, `apply ${PATH}`]);
  t.like(api.objects.get(PATH), {
    apiVersion: 'signet.dev/v1alpha1',
    kind: 'NodeReport',
    metadata: { name: 'node-1', ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: 'node-1', uid: 'uid-of-node-1' }] },
    spec: { reporter: 'pod-1', rules: [tally('web')] },
  });
  for (let i = 0; i < 100; i++) {
    reporter.set([tally('web')]);
    await pass(clock, 10_000);
  }
  t.is(api.calls.length, 2);
});

test('a change soon after a write waits until the minute is over, and only its last state is written', async (t) => {
  const { api, clock, reporter } = setUp(t);
  reporter.set([tally('web')]);
  await pass(clock, 5_000);
  for (let pods = 3; pods < 43; pods++) {
    reporter.set([tally('web', { podsSelected: pods })]);
    await pass(clock, 1_000);
  }
  t.is(api.writes.length, 1);
  await pass(clock, 20_000);
  t.is(api.writes.length, 2);
  t.is(rulesIn(api)[0]?.['podsSelected'], 42);
});

test('without a quiet moment it is written once a minute all the same', async (t) => {
  const { api, clock, reporter } = setUp(t);
  for (let second = 0; second < 600; second++) {
    reporter.set([tally('web', { podsSelected: 1 + second })]);
    await pass(clock, 1_000);
  }
  t.is(api.writes.length, 10);
});

test('a change that is taken back before it was written costs nothing', async (t) => {
  const { api, clock, reporter } = setUp(t);
  reporter.set([tally('web')]);
  await pass(clock, 100_000);
  reporter.set([tally('web'), tally('db')]);
  await pass(clock, 2_000);
  reporter.set([tally('web')]);
  await pass(clock, 100_000);
  t.is(api.writes.length, 1);
});

test('after a restart the report is read, and not written when it is right', async (t) => {
  const first = setUp(t);
  first.reporter.set([tally('a', { problem: 'x'.repeat(400) }), tally('b')]);
  await pass(first.clock, 5_000);
  await first.reporter.close();
  const second = setUp(t, { reporter: 'pod-2' }, first.api);
  second.reporter.set([tally('b'), tally('a', { problem: 'x'.repeat(400) })]);
  await pass(second.clock, 1_000_000);
  t.is(first.api.writes.length, 1);
  t.is(first.api.calls.length, 3);
});

test('after a restart a report that is no longer right is written', async (t) => {
  const first = setUp(t);
  first.reporter.set([tally('a')]);
  await pass(first.clock, 5_000);
  await first.reporter.close();
  const second = setUp(t, {}, first.api);
  second.reporter.set([]);
  await pass(second.clock, 5_000);
  t.deepEqual(rulesIn(first.api), []);
  t.is(first.api.writes.length, 2);
});

test('a node on which no rule selects anything has no report', async (t) => {
  const { api, clock, reporter } = setUp(t);
  reporter.set([tally('a', { podsSelected: 0 })]);
  await pass(clock, 1_000_000);
  t.deepEqual(api.writes, []);
  t.is(api.calls.length, 1);
});

test('a report that somebody removed is back within about an hour', async (t) => {
  const { api, clock, reporter } = setUp(t);
  reporter.set([tally('a')]);
  await pass(clock, 5_000);
  api.remove(PATH);
  await pass(clock, 3_600_000);
  t.is(rulesIn(api).length, 1);
  t.is(api.writes.length, 2);
});

test('a report of an earlier Node with that name is written anew', async (t) => {
  let uid = 'first';
  const { api, clock, reporter } = setUp(t, { nodeUid: async () => uid });
  reporter.set([tally('a')]);
  await pass(clock, 5_000);
  uid = 'second';
  await pass(clock, 3_600_000);
  t.is(objectsAt(objectAt(api.objects.get(PATH) ?? {}, 'metadata'), 'ownerReferences')[0]?.['uid'], 'second');
});

test('without a Node, or without the right to read it, the report has no owner', async (t) => {
  for (const nodeUid of [async () => undefined, async () => Promise.reject(new Error('forbidden'))]) {
    const { api, clock, reporter } = setUp(t, { nodeUid });
    reporter.set([tally('a')]);
    await pass(clock, 5_000);
    t.is(rulesIn(api).length, 1);
    t.deepEqual(objectsAt(objectAt(api.objects.get(PATH) ?? {}, 'metadata'), 'ownerReferences'), []);
  }
});

test('a refused write is tried ever more rarely, said once, and made good', async (t) => {
  const { api, clock, reporter, logged } = setUp(t);
  api.refused.set(PATH, 403);
  reporter.set([tally('a')]);
  await pass(clock, 3_600_000);
  t.true(api.calls.length <= 9, `${api.calls.length} calls in an hour`);
  t.deepEqual(logged.map(({ event }) => event), ['node_report.failed']);
  api.refused.clear();
  await pass(clock, 900_000);
  t.is(rulesIn(api).length, 1);
  t.deepEqual(logged.map(({ event }) => event), ['node_report.failed', 'node_report.recovered']);
});

test('what changes while a write is under way is written afterwards', async (t) => {
  const { api, clock, reporter } = setUp(t);
  const gate = Promise.withResolvers<void>();
  api.gate = gate.promise;
  reporter.set([tally('a')]);
  await pass(clock, 6_000);
  reporter.set([tally('b')]);
  await pass(clock, 120_000);
  t.is(api.writes.length, 1);
  gate.resolve();
  await pass(clock, 60_000);
  t.is(rulesIn(api)[0]?.['name'], 'b');
  t.is(api.writes.length, 2);
});

test('more rules than a report has room for are said once', async (t) => {
  const { api, clock, reporter, logged } = setUp(t);
  for (const podsSelected of [1, 2, 3]) reporter.set(Array.from({ length: 520 }, (_, i) => tally(`r${i}`, { podsSelected })));
  await pass(clock, 5_000);
  t.is(rulesIn(api).length, 512);
  t.deepEqual(logged.map(({ event, count }) => [event, count]), [['node_report.cut', 8]]);
});

test('a closed reporter writes nothing any more', async (t) => {
  const { api, clock, reporter } = setUp(t);
  reporter.set([tally('a')]);
  await reporter.close();
  reporter.set([tally('b')]);
  await pass(clock, 100_000);
  t.deepEqual(api.calls, []);
  t.is(clock.pending, 0);
});

test('on the wire the report is one server-side apply under one field manager', async (t) => {
  const api = await FakeApi.start();
  const client = new KubernetesClient({ credentials: api.credentials(), clock: new SystemClock() });
  t.teardown(async () => {
    client.close();
    await api.stop();
  });
  const serve: Fault = (seen, response) => {
    api.faults.push(serve);
    if (seen.method === 'GET') return (answer(response, 404, status(404, 'NotFound', 'none')), true);
    return (answer(response, 201, JSON.parse(seen.body)), true);
  };
  api.faults.push(serve);
  const { clock, reporter } = setUp(t, { client });
  reporter.set([tally('web')]);
  clock.advance(5_000);
  await until(() => api.seen.length === 2, 'the write');
  const write = api.seen[1];
  t.is(`${write?.method} ${write?.path}?${write?.query}`, `PATCH ${PATH}?fieldManager=signet-node-report&force=true`);
  t.is(write?.headers['content-type'], 'application/apply-patch+yaml');
});
