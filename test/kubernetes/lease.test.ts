import test, { type ExecutionContext } from 'ava';
import { LeaseElection, type LeaseElectionOptions } from '../../src/kubernetes/lease.ts';
import { KubernetesClient } from '../../src/kubernetes/api-client.ts';
import { SystemClock } from '../../src/clock.ts';
import { objectAt, type JsonObject } from '../../src/kubernetes/json.ts';
import { createLog } from '../../src/log.ts';
import { MemoryApi, pass, turn } from '../registration/status/memory-api.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FakeApi, answer, status, until, type Fault } from '../support/kubernetes-api.ts';

const PATH = '/apis/coordination.k8s.io/v1/namespaces/signet-system/leases/signet-rule-status';
const COLLECTION = PATH.slice(0, PATH.lastIndexOf('/'));

interface Candidate {
  readonly election: LeaseElection;
  readonly clock: FakeClock;
  /** How often the work began, and ended. */
  readonly work: { begun: number; ended: number; fail?: Error };
  readonly logged: JsonObject[];
}

function candidate(t: ExecutionContext, client: LeaseElectionOptions['client'], identity: string, clock = new FakeClock(), fraction = 0): Candidate {
  const work: Candidate['work'] = { begun: 0, ended: 0 };
  const logged: JsonObject[] = [];
  const hold = async (signal: AbortSignal): Promise<void> => {
    work.begun += 1;
    if (work.fail !== undefined) throw work.fail;
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    work.ended += 1;
  };
  const random = { bytes: (count: number) => Buffer.alloc(count), fraction: () => fraction };
  const log = createLog('debug', { write: (line) => void logged.push(JSON.parse(line) as JsonObject) });
  const election = new LeaseElection({ client, namespace: 'signet-system', name: 'signet-rule-status', identity, hold, clock, random, log });
  t.teardown(() => election.close());
  return { election, clock, work, logged };
}

async function started(one: Candidate): Promise<Candidate> {
  one.election.start();
  await pass(one.clock, 1_000);
  return one;
}

function specOf(api: MemoryApi): JsonObject {
  return objectAt(api.objects.get(PATH) ?? {}, 'spec');
}

const countOf = (api: MemoryApi, verb: string): number => api.calls.filter((call) => call.verb === verb).length;

test('the first candidate makes the Lease, renews it every 36 s, and a second one leaves it alone', async (t) => {
  const [api, clock] = [new MemoryApi(), new FakeClock()];
  const one = await started(candidate(t, api, 'one', clock));
  t.true(one.election.isHolder);
  t.is(one.work.begun, 1);
  t.like(specOf(api), { holderIdentity: 'one', leaseDurationSeconds: 120, leaseTransitions: 0, acquireTime: '2030-01-01T00:00:01.000000Z' });
  const two = await started(candidate(t, api, 'two', clock));
  await pass(clock, 600_000);
  t.true(one.election.isHolder);
  t.false(two.election.isHolder);
  t.is(two.work.begun, 0);
  t.is(countOf(api, 'apply'), 16);
  t.like(specOf(api), { holderIdentity: 'one', leaseTransitions: 0, acquireTime: '2030-01-01T00:00:01.000000Z' });
});

test('a candidate looks ever more rarely, down to once in five minutes', async (t) => {
  const [api, clock] = [new MemoryApi(), new FakeClock()];
  await started(candidate(t, api, 'one', clock));
  api.calls.length = 0;
  await started(candidate(t, api, 'two', clock, 0.5));
  await pass(clock, 1_000 * (7.5 + 15 + 30 + 60 + 120 + 240));
  t.is(countOf(api, 'get'), 6);
  await pass(clock, 300_000);
  t.is(countOf(api, 'get'), 7);
});

