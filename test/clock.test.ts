import test from 'ava';
import { sleep, SystemClock } from '../src/clock.ts';
import { FakeClock } from './support/fake-clock.ts';

/** Keeps the process while only the clock's own timers are left, which hold none. */
function hold(t: { teardown(done: () => void): void }): void {
  const timer = setInterval(() => undefined, 2 ** 30);
  t.teardown(() => clearInterval(timer));
}

test('an alarm whose time has passed rings at once, and those that are due ring in order', async (t) => {
  hold(t);
  const clock = new SystemClock();
  const rung: string[] = [];
  await new Promise<void>((resolve) => {
    clock.at(clock.now() + 20, () => {
      rung.push('later');
      resolve();
    });
    clock.at(clock.now() - 1_000, () => rung.push('past'));
    clock.at(clock.now() + 10, () => rung.push('soon'));
  });
  t.deepEqual(rung, ['past', 'soon', 'later']);
});

test('an alarm beyond the 24.8 days of a Node timer does not ring at once', async (t) => {
  hold(t);
  const clock = new SystemClock();
  let rang = false;
  const alarm = clock.at(clock.now() + 100 * 86_400_000, () => (rang = true));
  await new Promise<void>((resolve) => void clock.after(30, resolve));
  t.false(rang);
  alarm.cancel();
});

test('a cancelled alarm does not ring, even when an earlier one of the same turn cancels it', async (t) => {
  hold(t);
  const clock = new SystemClock();
  let rang = false;
  const at = clock.now() + 5;
  clock.at(at, () => second.cancel());
  const second = clock.at(at + 0.5, () => (rang = true));
  await new Promise<void>((resolve) => void clock.after(60, resolve));
  t.false(rang);
});

test('sleep ends with the signal, with its reason', async (t) => {
  const clock = new FakeClock();
  const stop = new AbortController();
  const sleeping = sleep(clock, 1_000, stop.signal);
  stop.abort(new Error('enough'));
  await t.throwsAsync(sleeping, { message: 'enough' });
  t.is(clock.pending, 0);
  await t.throwsAsync(sleep(clock, 1_000, stop.signal), { message: 'enough' });
});

test('sleep ends with its time', async (t) => {
  const clock = new FakeClock();
  const sleeping = sleep(clock, 1_000);
  clock.advance(1_000);
  await t.notThrowsAsync(sleeping);
});
