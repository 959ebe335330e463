import test, { type ExecutionContext } from 'ava';
import { BoundedPodIndex } from '../../src/kubernetes/bounded-pod-index.ts';
import type { PodIndexOptions, PodSource } from '../../src/kubernetes/pod-index.ts';
import { keptBytes, mostKept } from '../../src/kubernetes/pod-size.ts';
import { podTrim, type Pod } from '../../src/kubernetes/pod.ts';
import type { ChangeKind, ChangeListener } from '../../src/kubernetes/store.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { HASH, POD_UID, rawMirror, rawPod, type PodShape } from '../support/kubernetes-pods.ts';

const trim = podTrim();
const pod = (shape: PodShape = {}): Pod => trim(rawPod(shape)) as Pod;
const manyLabels = Object.fromEntries(Array.from({ length: 600 }, (_, i) => [`label-${i}`.padEnd(63, 'x'), 'v'.repeat(63)]));
const large = (shape: PodShape = {}): Pod => pod({ labels: manyLabels, ...shape });

interface Scene {
  readonly index: BoundedPodIndex;
  readonly clock: FakeClock;
  readonly heard: string[];
  readonly oversized: string[];
  readonly tell: (kind: ChangeKind, item: Pod) => void;
}

function setUp(t: ExecutionContext, first: Pod[] = [], options: Partial<PodIndexOptions> = {}): Scene {
  let listener: ChangeListener<Pod> | undefined;
  const source: PodSource = {
    synced: true,
    lastContact: 0,
    items: () => first,
    onChange: (one) => ((listener = one), () => undefined),
    nudge: () => undefined,
  };
  const clock = new FakeClock();
  const oversized: string[] = [];
  const index = new BoundedPodIndex({ source, clock, onOversized: ({ name }) => oversized.push(name), ...options });
  const heard: string[] = [];
  index.onChange((change, { name }) => heard.push(`${change} ${name}`));
  t.teardown(() => index.close());
  return { index, clock, heard, oversized, tell: (kind, item) => listener?.(kind, item, undefined) };
}

const TOO_LARGE = { code: 'caller_unknown', message: /^the labels, annotations, owners and containers of pod shop\/web-1 come to \d+ bytes: that is more than is kept/ };

for (const [what, shape] of [
  ['labels', { labels: manyLabels }],
  ['owners', { owners: [{ kind: 'Job', name: 'x'.repeat(70_000), uid: 'u' }] }],
  ['containers', { spec: { containers: [{ name: 'main', image: 'x'.repeat(70_000) }] } }],
  ['short labels, of which each takes more memory than text', { labels: Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`l${i}`, ''])) }],
] as const) {
  test(`nothing is kept of a pod with too many ${what}, but who it is`, (t) => {
    const kept = pod(shape);
    t.like(kept, { uid: POD_UID, name: 'web-1', namespace: 'shop', nodeName: 'node-1', phase: 'Running', annotations: undefined });
    t.deepEqual([Object.keys(kept.labels), kept.owners, kept.containers], [[], [], []]);
    t.true((kept.oversized ?? 0) > 65_536);
    t.true(keptBytes(kept) < 1_000);
  });
}

test('annotations count where they are kept', (t) => {
  const raw = rawPod({ annotations: { note: 'x'.repeat(70_000) } });
  t.is(podTrim()(raw)?.oversized, undefined);
  t.true((podTrim({ annotations: true })(raw)?.oversized ?? 0) > 70_000);
});

test('many pods share what is kept; an ordinary one is kept however many there are', (t) => {
  t.deepEqual([0, 1, 128, 256, 2_048, 12_500].map(mostKept), [65_536, 65_536, 65_536, 32_768, 4_096, 4_096]);
  const raw = rawPod({ labels: { app: 'x'.repeat(20_000) } });
  t.is(trim(raw, 256)?.oversized, undefined);
  t.true((trim(raw, 1_000)?.oversized ?? 0) > 20_000);
  t.is(trim(rawPod(), 12_500)?.oversized, undefined);
});

test('callers of a pod that is too large are refused with why, at once; all other pods are found', async (t) => {
  const scene = setUp(t, [large(), pod({ name: 'web-2', uid: 'u-2' })]);
  const { index, oversized } = scene;
  await t.throwsAsync(index.waitFor(POD_UID, 5_000), TOO_LARGE);
  await t.throwsAsync(index.waitForContainer(POD_UID, 'c', 5_000), TOO_LARGE);
  t.is(index.find(POD_UID), undefined);
  t.is((await index.waitFor('u-2', 5_000))?.name, 'web-2');
  t.deepEqual([...index.listed()].map(({ name }) => name), ['web-2']);
  t.deepEqual([...index.all()].map(({ name }) => name), ['web-2']);
  t.is(index.oversized, 1);
  scene.tell('changed', large());
  t.deepEqual(oversized, ['web-1'], 'each is told of once');
});

test('a pod that becomes too large cannot be found any more, and can again when it is smaller', (t) => {
  const { index, heard, oversized, tell } = setUp(t, [pod()]);
  const found: boolean[] = [];
  index.onChange(() => found.push(index.find(POD_UID) !== undefined));
  for (const one of [large(), large({ version: '8' }), pod({ version: '9' })]) tell('changed', one);
  t.deepEqual(heard, ['removed web-1', 'added web-1', 'added web-1']);
  t.deepEqual(found, [false, false, true]);
  t.deepEqual([oversized, index.oversized], [['web-1'], 0]);
});

test('a pod that is too large and departs is not told of twice, and nothing of it stays', (t) => {
  const { index, heard, clock, tell } = setUp(t);
  tell('added', large());
  tell('removed', large());
  t.deepEqual(heard, ['added web-1']);
  clock.advance(2 * 3_600_000);
  t.deepEqual(heard, ['added web-1', 'removed web-1']);
  t.is(index.oversized, 0);
});

test('whoever waits for a pod that turns out to be too large is refused, when only the lookup knows it too', async (t) => {
  const { index, clock } = setUp(t, [], { lookup: async () => [large()] });
  const waited = t.throwsAsync(index.waitFor(POD_UID, 5_000), TOO_LARGE);
  clock.advance(5_000);
  await waited;
  t.is(index.oversized, 1);
});

test('a forged mirror that is too large still makes its hash contested', (t) => {
  const forged = trim({ ...rawMirror('forged', 'm-2'), status: {}, spec: { nodeName: 'node-1', containers: [{ name: 'a', image: 'x'.repeat(70_000) }] } }) as Pod;
  t.is(forged.configHash, HASH);
  const { index, tell } = setUp(t, [trim(rawMirror('real', 'm-1')) as Pod]);
  t.is(index.find(HASH)?.name, 'real');
  tell('added', forged);
  t.is(index.find(HASH), undefined);
});

test('a list has all who are waited for, or not', async (t) => {
  const { index, tell } = setUp(t);
  t.true(index.hasAllAwaited([]));
  const waiting = [index.waitFor(POD_UID, 5_000), index.waitFor(POD_UID, 5_000), index.waitFor(HASH, 5_000)];
  t.false(index.hasAllAwaited([pod()]));
  t.true(index.hasAllAwaited([pod(), trim(rawMirror('real', 'm-1')) as Pod]));
  tell('added', pod());
  await Promise.all(waiting.slice(0, 2));
  t.false(index.hasAllAwaited([]), 'one is still waited for');
  tell('added', trim(rawMirror('real', 'm-1')) as Pod);
  await waiting[2];
  t.true(index.hasAllAwaited([]));
});
