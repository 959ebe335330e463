import test from 'ava';
import { besides } from '../../src/kubernetes/beside.ts';
import type { ListPods } from '../../src/kubernetes/pod-lookup.ts';
import { podTrim, type Pod } from '../../src/kubernetes/pod.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { rawPod } from '../support/kubernetes-pods.ts';

const pod = (name: string): Pod => podTrim()(rawPod({ name, uid: name })) as Pod;
const names = (pods: readonly Pod[]): string[] => pods.map(({ name }) => name);
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Somebody who answers when a test says so. */
class Asked {
  times = 0;
  signal: AbortSignal | undefined;
  readonly #answer = Promise.withResolvers<readonly Pod[]>();
  readonly list: ListPods = (signal) => {
    this.times += 1;
    this.signal = signal;
    return this.#answer.promise;
  };

  async answer(...found: string[]): Promise<void> {
    this.#answer.resolve(found.map(pod));
    await settle();
  }

  async fail(message: string): Promise<void> {
    this.#answer.reject(new Error(message));
    await settle();
  }
}

function setUp(): { first: Asked; second: Asked; clock: FakeClock; asked: Promise<string[]>; stop: AbortController } {
  const [first, second, clock, stop] = [new Asked(), new Asked(), new FakeClock(), new AbortController()];
  const isEnough = (pods: readonly Pod[]): boolean => names(pods).includes('wanted');
  const asked = besides(first.list, second.list, { clock, isEnough })(stop.signal).then(names);
  return { first, second, clock, asked, stop };
}

test('the second is not asked while the first answers soon, whatever the answer is', async (t) => {
  const { first, second, clock, asked } = setUp();
  clock.advance(1_499);
  await first.answer('other');
  t.deepEqual(await asked, ['other']);
  t.deepEqual([second.times, clock.pending], [0, 0]);
});

test('of a silent first and a second, the first list with the pod that is waited for counts, and the other one is given up', async (t) => {
  const { first, second, clock, asked } = setUp();
  clock.advance(1_500);
  t.is(second.times, 1);
  await second.answer('wanted', 'other');
  t.deepEqual(await asked, ['wanted', 'other']);
  t.true(first.signal?.aborted);
  t.is(clock.pending, 0);
});

test('when the second does not have the pod, the first has a little more time; then both together are the answer', async (t) => {
  const { first, second, clock, asked } = setUp();
  clock.advance(1_500);
  await second.answer('other');
  clock.advance(749);
  await first.answer('wanted');
  t.deepEqual(await asked, ['other', 'wanted']);
  const silent = setUp();
  silent.clock.advance(1_500);
  await silent.second.answer('other');
  silent.clock.advance(750);
  t.deepEqual(await silent.asked, ['other']);
});

test('a first that fails is followed by the second at once; when both fail, so does the question', async (t) => {
  const { first, second, asked } = setUp();
  await first.fail('down');
  t.is(second.times, 1);
  await second.answer('other');
  t.deepEqual(await asked, ['other'], 'nobody else is left to be waited for');
  const both = setUp();
  both.clock.advance(1_500);
  const refused = t.throwsAsync(both.asked, { message: 'down too' });
  await both.second.fail('down');
  await both.first.fail('down too');
  await refused;
  t.is(both.first.times + both.second.times, 2);
});

test('a question that is given up is given up with those asked', async (t) => {
  const { first, second, clock, asked, stop } = setUp();
  clock.advance(1_500);
  stop.abort(new Error('closed'));
  t.true(first.signal?.aborted && second.signal?.aborted);
  const refused = t.throwsAsync(asked, { message: 'closed' });
  await first.fail('closed');
  await second.fail('closed');
  await refused;
});
