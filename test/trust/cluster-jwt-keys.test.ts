import test, { type ExecutionContext } from 'ava';
import { signNodeKeys, verifyNodeKeys } from '../../src/authority/node-key-set.ts';
import type { JsonObject } from '../../src/kubernetes/json.ts';
import { NODE_KEY_SETS } from '../../src/kubernetes/resources.ts';
import { instanceOf, keySetName } from '../../src/trust/key-set.ts';
import { MemoryApi, pass, turn } from '../registration/status/memory-api.ts';
import { testCa } from '../support/authorities.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { until } from '../support/kubernetes-api.ts';
import { DAY, exampleOrg, INSTANCE, jwtKey, keySet, nodeCa, NOW, signedSet, type OwnJwtKey } from '../support/node-key-sets.ts';
import { keySetObject, kidsOf, OwnBundle, pathOfSet, watcher, type Watcher } from './nodes.ts';

const HOUR = 3_600_000;
const root = await testCa();
const ca = await nodeCa(root);
const [one, two, three] = [await jwtKey(), await jwtKey(), await jwtKey()];

interface Setting {
  readonly api: MemoryApi;
  readonly clock: FakeClock;
  readonly own: OwnBundle;
  readonly watched: Watcher;
  put(keys: readonly OwnJwtKey[], node?: string): void;
}

/** A watcher that is synced with what `put` has put before. */
async function start(t: ExecutionContext, begin: (setting: Omit<Setting, 'watched'>) => void = () => undefined, more: Parameters<typeof watcher>[4] = {}): Promise<Setting> {
  const [api, clock, own] = [new MemoryApi(), new FakeClock(NOW), new OwnBundle([root])];
  const put = (keys: readonly OwnJwtKey[], node = 'node-a'): void => void api.put(pathOfSet(node), keySetObject(signedSet(ca, keySet(keys, { node, issuedAt: clock.now() })), node));
  begin({ api, clock, own, put });
  const watched = watcher(t, api, own, clock, more);
  watched.keys.start();
  await watched.keys.whenKnown();
  return { api, clock, own, watched, put };
}

/** Lets a change through that comes soon after another. */
async function settled(clock: FakeClock, isTrue: () => boolean, what: string): Promise<void> {
  await until(() => {
    clock.advance(10);
    return isTrue();
  }, what);
}

test('the keys of all believed sets are there, each once, in one order', async (t) => {
  const { watched, api } = await start(t, ({ put }) => {
    put([one, two], 'node-b');
    put([two, three], 'node-a');
  });
  t.deepEqual(watched.kids(), kidsOf(one, two, three));
  t.like(watched.keys.status, { synced: true, sets: 2, refused: 0, keys: 3, vanished: 0 });
  t.is(watched.keys.jwsOf(`node-b.${INSTANCE}`)?.split('.').length, 3);
  t.is(api.watchesOf(NODE_KEY_SETS.path), 1);
});

test('a new key is told once, and what changes nothing is not told', async (t) => {
  const { watched, put, clock } = await start(t, (setting) => setting.put([one]));
  let told = 0;
  watched.keys.onChange(() => (told += 1));
  const before = watched.keys.keys();
  put([one]);
  put([one], 'node-b');
  await settled(clock, () => watched.keys.status.sets === 2, 'the set of another node with the same key');
  t.is(told, 0);
  t.is(watched.keys.keys(), before);
  put([one, two]);
  await settled(clock, () => watched.kids().length === 2, 'the new key');
  t.is(told, 1);
});

test('a key that nobody publishes any more is kept for the longest life of a token, and no longer than its own', async (t) => {
  const short = await jwtKey(NOW + 2 * HOUR);
  const { watched, api, clock } = await start(t, ({ put }) => put([one, short]), { retentionMs: 3 * HOUR });
  api.remove(pathOfSet('node-a'));
  await settled(clock, () => watched.keys.status.vanished === 2, 'that the object is gone');
  t.deepEqual(watched.kids(), kidsOf(one, short));
  await pass(clock, 2 * HOUR);
  t.deepEqual(watched.kids(), [one.kid]);
  await pass(clock, HOUR + 60_000);
  t.deepEqual(watched.kids(), []);
});