test('a Lease that is given back is taken at the next look, and counts one transition', async (t) => {
  const [api, clock] = [new MemoryApi(), new FakeClock()];
  const one = await started(candidate(t, api, 'one', clock));
  const two = await started(candidate(t, api, 'two', clock));
  await one.election.close();
  t.is(one.work.ended, 1);
  t.is(specOf(api)['holderIdentity'], undefined);
  await pass(clock, 150_000);
  t.true(two.election.isHolder);
  t.like(specOf(api), { holderIdentity: 'two', leaseTransitions: 1 });
});

test('a Lease that nobody renews is taken after its whole duration on the own clock, however far the clocks are apart', async (t) => {
  for (const skewMs of [-86_400_000, 0, 86_400_000]) {
    const api = new MemoryApi();
    const clock = new FakeClock();
    const renewTime = new Date(clock.now() + skewMs).toISOString().replace('Z', '000Z');
    api.put(PATH, { spec: { holderIdentity: 'dead', leaseDurationSeconds: 120, renewTime, leaseTransitions: 6 } });
    const two = await started(candidate(t, api, 'two', clock));
    await pass(clock, 119_000);
    t.false(two.election.isHolder, `too early with a skew of ${skewMs} ms`);
    await pass(clock, 300_000);
    t.true(two.election.isHolder, `not taken with a skew of ${skewMs} ms`);
    t.is(specOf(api)['leaseTransitions'], 7);
    await two.election.close();
  }
});

test('a holder with a clock far behind keeps its Lease as long as it renews it', async (t) => {
  const api = new MemoryApi();
  const one = await started(candidate(t, api, 'one', new FakeClock(Date.UTC(2020, 0, 1))));
  const two = await started(candidate(t, api, 'two', new FakeClock(Date.UTC(2030, 0, 1))));
  for (let seconds = 0; seconds < 1_200; seconds++) {
    await pass(one.clock, 1_000);
    await pass(two.clock, 1_000);
  }
  t.true(one.election.isHolder);
  t.is(two.work.begun, 0);
});

test('a holder that cannot renew stops before anyone may take the Lease', async (t) => {
  const api = new MemoryApi();
  const clock = new FakeClock();
  const one = await started(candidate(t, api, 'one', clock));
  api.refused.set(COLLECTION, 503);
  await pass(clock, 78_000);
  t.true(one.election.isHolder);
  await pass(clock, 2_000);
  t.false(one.election.isHolder);
  t.is(one.work.ended, 1);
  t.is(one.logged.filter(({ event }) => event === 'lease.failed').length, 1);
  api.refused.clear();
  await pass(clock, 60_000);
  t.true(one.election.isHolder, 'its own Lease it takes again at the next look');
  t.is(one.work.begun, 2);
});

test('a machine that has slept holds nothing any more, although its monotonic clock stood still', async (t) => {
  const api = new MemoryApi();
  const one = await started(candidate(t, api, 'one'));
  one.clock.step(81_000);
  await turn();
  t.false(one.election.isHolder);
  t.is(one.work.ended, 1);
});

test('a wall clock that is set back does not make a term longer', async (t) => {
  const api = new MemoryApi();
  const one = await started(candidate(t, api, 'one'));
  one.clock.step(-3_600_000);
  api.refused.set(COLLECTION, 503);
  await pass(one.clock, 80_000);
  t.false(one.election.isHolder);
});

test('a holder whose Lease another has taken stops at its next renewal, and does not touch it', async (t) => {
  const [api, clock] = [new MemoryApi(), new FakeClock()];
  const one = await started(candidate(t, api, 'one', clock));
  api.put(PATH, { spec: { ...specOf(api), holderIdentity: 'other' } });
  await pass(clock, 37_000);
  t.false(one.election.isHolder);
  t.is(one.work.ended, 1);
  t.is(specOf(api)['holderIdentity'], 'other');
});

