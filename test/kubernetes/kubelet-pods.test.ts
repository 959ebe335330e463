import test, { type ExecutionContext } from 'ava';
import { KubeletPods } from '../../src/kubernetes/kubelet-pods.ts';
import { PodIndex } from '../../src/kubernetes/pod-index.ts';
import { podTrim, type Pod } from '../../src/kubernetes/pod.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { POD_UID, rawPod } from '../support/kubernetes-pods.ts';

const random = { bytes: (count: number) => Buffer.alloc(count), fraction: () => 0.5 };
const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

function pod(version = '1', labels: Record<string, string> = {}): Pod {
  const trimmed = podTrim()(rawPod({ version, labels }));
  if (trimmed === undefined) throw new Error('no pod');
  return trimmed;
}

function setUp(t: ExecutionContext, answer: () => readonly Pod[]) {
  const clock = new FakeClock();
  let asked = 0;
  const source = new KubeletPods(async () => ((asked += 1), answer()), { clock, random, log });
  const told: string[] = [];
  source.onChange((kind, { name }) => told.push(`${kind} ${name}`));
  t.teardown(() => source.close());
  /** Until the answer has been taken in and the next question is planned. */
  const settled = () => new Promise((resolve) => setImmediate(resolve));
  return { clock, source, told, settled, asked: () => asked };
}

test('the list is asked for every ten seconds, and differences are told', async (t) => {
  let pods = [pod()];
  const { clock, source, told, settled, asked } = setUp(t, () => pods);
  t.false(source.synced);
  source.start();
  await settled();
  t.true(source.synced);
  t.is(source.lastContact, clock.now());
  pods = [pod('2', { team: 'blue' })];
  clock.advance(10_000);
  await settled();
  clock.advance(10_000);
  await settled();
  t.is(asked(), 3);
  t.deepEqual(told, ['added web-1', 'changed web-1']);
});

test('an empty list after one that was not counts the second time only: a kubelet that starts knows nothing yet', async (t) => {
  let pods = [pod()];
  const { clock, source, told, settled } = setUp(t, () => pods);
  source.start();
  await settled();
  pods = [];
  clock.advance(10_000);
  await settled();
  t.deepEqual(told, ['added web-1']);
  clock.advance(10_000);
  await settled();
  t.deepEqual(told, ['added web-1', 'removed web-1']);
});

test('whoever waits for a pod has the kubelet asked at once, and again soon until it tells of the pod', async (t) => {
  let pods: Pod[] = [];
  const { clock, source, settled, asked } = setUp(t, () => pods);
  source.start();
  await settled();
  const index = new PodIndex({ source, clock });
  t.teardown(() => index.close());
  const waiting = index.waitFor(POD_UID, 5_000);
  await settled();
  t.is(asked(), 2);
  for (const [ms, times] of [[50, 3], [100, 4], [200, 5]] as const) {
    clock.advance(ms);
    await settled();
    t.is(asked(), times, `after ${ms} ms more`);
  }
  pods = [pod()];
  clock.advance(400);
  await settled();
  t.is((await waiting)?.name, 'web-1');
  const before = asked();
  clock.advance(800);
  await settled();
  clock.advance(800);
  await settled();
  t.true(asked() <= before + 1, 'nobody waits any more');
});

test('a kubelet that does not answer is told once, asked again, and what is known stays', async (t) => {
  let isAway = false;
  const { clock, source, settled, told } = setUp(t, () => {
    if (isAway) throw new Error('connection refused');
    return [pod()];
  });
  source.start();
  await settled();
  isAway = true;
  clock.advance(10_000);
  await settled();
  t.is(source.failure, 'connection refused');
  t.true(source.synced);
  isAway = false;
  source.nudge();
  await settled();
  t.is(source.failure, undefined);
  t.deepEqual(told, ['added web-1']);
});
