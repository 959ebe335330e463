import test, { type ExecutionContext } from 'ava';
import { verifyNodeKeys } from '../../src/authority/node-key-set.ts';
import { SystemClock } from '../../src/clock.ts';
import { KubernetesClient } from '../../src/kubernetes/api-client.ts';
import { objectAt, objectsAt, textAt } from '../../src/kubernetes/json.ts';
import { NODE_KEY_SETS } from '../../src/kubernetes/resources.ts';
import type { JwtKeyPublisherOptions } from '../../src/trust/jwt-key-publisher.ts';
import { pass, turn, type MemoryApi } from '../registration/status/memory-api.ts';
import { testCa } from '../support/authorities.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { answer, FakeApi, status, until, type Seen } from '../support/kubernetes-api.ts';
import { DAY, exampleOrg, INSTANCE, jwtKey, nodeCa, NOW } from '../support/node-key-sets.ts';
import { apiWithNode, keySetObject, kidsOf, nothingKnown, OwnBundle, OwnKeys, pathOfSet, publisherOf, watcher, type Published } from './nodes.ts';

const root = await testCa();
const [ca, nextCa] = [await nodeCa(root), await nodeCa(root, { to: NOW + 2 * DAY })];
const [one, two] = [await jwtKey(), await jwtKey(NOW + 2 * DAY)];
const PATH = pathOfSet('node-a');

interface Setting extends Published {
  readonly api: MemoryApi;
  readonly clock: FakeClock;
  readonly own: OwnKeys;
}

function setUp(t: ExecutionContext, more: Partial<JwtKeyPublisherOptions> = {}, own = new OwnKeys([one], ca)): Setting {
  const [api, clock] = [apiWithNode(), new FakeClock(NOW)];
  return { api, clock, own, ...publisherOf(t, own, clock, { client: api, known: nothingKnown, ...more }) };
}

function kidsIn(api: MemoryApi, now = NOW): string[] {
  return Object.keys(endsIn(api, now));
}

/** The end of each key that is published. */
function endsIn(api: MemoryApi, now: number): Record<string, number> {
  const jws = textAt(objectAt(api.objects.get(PATH) ?? {}, 'spec'), 'jws');
  const { keys } = verifyNodeKeys(jws, { roots: [root.certificate], trustDomain: exampleOrg }, now);
  return Object.fromEntries(keys.map(({ kid, notAfter }) => [kid, notAfter]));
}