test('a holder goes on when somebody only annotated its Lease', async (t) => {
  const [api, clock] = [new MemoryApi(), new FakeClock()];
  const one = await started(candidate(t, api, 'one', clock));
  api.put(PATH, { ...api.objects.get(PATH), metadata: { annotations: { by: 'hand' } } });
  await pass(clock, 300_000);
  t.true(one.election.isHolder);
  t.is(one.work.begun, 1);
});

test('of two candidates that find it free, one takes it', async (t) => {
  const [api, clock] = [new MemoryApi(), new FakeClock()];
  const gate = Promise.withResolvers<void>();
  api.gate = gate.promise;
  const both = [await started(candidate(t, api, 'one', clock)), await started(candidate(t, api, 'two', clock))];
  t.is(countOf(api, 'create'), 2);
  gate.resolve();
  await turn();
  t.is(both.filter(({ election }) => election.isHolder).length, 1);
});

test('work that fails gives the Lease back', async (t) => {
  const [api, clock] = [new MemoryApi(), new FakeClock()];
  const one = candidate(t, api, 'one', clock);
  one.work.fail = new Error('no work today');
  await started(one);
  t.false(one.election.isHolder);
  t.is(specOf(api)['holderIdentity'], undefined);
  t.true(one.logged.some(({ reason }) => reason === 'no work today'));
});

test('a candidate that may not read Leases says so once and asks ever more rarely', async (t) => {
  const [api, clock] = [new MemoryApi(), new FakeClock()];
  api.refused.set(COLLECTION, 403);
  const one = await started(candidate(t, api, 'one', clock, 0.5));
  await pass(clock, 1_800_000);
  t.is(one.logged.length, 1);
  t.true(countOf(api, 'get') <= 11, `${countOf(api, 'get')} times`);
});

test('closing before the first look asks nothing', async (t) => {
  const api = new MemoryApi();
  const one = candidate(t, api, 'one', new FakeClock(), 0.5);
  one.election.start();
  await one.election.close();
  t.deepEqual(api.calls, []);
});

test('on the wire a Lease is made by POST, and renewed with the version that was seen', async (t) => {
  const api = await FakeApi.start();
  const client = new KubernetesClient({ credentials: api.credentials(), clock: new SystemClock() });
  t.teardown(async () => {
    client.close();
    await api.stop();
  });
  let version = 7;
  const metadata = (): JsonObject => ({ name: 'signet-rule-status', uid: 'u1', resourceVersion: String((version += 1)) });
  const serve: Fault = (seen, response) => {
    api.faults.push(serve);
    if (seen.method === 'GET') return (answer(response, 404, status(404, 'NotFound', 'none')), true);
    return (answer(response, 200, { ...(JSON.parse(seen.body) as JsonObject), metadata: metadata() }), true);
  };
  api.faults.push(serve);
  const clock = new FakeClock();
  const one = candidate(t, client, 'one', clock);
  one.election.start();
  await until(() => clock.pending === 1, 'the wait before the first look');
  clock.advance(1);
  await until(() => one.election.isHolder, 'the Lease');
  clock.advance(40_000);
  await until(() => api.seen.length === 3, 'the renewal');
  const [, made, renewed] = api.seen;
  t.is(`${made?.method} ${made?.path}`, `POST ${COLLECTION}`);
  t.like(JSON.parse(made?.body ?? ''), { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name: 'signet-rule-status' } });
  t.is(`${renewed?.method} ${renewed?.path}`, `PATCH ${PATH}`);
  t.is(renewed?.headers['content-type'], 'application/apply-patch+yaml');
  t.is(renewed?.query.get('fieldManager'), 'signet-lease');
  t.like(JSON.parse(renewed?.body ?? ''), { metadata: { uid: 'u1', resourceVersion: '8' }, spec: { holderIdentity: 'one', renewTime: '2030-01-01T00:00:40.001000Z' } });
  await one.election.close();
  t.is(api.seen.length, 4);
  t.false('holderIdentity' in objectAt(JSON.parse(api.seen[3]?.body ?? '') as JsonObject, 'spec'));
});
