import test from 'ava';
import { countErrors, growthPerThousand, median, summarise } from './figures.ts';
import { CHURNED, sample } from './fixtures.ts';

test('the median is the middle value, or the mean of the two in the middle', (t) => {
  t.is(median([3, 1, 2]), 2);
  t.is(median([4, 1, 3, 2]), 2.5);
  t.true(Number.isNaN(median([])));
});

test('a summary takes the best and the median of the rounds, and the least CPU for one operation', (t) => {
  const summary = summarise([
    sample({ per_second: 10 }),
    sample({ per_second: 30, latency_ms: { p50: 5, p90: 6, p99: 7, max: 8 }, count: 1000 }),
    sample({ per_second: 20, errors: { Unavailable: 2 } }),
  ]);
  t.deepEqual(summary.perSecond, { best: 30, median: 20 });
  t.deepEqual(summary.p50, { best: 1, median: 1 });
  t.deepEqual(summary.cpuMs, [0.5]);
  t.deepEqual([...summary.errors], [['Unavailable', 2]]);
});

test('errors are added up by code', (t) => {
  t.deepEqual([...countErrors([{ a: 1 }, { a: 2, b: 3 }])], [['a', 3], ['b', 3]]);
});

test('growth is the slope of the second half of the churn', (t) => {
  t.is(Math.round(growthPerThousand(CHURNED)), 100);
});