test('a key that comes back in time was never away', async (t) => {
  const { watched, api, clock, put } = await start(t, (setting) => setting.put([one]), { retentionMs: HOUR });
  api.remove(pathOfSet('node-a'));
  await settled(clock, () => watched.keys.status.vanished === 1, 'that the object is gone');
  put([one], 'node-b');
  await settled(clock, () => watched.keys.status.vanished === 0, 'the object of another instance');
  await pass(clock, 2 * HOUR);
  t.deepEqual(watched.kids(), [one.kid]);
});

test('a set whose chain ends counts as gone from then on: its keys stay a while, and new ones are not taken', async (t) => {
  const early = await nodeCa(root, { to: NOW + HOUR });
  const { watched, api, clock } = await start(t, ({ api }) => void api.put(pathOfSet('node-a'), keySetObject(signedSet(early, keySet([one])))), { retentionMs: 2 * HOUR });
  t.deepEqual(watched.kids(), [one.kid]);
  await pass(clock, HOUR + 1_000);
  t.like(watched.keys.status, { sets: 0, refused: 1, vanished: 1 });
  api.put(pathOfSet('node-a'), keySetObject(signedSet(early, keySet([one, two]))));
  await pass(clock, HOUR);
  t.deepEqual(watched.kids(), [one.kid]);
  await pass(clock, HOUR + 60_000);
  t.deepEqual(watched.kids(), []);
});

test('a root that leaves the bundle takes the keys under it along at once, and one that comes brings them', async (t) => {
  const { watched, own, clock } = await start(t, ({ put }) => put([one]));
  own.become({ x509Authorities: [(await testCa()).certificate] });
  await settled(clock, () => watched.kids().length === 0, 'that nothing is believed any more');
  own.become({ x509Authorities: [root.certificate] });
  await settled(clock, () => watched.kids().length === 1, 'that the set is believed again');
  t.like(watched.keys.status, { sets: 1, refused: 0 });
});

