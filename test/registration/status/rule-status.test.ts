import test, { type ExecutionContext } from 'ava';
import { createHash } from 'node:crypto';
import { objectAt, type JsonObject } from '../../../src/kubernetes/json.ts';
import { RuleStatus } from '../../../src/registration/status/rule-status.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { MemoryApi, pass } from './memory-api.ts';
import { tally } from './tallies.ts';

const WEB = '/apis/spire.spiffe.io/v1alpha1/clusterspiffeids/web';
const REPORTS = '/apis/signet.dev/v1alpha1/nodereports';
const LEASE = '/apis/coordination.k8s.io/v1/namespaces/signet-system/leases/signet-rule-status';

/** An agent on `node-<n>` with a randomness of its own that repeats. */
function agent(t: ExecutionContext, client: MemoryApi, clock: FakeClock, n: number): RuleStatus {
  let drawn = n * 1_000;
  const bytes = (count: number): Buffer => createHash('sha256').update(String((drawn += 1))).digest().subarray(0, count);
  const random = { bytes, fraction: () => bytes(4).readUInt32BE() / 2 ** 32 };
  const options = { client, nodeName: `node-${n}`, reporter: `pod-${n}`, namespace: 'signet-system', isOurs: () => true };
  const status = new RuleStatus({ ...options, clock, random });
  t.teardown(() => status.close());
  return status;
}

const podsSelected = (api: MemoryApi): unknown => objectAt(objectAt(api.objects.get(WEB) ?? {}, 'status'), 'stats')['podsSelected'];
const statusWrites = (api: MemoryApi): number => api.calls.filter(({ verb }) => verb === 'applyStatus').length;

test('of twenty agents one adds up, and its successor goes on without a write', async (t) => {
  const [api, clock] = [new MemoryApi(), new FakeClock()];
  const { metadata } = api.put(WEB, { spec: {} }) as { metadata: JsonObject };
  const uid = String(metadata['uid']);
  for (let n = 0; n < 20; n++) api.put(`/api/v1/nodes/node-${n}`, {});
  const agents = Array.from({ length: 20 }, (_, n) => agent(t, api, clock, n));
  for (const one of agents) {
    one.start();
    one.set([tally('web', { uid, podsSelected: 3 })]);
  }
  await pass(clock, 120_000);
  t.is(podsSelected(api), 60);
  t.is(statusWrites(api), 1);
  t.is(api.writes.filter(({ path }) => path.startsWith(REPORTS)).length, 20);
  t.is(api.watchesOf(REPORTS), 1, 'only the holder follows the reports');

  const first = agents.find(({ isHolder }) => isHolder);
  await first?.close();
  await pass(clock, 900_000);
  t.is(agents.filter(({ isHolder }) => isHolder).length, 1);
  t.false(first?.isHolder);
  t.is(objectAt(api.objects.get(LEASE) ?? {}, 'spec')['leaseTransitions'], 1);
  t.is(statusWrites(api), 1);
  t.is(podsSelected(api), 60);

  const [other] = agents.filter((one) => one !== first);
  other?.set([tally('web', { uid, podsSelected: 10 })]);
  await pass(clock, 120_000);
  t.is(podsSelected(api), 67);
  t.is(statusWrites(api), 2);
});

test('before it is told anything an agent writes no report, and as holder no status', async (t) => {
  const [api, clock] = [new MemoryApi(), new FakeClock()];
  api.put(WEB, { spec: {} });
  const one = agent(t, api, clock, 1);
  one.start();
  await pass(clock, 900_000);
  t.true(one.isHolder);
  t.deepEqual(api.writes, []);
});