/** Whether `promise` is settled once all that needs no time has happened. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  void promise.then(() => (settled = true));
  await turn();
  return settled;
}

test('the keys are written as one object of the node, which goes with the Node', async (t) => {
  const { api, publisher } = setUp(t, {}, new OwnKeys([one, two], ca));
  publisher.start();
  await turn();
  const object = api.objects.get(PATH) ?? {};
  t.is(publisher.name, `node-a.${INSTANCE}`);
  t.like(object, { apiVersion: 'signet.dev/v1alpha1', kind: 'NodeKeySet' });
  t.like(objectsAt(objectAt(object, 'metadata'), 'ownerReferences')[0], { apiVersion: 'v1', kind: 'Node', name: 'node-a', uid: 'node-uid' });
  t.like(objectAt(object, 'spec'), { node: 'node-a', instance: INSTANCE });
  t.deepEqual(kidsIn(api).sort(), kidsOf(one, two));
  t.like(publisher.status, { published: true, lastSuccess: NOW });
});

test('FED-03: a first key may sign two seconds after its write, and not before', async (t) => {
  const { publisher, clock } = setUp(t);
  const ready = publisher.ready(one.kid);
  publisher.start();
  await turn();
  clock.advance(1_999);
  t.false(await isSettled(ready));
  t.false(publisher.isPublished(one.kid));
  clock.advance(1);
  t.true(await isSettled(ready));
  t.true(publisher.isPublished(one.kid));
  t.true(await isSettled(publisher.ready(one.kid)));
});

test('at rest nothing is written; another key, another node CA and the end of a key are one write each', async (t) => {
  const { api, clock, own, publisher } = setUp(t);
  publisher.start();
  await pass(clock, 3_600_000);
  t.is(api.writes.length, 1);
  own.become([one]);
  await turn();
  t.is(api.writes.length, 1);
  own.become([one, two]);
  await turn();
  t.is(api.writes.length, 2);
  t.deepEqual(kidsIn(api, clock.now()), [one.kid, two.kid]);
  own.become([one, two], nextCa);
  await turn();
  t.is(api.writes.length, 3);
  await pass(clock, DAY);
  own.become([two]);
  await turn();
  t.is(api.writes.length, 4);
  t.deepEqual(endsIn(api, clock.now()), { [two.kid]: two.notAfter });
});

test('a key that is given up before its end is told as ended, until its end', async (t) => {
  const { api, clock, own, publisher } = setUp(t, {}, new OwnKeys([one, two], nextCa));
  publisher.start();
  await turn();
  own.become([{ ...one, notAfter: NOW + 60_000 }, two]);
  await turn();
  t.deepEqual(endsIn(api, clock.now()), { [one.kid]: NOW + 60_000, [two.kid]: two.notAfter });
  await pass(clock, 60_000);
  own.become([two]);
  await turn();
  t.deepEqual(endsIn(api, clock.now()), { [one.kid]: 0, [two.kid]: two.notAfter });
  t.is(api.writes.length, 3);
  await pass(clock, DAY + 60_000);
  t.deepEqual(endsIn(api, clock.now()), { [two.kid]: two.notAfter });
  t.is(api.writes.length, 4);
});

test('without a node CA nothing is written until there is one', async (t) => {
  const { api, clock, own, publisher } = setUp(t, {}, new OwnKeys([one], undefined));
  publisher.start();
  await pass(clock, 60_000);
  t.is(api.writes.length, 0);
  t.false(publisher.status.published);
  own.become([one], ca);
  await turn();
  t.is(api.writes.length, 1);
});

test('a first node CA that nobody has told of is found', async (t) => {
  const signer = new OwnKeys([one], ca).signer();
  let isThere = false;
  const own = { keys: () => [one], signer: () => (isThere ? signer : undefined), onChange: () => () => undefined };
  const [api, clock] = [apiWithNode(), new FakeClock(NOW)];
  const { publisher } = publisherOf(t, own, clock, { client: api, known: nothingKnown });
  publisher.start();
  await pass(clock, 10_000);
  t.is(api.writes.length, 0);
  isThere = true;
  await pass(clock, 2_000);
  t.is(api.writes.length, 1);
});

test('an API server that is away is asked again, and told of once; a key signs nevertheless after ten seconds', async (t) => {
  const { api, clock, publisher, logged } = setUp(t);
  api.refused.set(NODE_KEY_SETS.path, 503);
  publisher.start();
  const ready = publisher.ready(one.kid);
  await pass(clock, 9_000);
  t.false(await isSettled(ready));
  t.false(publisher.isReady(one.kid));
  await pass(clock, 1_000);
  t.true(await isSettled(ready));
  t.true(publisher.isReady(one.kid));
  t.false(publisher.isPublished(one.kid));
  t.like(publisher.status, { published: false, lastSuccess: undefined });
  t.regex(publisher.status.failing ?? '', /503/);
  t.is(logged.filter(({ event }) => event === 'jwt_keys.not_published').length, 1);
  api.refused.clear();
  await pass(clock, 6_000);
  t.true(publisher.status.published);
  t.is(publisher.status.failing, undefined);
  t.true(logged.some(({ event }) => event === 'jwt_keys.published'));
  t.true(publisher.isPublished(one.kid));
});

test('a cluster that refuses the write is asked once a minute', async (t) => {
  const { api, clock, publisher } = setUp(t);
  api.refused.set(NODE_KEY_SETS.path, 403);
  publisher.start();
  await pass(clock, 600_000);
  const count = api.calls.filter(({ verb }) => verb === 'apply').length;
  t.true(count >= 9 && count <= 11, String(count));
});

test('a key that the cluster knew before a restart may sign at once', (t) => {
  const { publisher } = setUp(t, { known: { ...nothingKnown, wasKnownBefore: (kid) => kid === one.kid } });
  t.true(publisher.isReady(one.kid));
  t.false(publisher.isReady(two.kid));
});

test('an object that somebody removes or changes is put right, but not without end', async (t) => {
  const [api, clock, own] = [apiWithNode(), new FakeClock(NOW), new OwnKeys([one], ca)];
  const { keys } = watcher(t, api, new OwnBundle([root]), clock);
  const { publisher } = publisherOf(t, own, clock, { client: api, known: keys });
  keys.start();
  publisher.start();
  await pass(clock, 10_000);
  t.is(api.writes.length, 1);
  api.remove(PATH);
  await pass(clock, 10_000);
  t.is(api.writes.length, 2);
  t.deepEqual(kidsIn(api), [one.kid]);
  for (let second = 0; second < 60; second++) {
    api.put(PATH, keySetObject(`a.b.${second}`));
    await pass(clock, 1_000);
  }
  await pass(clock, 10_000);
  t.deepEqual(kidsIn(api), [one.kid]);
  t.true(api.writes.length <= 2 + 14, String(api.writes.length));
  t.true(publisher.isPublished(one.kid));
});

test('after the Node was made anew the object belongs to the new one', async (t) => {
  const [api, clock] = [apiWithNode('old'), new FakeClock(NOW)];
  const { keys } = watcher(t, api, new OwnBundle([root]), clock);
  const { publisher } = publisherOf(t, new OwnKeys([one], ca), clock, { client: api, known: keys });
  keys.start();
  publisher.start();
  await pass(clock, 1_000);
  api.objects.set('/api/v1/nodes/node-a', { metadata: { name: 'node-a', uid: 'new' } });
  api.remove(PATH);
  await pass(clock, 10_000);
  t.is(textAt(objectsAt(objectAt(api.objects.get(PATH) ?? {}, 'metadata'), 'ownerReferences')[0] ?? {}, 'uid'), 'new');
});

test('on a machine that is no node of the cluster the object belongs to nobody', async (t) => {
  const { api, publisher } = setUp(t);
  api.objects.delete('/api/v1/nodes/node-a');
  publisher.start();
  await turn();
  t.is(objectAt(api.objects.get(PATH) ?? {}, 'metadata')['ownerReferences'], undefined);
  t.deepEqual(kidsIn(api), [one.kid]);
});

test('of more keys than are taken those are published that live longest', async (t) => {
  const keys = await Promise.all(Array.from({ length: 10 }, (_, index) => jwtKey(NOW + (index + 1) * 1_000)));
  const { api, publisher } = setUp(t, {}, new OwnKeys(keys, ca));
  publisher.start();
  await turn();
  t.deepEqual(kidsIn(api).sort(), kidsOf(...keys.slice(2)));
});

test('who waits when the publisher is closed waits no longer, and nothing is written after it', async (t) => {
  const { api, clock, own, publisher } = setUp(t);
  api.refused.set(NODE_KEY_SETS.path, 503);
  publisher.start();
  const ready = publisher.ready(one.kid);
  await turn();
  await publisher.close();
  t.true(await isSettled(ready));
  api.refused.clear();
  own.become([two]);
  await pass(clock, 60_000);
  t.is(api.objects.get(PATH), undefined);
});

test('a name that leaves no room is refused', (t) => {
  t.throws(() => setUp(t, { node: 'n'.repeat(241) }), { message: /a node's name has at most 240 bytes/ });
  t.throws(() => setUp(t, { instance: 'pod.1' }), { message: /is no name for an object/ });
});

test('over a real connection: cut answers, garbage and 429 are all outlived', async (t) => {
  const api = await FakeApi.start();
  const clock = new SystemClock();
  const client = new KubernetesClient({ credentials: api.credentials(), clock });
  t.teardown(async () => (client.close(), await api.stop()));
  const written: Seen[] = [];
  const isWrite = ({ method }: Seen): boolean => method === 'PATCH';
  const once = (reply: Parameters<typeof api.faults.push>[0]): void => void api.faults.push(reply);
  once(({ method }, response) => method === 'GET' && (answer(response, 200, { metadata: { uid: 'u' } }), true));
  once((seen, response) => isWrite(seen) && (response.destroy(), true));
  once((seen, response) => isWrite(seen) && (answer(response, 200, 'not json'), true));
  once((seen, response) => isWrite(seen) && (answer(response, 429, status(429, 'TooManyRequests', 'slow down'), { 'retry-after': '1' }), true));
  once((seen, response) => isWrite(seen) && (written.push(seen), answer(response, 200, JSON.parse(seen.body)), true));
  const keys = [await jwtKey(clock.now() + DAY)];
  const fresh = await nodeCa(await testCa({ from: clock.now() - DAY, to: clock.now() + DAY }), { from: clock.now() - DAY, to: clock.now() + DAY });
  const { publisher } = publisherOf(t, new OwnKeys(keys, fresh), clock, { client, known: nothingKnown });
  publisher.start();
  await until(() => publisher.status.published, 'that the keys are published');
  const [patch] = written;
  t.is(patch?.path, PATH);
  t.is(patch?.query.get('fieldManager'), 'signet-node-keys');
  t.is(patch?.query.get('force'), 'true');
});