test('what is not believed is as if it were not there, is counted, and is told once', async (t) => {
  const foreign = await testCa();
  const bad: readonly (readonly [string, unknown, RegExp])[] = [
    ['foreign', signedSet(await nodeCa(foreign), keySet([three], { node: 'foreign' })), /no root that is given verifies it/],
    ['expired', signedSet(await nodeCa(root, { to: NOW }), keySet([three], { node: 'expired' })), /it has expired/],
    ['leaf', signedSet(await nodeCa(root, { ca: false }), keySet([three], { node: 'leaf' })), /it is not a CA/],
    ['stolen', signedSet(ca, keySet([three], { node: 'node-a' })), /it is that of "node-a\./],
    ['copied', signedSet(ca, keySet([three], { node: 'copied', instance: 'ba9876543210' })), /it is that of "copied\.ba9876543210"/],
    ['huge', 'e'.repeat(16_385), /too large/],
    ['garbage', 'a.b.c', /./],
    ['number', 7, /no text/],
  ];
  const { watched, api, clock, put } = await start(t, (setting) => {
    setting.put([one]);
    for (const [node, jws] of bad) setting.api.put(pathOfSet(node), keySetObject(jws, node));
  });
  t.deepEqual(watched.kids(), [one.kid]);
  t.like(watched.keys.status, { sets: 1, refused: bad.length, keys: 1 });
  const refusals = (): JsonObject[] => watched.logged.filter(({ event }) => event === 'jwt_keys.refused');
  for (const [node, , message] of bad) {
    const [line, ...more] = refusals().filter(({ reason }) => String(reason).startsWith(`${node}.`));
    t.regex(String(line?.['reason']), message, node);
    t.true(String(line?.['reason']).length <= 300);
    t.deepEqual(more, []);
  }
  for (let round = 0; round < 3; round++) {
    for (const [node, jws] of bad) api.put(pathOfSet(node), keySetObject(`${String(jws)}${round}`, node));
    await pass(clock, 1_000);
  }
  t.is(refusals().length, bad.length);
  put([two], 'garbage');
  await settled(clock, () => watched.kids().length === 2, 'that the repaired one is believed');
});

test('objects whose name has no instance are not believed', async (t) => {
  const jws = signedSet(ca, keySet([one], { node: 'node', instance: 'a' }));
  const { watched } = await start(t, ({ api }) => void api.put(`${NODE_KEY_SETS.path}/node.a`, keySetObject(jws, 'node', 'a')));
  t.deepEqual(watched.kids(), []);
  t.is(keySetName('a', INSTANCE), `a.${INSTANCE}`);
  for (const instance of ['', 'a.b', '0123456789AB', '0123456789abc']) t.is(keySetName('a', instance), undefined, instance);
  t.is(keySetName('n'.repeat(241), INSTANCE), undefined);
  t.regex(instanceOf(exampleOrg, '/run/a'), /^[0-9a-f]{12}$/);
  t.not(instanceOf(exampleOrg, '/run/a'), instanceOf(exampleOrg, '/run/b'));
});

test('one node cannot fill the bundle, nor push out what others publish', async (t) => {
  const { watched, put, clock } = await start(t, (setting) => setting.put([one], 'node-b'));
  const all: OwnJwtKey[] = [];
  for (let round = 0; round < 10; round++) {
    const keys = await Promise.all(Array.from({ length: 8 }, () => jwtKey()));
    all.push(...keys);
    put(keys, 'node-a');
    await settled(clock, () => keys.every(({ kid }) => watched.kids().includes(kid)), `round ${round}`);
  }
  t.is(watched.kids().length, 33);
  t.true(watched.kids().includes(one.kid));
  for (const { kid } of all.slice(-8)) t.true(watched.kids().includes(kid));
});

test('nobody can end another node\'s key by publishing it too', async (t) => {
  const { watched, api, clock } = await start(t, ({ put }) => put([one], 'node-a'));
  api.put(pathOfSet('node-b'), keySetObject(signedSet(ca, keySet([{ ...one, notAfter: NOW + 60_000 }], { node: 'node-b' })), 'node-b'));
  await settled(clock, () => watched.keys.status.sets === 2, 'the second set');
  await pass(clock, HOUR);
  t.deepEqual(watched.kids(), [one.kid]);
});

test('a node can end its own key at once, and nobody else\'s', async (t) => {
  const { watched, put, clock } = await start(t, (setting) => (setting.put([one, two], 'node-a'), setting.put([three], 'node-b')));
  const ended = { ...one, notAfter: 0 };
  put([three, ended], 'node-b');
  await pass(clock, 1_000);
  t.deepEqual(watched.kids(), kidsOf(one, two, three));
  put([ended, two], 'node-a');
  await settled(clock, () => !watched.kids().includes(one.kid), 'that the key is gone');
  t.deepEqual(watched.kids(), kidsOf(two, three));
  put([{ ...two, notAfter: clock.now() + 60_000 }, three], 'node-a');
  await pass(clock, 61_000);
  t.deepEqual(watched.kids(), [three.kid]);
});

test('a key that was given up during a restart does not come back from memory', async (t) => {
  let text: string | undefined;
  const memory = { read: () => text, write: (next: string) => Promise.resolve(void (text = next)) };
  const { watched, put, api, clock } = await start(t, (setting) => setting.put([one, two]), { memory });
  await watched.keys.close();
  put([{ ...one, notAfter: 0 }, two]);
  const again = watcher(t, api, new OwnBundle([root]), clock, { memory });
  t.deepEqual(again.kids(), kidsOf(one, two));
  again.keys.start();
  await until(() => again.keys.status.synced && again.kids().length === 1, 'that the key is gone');
  t.deepEqual(again.kids(), [two.kid]);
});

test('after a restart without API server the keys are those from before, vanished ones too, each until its end', async (t) => {
  let text: string | undefined;
  const memory = { read: () => text, write: (next: string) => Promise.resolve(void (text = next)) };
  const { watched, api, clock } = await start(t, ({ put }) => (put([one], 'node-a'), put([two], 'node-b')), { memory, retentionMs: 2 * HOUR });
  api.remove(pathOfSet('node-b'));
  await settled(clock, () => watched.keys.status.vanished === 1, 'that an object is gone');
  await watched.keys.close();
  t.false(text?.includes('"d"') ?? true);

  api.refused.set(NODE_KEY_SETS.path, 503);
  const later = new FakeClock(clock.now() + HOUR);
  const again = watcher(t, api, new OwnBundle([root]), later, { memory, retentionMs: 2 * HOUR });
  again.keys.start();
  await again.keys.whenKnown();
  t.deepEqual(again.kids(), kidsOf(one, two));
  t.true(again.keys.keys().every(({ publicKey }) => publicKey.asymmetricKeyType === 'ec'));
  t.true(again.keys.wasKnownBefore(one.kid));
  t.false(again.keys.wasKnownBefore(three.kid));
  await pass(later, HOUR + 60_000);
  t.deepEqual(again.kids(), [one.kid]);
  t.like(again.keys.status, { synced: false, vanished: 0 });
  t.truthy(again.keys.status.failing);

  // The server is back, and the set of a is not there: from now on its key has vanished.
  api.refused.clear();
  api.remove(pathOfSet('node-a'));
  await pass(later, 60_000);
  t.like(again.keys.status, { synced: true, vanished: 1 });
  const foreign = watcher(t, api, new OwnBundle([await testCa()]), later, { memory });
  t.deepEqual(foreign.kids(), []);
});

test('a damaged memory is no memory', async (t) => {
  for (const text of ['', '{', '[]', '{"version":2}', '{"version":1,"roots":[],"keys":[{}]}', '{"version":1,"roots":["AA"],"keys":[{"kid":"a","jwk":{},"notAfter":9e15,"node":"n","root":0}]}']) {
    const { watched } = await start(t, ({ put }) => put([one]), { memory: { read: () => text, write: () => Promise.resolve() } });
    t.deepEqual(watched.kids(), [one.kid], text);
  }
});

test('a cluster without the definition has no sets, and that is known', async (t) => {
  const { watched } = await start(t, ({ api }) => void api.refused.set(NODE_KEY_SETS.path, 404));
  t.deepEqual(watched.kids(), []);
  t.true(watched.keys.status.synced);
});

test('two hundred sets at once are one change, and the event loop goes on meanwhile', async (t) => {
  const sets = await Promise.all(Array.from({ length: 200 }, async (_, index) => [`node-${index}`, await jwtKey(NOW + DAY + index * 1_000)] as const));
  let turns = 0;
  const counting = setInterval(() => (turns += 1), 1);
  t.teardown(() => clearInterval(counting));
  let verified = 0;
  const verify: typeof verifyNodeKeys = (...args) => {
    verified += 1;
    return verifyNodeKeys(...args);
  };
  const { watched } = await start(t, ({ put }) => sets.forEach(([node, key]) => put([key], node)), { verify });
  t.is(watched.kids().length, 200);
  t.is(verified, 200);
  t.true(turns > 5, String(turns));
});

test('a set that is signed by another node CA of the same node is taken without a gap', async (t) => {
  const { watched, api, clock } = await start(t, ({ put }) => put([one]));
  const next = await nodeCa(root, { to: NOW + 2 * DAY });
  api.put(pathOfSet('node-a'), keySetObject(signNodeKeys(next, [next.certificate], keySet([{ ...one, notAfter: NOW + 2 * DAY }]))));
  await settled(clock, () => watched.keys.status.sets === 1, 'the new set');
  await turn();
  await pass(clock, DAY + HOUR);
  t.deepEqual(watched.kids(), [one.kid]);
  t.like(watched.keys.status, { sets: 1, refused: 0, vanished: 0 });
});
