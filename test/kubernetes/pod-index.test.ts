import test, { type ExecutionContext } from 'ava';
import { KubernetesError } from '../../src/kubernetes/api-error.ts';
import { PodIndex, type PodIndexOptions, type PodSource } from '../../src/kubernetes/pod-index.ts';
import { PodLookup } from '../../src/kubernetes/pod-lookup.ts';
import { podTrim, type Pod } from '../../src/kubernetes/pod.ts';
import type { ChangeKind, ChangeListener } from '../../src/kubernetes/store.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { CONTAINER_ID, HASH, POD_UID, rawMirror, rawPod, running, type PodShape } from '../support/kubernetes-pods.ts';

const trim = podTrim();

function pod(shape: PodShape = {}): Pod {
  return trim(rawPod(shape)) as Pod;
}

function mirror(name: string, uid: string): Pod {
  return trim(rawMirror(name, uid)) as Pod;
}

/** A source that tells what a test says. */
class HandSource implements PodSource {
  synced = true;
  lastContact: number | undefined = 0;
  failure: string | undefined = undefined;
  nudges = 0;
  readonly first: Pod[] = [];
  #listener: ChangeListener<Pod> | undefined;

  items(): Iterable<Pod> {
    return this.first;
  }

  onChange(listener: ChangeListener<Pod>): () => void {
    this.#listener = listener;
    return () => void (this.#listener = undefined);
  }

  nudge(): void {
    this.nudges += 1;
  }

  tell(kind: ChangeKind, item: Pod): void {
    this.#listener?.(kind, item, undefined);
  }
}

interface Scene {
  readonly source: HandSource;
  readonly clock: FakeClock;
  readonly index: PodIndex;
  readonly heard: string[];
}

function setUp(t: ExecutionContext, options: Partial<PodIndexOptions> = {}): Scene {
  const source = new HandSource();
  const clock = new FakeClock();
  const index = new PodIndex({ source, clock, ...options });
  const heard: string[] = [];
  index.onChange((change, { name }) => heard.push(`${change} ${name}`));
  t.teardown(() => index.close());
  return { source, clock, index, heard };
}

/** Lets promises that are settled run their continuations. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a pod is found by its UID, those there before the index too', (t) => {
  const source = new HandSource();
  source.first.push(pod());
  const index = new PodIndex({ source, clock: new FakeClock() });
  t.is(index.find(POD_UID)?.name, 'web-1');
  t.is(index.find('another'), undefined);
  t.is(index.size, 1);
  index.close();
});

test('whoever waits is answered by the event, at once and without a timer left', async (t) => {
  const { source, clock, index } = setUp(t, { lookup: () => Promise.reject(new Error('must not be asked')) });
  const waiting = [index.waitFor(POD_UID, 5_000), index.waitFor(POD_UID, 5_000)];
  t.is(clock.pending, 2);
  source.tell('added', pod({ uid: 'other', name: 'other' }));
  t.is(clock.pending, 2);
  source.tell('added', pod());
  t.deepEqual((await Promise.all(waiting)).map((found) => found?.name), ['web-1', 'web-1']);
  t.is(clock.pending, 0);
  t.is((await index.waitFor(POD_UID, 5_000))?.name, 'web-1');
});

test('after the bound the lookup is asked once, and its pod is known from then on', async (t) => {
  let asked = 0;
  const { source, clock, index, heard } = setUp(t, { lookup: async () => ((asked += 1), [pod({ uid: 'other', name: 'other' }), pod()]) });
  const waiting = index.waitFor(POD_UID, 5_000);
  clock.advance(4_999);
  t.is(asked, 0);
  clock.advance(1);
  t.is((await waiting)?.name, 'web-1');
  t.is(asked, 1);
  t.is(index.find(POD_UID)?.name, 'web-1');
  t.is(index.unlisted, 1);
  t.is(source.nudges, 1, 'whoever follows may be waiting although the server answers');
  source.tell('added', pod());
  t.is(index.unlisted, 0);
  t.deepEqual(heard, ['added web-1', 'changed web-1']);
});

test('a pod that the lookup does not know either is not there', async (t) => {
  const { clock, index } = setUp(t, { lookup: async () => [] });
  const waiting = index.waitFor(POD_UID, 5_000);
  clock.advance(5_000);
  t.is(await waiting, undefined);
});

test('without a lookup, not found is an answer only of a complete list', async (t) => {
  const { source, clock, index } = setUp(t);
  const sure = index.waitFor(POD_UID, 5_000);
  clock.advance(5_000);
  t.is(await sure, undefined);
  source.synced = false;
  const unsure = t.throwsAsync(index.waitFor(POD_UID, 5_000), { instanceOf: KubernetesError });
  clock.advance(5_000);
  t.like(await unsure, { code: 'unavailable', message: `pod ${POD_UID} is not known, but the list of this node's pods is not complete yet` });
});

test('a lookup that fails, or takes too long, is no answer', async (t) => {
  const failed = new KubernetesError('unavailable', 'connection refused');
  const one = setUp(t, { lookup: () => Promise.reject(failed) });
  const failing = t.throwsAsync(one.index.waitFor(POD_UID, 5_000), { is: failed });
  one.clock.advance(5_000);
  await failing;
  const other = setUp(t, { lookup: () => new Promise(() => undefined), lookupMs: 2_000 });
  const slow = t.throwsAsync(other.index.waitFor(POD_UID, 5_000), { instanceOf: KubernetesError });
  other.clock.advance(5_000);
  await settle();
  other.clock.advance(2_000);
  t.like(await slow, { code: 'timed_out', message: 'the pods of this node were not told within 2000 ms' });
  t.is(other.clock.pending, 0);
});

test('what the source tells while the lookup is asked counts, even when the lookup fails', async (t) => {
  let fail: (error: Error) => void = () => undefined;
  const { source, clock, index } = setUp(t, { lookup: () => new Promise((_resolve, reject) => (fail = reject)) });
  const waiting = index.waitFor(POD_UID, 5_000);
  clock.advance(5_000);
  await settle();
  source.tell('added', pod());
  fail(new Error('late'));
  t.is((await waiting)?.name, 'web-1');
});

test('the signal ends the wait, and closing the index ends all', async (t) => {
  const { clock, index } = setUp(t);
  const reason = new Error('the caller has gone');
  const stop = new AbortController();
  const one = t.throwsAsync(index.waitFor(POD_UID, 5_000, stop.signal), { is: reason });
  const other = t.throwsAsync(index.waitFor(POD_UID, 5_000), { message: 'the pod index was closed' });
  await t.throwsAsync(index.waitFor(POD_UID, 5_000, AbortSignal.abort(reason)), { is: reason });
  stop.abort(reason);
  await one;
  index.close();
  await other;
  t.is(clock.pending, 0);
});

test('a container is waited for until a status names it', async (t) => {
  const { source, index } = setUp(t);
  source.tell('added', pod());
  const waiting = index.waitForContainer(POD_UID, CONTAINER_ID, 5_000);
  source.tell('changed', pod({ labels: { a: 'b' } }));
  source.tell('changed', pod({ status: running('0'.repeat(64)) }));
  source.tell('changed', pod({ status: running() }));
  const found = await waiting;
  t.is(found?.container?.name, 'main');
  t.is(found?.pod.uid, POD_UID);
});

test('the lookup may know a container before the source does; the pod is returned without it when nobody does', async (t) => {
  const fresh = setUp(t, { lookup: async () => [pod({ status: running() })] });
  fresh.source.tell('added', pod());
  const known = fresh.index.waitForContainer(POD_UID, CONTAINER_ID, 5_000);
  fresh.clock.advance(5_000);
  t.is((await known)?.container?.name, 'main');
  for (const lookup of [async () => [pod()], () => Promise.reject(new Error('down'))]) {
    const stale = setUp(t, { lookup });
    stale.source.tell('added', pod());
    const unknown = stale.index.waitForContainer(POD_UID, CONTAINER_ID, 5_000);
    stale.clock.advance(5_000);
    const found = await unknown;
    t.is(found?.pod.uid, POD_UID);
    t.is(found?.container, undefined);
  }
});

test('a static pod is found by the hash of its mirror, and waited for by it', async (t) => {
  const { source, index } = setUp(t);
  const waiting = index.waitFor(HASH, 5_000);
  source.tell('added', mirror('etcd-node-1', 'm-1'));
  t.is((await waiting)?.uid, 'm-1');
  t.is(index.find(HASH)?.uid, 'm-1');
  t.is(index.find('m-1')?.uid, 'm-1');
});

test('two claimants of one hash: both are refused and it is counted, until one is left', async (t) => {
  const conflicts: string[] = [];
  const lookup = (): Promise<never> => Promise.reject(new Error('must not be asked'));
  const { source, clock, index } = setUp(t, { lookup, onConflict: (hash, claimants) => conflicts.push(`${hash} ${claimants.map(({ name }) => name)}`) });
  source.tell('added', mirror('etcd-node-1', 'm-1'));
  source.tell('added', mirror('forged', 'm-2'));
  t.is(index.find(HASH), undefined);
  t.is(index.conflicts, 1);
  t.deepEqual(conflicts, [`${HASH} etcd-node-1,forged`]);
  const waiting = index.waitFor(HASH, 5_000);
  clock.advance(5_000);
  t.is(await waiting, undefined);
  const later = index.waitFor(HASH, 5_000);
  source.tell('removed', mirror('forged', 'm-2'));
  source.tell('changed', mirror('etcd-node-1', 'm-1'));
  t.is((await later)?.uid, 'm-1');
});

test('two claimants in the lookup\'s answer are refused as well', async (t) => {
  const { clock, index } = setUp(t, { lookup: async () => [mirror('a', 'm-1'), mirror('b', 'm-2')] });
  const waiting = index.waitFor(HASH, 5_000);
  clock.advance(5_000);
  t.is(await waiting, undefined);
  t.is(index.conflicts, 1);
});

test('a mirror that the kubelet has made anew is no conflict with its predecessor', (t) => {
  const { source, index } = setUp(t);
  source.tell('added', mirror('etcd-node-1', 'm-1'));
  source.tell('removed', mirror('etcd-node-1', 'm-1'));
  t.is(index.find(HASH)?.uid, 'm-1');
  source.tell('added', mirror('etcd-node-1', 'm-2'));
  t.is(index.find(HASH)?.uid, 'm-2');
  t.is(index.conflicts, 0);
});

test('two departed claimants of one hash are nobody\'s either', (t) => {
  const { source, index } = setUp(t);
  for (const uid of ['m-1', 'm-2']) {
    source.tell('added', mirror(uid, uid));
    source.tell('removed', mirror(uid, uid));
  }
  t.is(index.find(HASH), undefined);
  t.is(index.find('m-1')?.uid, 'm-1');
});

test('a mirror pod that loses its annotations loses its claim', (t) => {
  const { source, index } = setUp(t);
  source.tell('added', mirror('etcd-node-1', 'm-1'));
  source.tell('changed', pod({ uid: 'm-1', name: 'etcd-node-1' }));
  t.is(index.find(HASH), undefined);
});

test('a pod that is gone from the API stays known until it is released', (t) => {
  const { source, clock, index, heard } = setUp(t);
  source.tell('added', pod());
  index.release(POD_UID);
  t.is(index.find(POD_UID)?.name, 'web-1', 'one that is in the API is not forgotten');
  source.tell('removed', pod());
  t.is(index.find(POD_UID)?.name, 'web-1');
  t.is(index.unlisted, 1);
  index.release(POD_UID);
  t.is(index.find(POD_UID), undefined);
  t.deepEqual(heard, ['added web-1', 'departed web-1', 'removed web-1']);
  clock.advance(10 * 3_600_000);
  t.is(heard.length, 3);
});

test('nobody keeps a departed pod longer than the bound; one that is back starts anew', (t) => {
  const { source, clock, index, heard } = setUp(t, { unlistedMs: 60_000 });
  source.tell('added', pod());
  source.tell('removed', pod());
  clock.advance(59_000);
  source.tell('added', pod());
  clock.advance(60_000);
  t.is(index.find(POD_UID)?.name, 'web-1');
  source.tell('removed', pod());
  source.tell('added', pod({ uid: 'u-2', name: 'two' }));
  clock.advance(30_000);
  source.tell('removed', pod({ uid: 'u-2', name: 'two' }));
  clock.advance(30_000);
  t.is(index.find(POD_UID), undefined);
  t.is(index.find('u-2')?.name, 'two');
  clock.advance(30_000);
  t.is(index.unlisted, 0);
  t.deepEqual(heard, ['added web-1', 'departed web-1', 'changed web-1', 'departed web-1', 'added two', 'departed two', 'removed web-1', 'removed two']);
});

test('departed pods are bounded in number, the oldest go first', (t) => {
  const { source, index } = setUp(t);
  for (let i = 0; i < 2_100; i++) {
    source.tell('added', pod({ uid: `u-${i}` }));
    source.tell('removed', pod({ uid: `u-${i}` }));
  }
  t.is(index.unlisted, 2_048);
  t.is(index.find('u-0'), undefined);
  t.is(index.find('u-2099')?.uid, 'u-2099');
});

test('a pod in use is kept however long it is not listed, and its time begins when it is let go', (t) => {
  const { source, clock, index, heard } = setUp(t, { unlistedMs: 60_000 });
  source.tell('added', pod());
  const [first, second] = [index.hold(POD_UID), index.hold(POD_UID)];
  source.tell('removed', pod());
  clock.advance(10 * 60_000 + 59_000);
  t.is(index.find(POD_UID)?.name, 'web-1');
  first();
  first();
  clock.advance(120_000);
  t.is(index.find(POD_UID)?.name, 'web-1', 'one of two holds is left');
  second();
  clock.advance(59_999);
  t.is(index.find(POD_UID)?.name, 'web-1');
  clock.advance(1);
  t.is(index.find(POD_UID), undefined);
  t.deepEqual(heard, ['added web-1', 'departed web-1', 'removed web-1']);
});

test('a pod that only the lookup knows is kept while it is in use too', async (t) => {
  const { clock, index } = setUp(t, { unlistedMs: 60_000, lookup: async () => [pod()] });
  const waiting = index.waitFor(POD_UID, 5_000);
  clock.advance(5_000);
  await waiting;
  const letGo = index.hold(POD_UID);
  clock.advance(600_000);
  t.is(index.find(POD_UID)?.name, 'web-1');
  letGo();
});

test('time ends nothing while the source fails, or has not told everything', (t) => {
  for (const fail of [{ failure: 'connection refused' }, { synced: false }]) {
    const { source, clock, index } = setUp(t, { unlistedMs: 60_000 });
    source.tell('added', pod());
    source.tell('removed', pod());
    Object.assign(source, fail);
    clock.advance(10 * 60_000);
    t.is(index.find(POD_UID)?.name, 'web-1');
    Object.assign(source, { failure: undefined, synced: true });
    clock.advance(60_000);
    t.is(index.find(POD_UID), undefined);
  }
});

test('a static pod in use keeps its last mirror, not those that were made anew', (t) => {
  const { source, clock, index } = setUp(t, { unlistedMs: 60_000 });
  const letGo = index.hold(HASH);
  for (const uid of ['m-1', 'm-2']) {
    source.tell('added', mirror('etcd-node-1', uid));
    if (uid === 'm-1') source.tell('removed', mirror('etcd-node-1', uid));
  }
  clock.advance(60_000);
  t.is(index.find('m-1'), undefined);
  source.tell('removed', mirror('etcd-node-1', 'm-2'));
  clock.advance(600_000);
  t.is(index.find(HASH)?.uid, 'm-2');
  letGo();
  clock.advance(60_000);
  t.is(index.find(HASH), undefined);
});

test('of too many departed pods, those in use stay', (t) => {
  const { source, index } = setUp(t);
  index.hold('u-0');
  for (let i = 0; i < 2_100; i++) {
    source.tell('added', pod({ uid: `u-${i}` }));
    source.tell('removed', pod({ uid: `u-${i}` }));
  }
  t.is(index.unlisted, 2_048);
  t.is(index.find('u-0')?.uid, 'u-0');
  t.is(index.find('u-1'), undefined);
});

test('a storm of questions leads to few lists, each begun after its question', async (t) => {
  const begun: ((pods: readonly Pod[]) => void)[] = [];
  const lookup = new PodLookup(() => new Promise((resolve) => begun.push(resolve)));
  const first = lookup.pods();
  await settle();
  t.is(begun.length, 1);
  const later = Array.from({ length: 100 }, () => lookup.pods());
  await settle();
  t.is(begun.length, 1, 'one at a time');
  begun[0]?.([]);
  t.deepEqual(await first, []);
  await settle();
  t.is(begun.length, 2);
  begun[1]?.([pod()]);
  for (const answer of await Promise.all(later)) t.is(answer.length, 1);
});

test('a list that fails is not shared with those who ask afterwards', async (t) => {
  let failures = 1;
  const lookup = new PodLookup(async () => {
    if (failures-- > 0) throw new Error('down');
    return [];
  });
  await t.throwsAsync(lookup.pods(), { message: 'down' });
  t.deepEqual(await lookup.pods(), []);
});
