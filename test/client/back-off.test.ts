import test from 'ava';
import { retryDelayMs } from '../../src/client/back-off.ts';

test('WE-24: the wait doubles from 0.1 s and stops growing at 30 s', (t) => {
  const middle = [1, 2, 3, 4, 9, 10, 1_000].map((failures) => retryDelayMs(failures, false, 0.5));
  t.deepEqual(middle, [100, 200, 400, 800, 25_600, 30_000, 30_000]);
});

test('WE-26: after PermissionDenied the wait goes from 1 s to 10 s', (t) => {
  t.deepEqual([0, 1, 2, 4, 5, 50].map((failures) => retryDelayMs(failures, true, 0.5)), [1_000, 1_000, 2_000, 8_000, 10_000, 10_000]);
});

test('WE-24: the wait is moved by a fifth either way', (t) => {
  t.is(retryDelayMs(3, false, 0), 320);
  t.true(retryDelayMs(3, false, 0.999_999) <= 480 && retryDelayMs(3, false, 0.999_999) > 470);
});

test('WA-08: after a good stream the next attempt comes within 0.1 s', (t) => {
  t.is(retryDelayMs(0, false, 0), 0);
  t.is(retryDelayMs(0, false, 0.999_999), 100);
});
