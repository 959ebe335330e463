import test from 'ava';
import { formatDuration, parseDuration } from '../../src/config/duration.ts';

const HOUR = 3_600_000;

const GOOD: readonly (readonly [string, number])[] = [
  ['0s', 0],
  ['250ms', 250],
  ['90s', 90_000],
  ['30m', 30 * 60_000],
  ['1h', HOUR],
  ['24h', 24 * HOUR],
  ['7d', 7 * 24 * HOUR],
  ['1h30m', 1.5 * HOUR],
  ['1m1ms', 60_001],
  ['1d2h3m4s5ms', 26 * HOUR + 184_005],
];

for (const [text, ms] of GOOD) {
  test(`${text} is ${ms} milliseconds`, (t) => t.is(parseDuration(text), ms));
}

const BAD = ['', '90', '1.5h', '-1s', '+1s', '1h 30m', ' 1h', '1h\n', '30m1h', '1s1s', '1ms1s', '1H', 'h', '1w', '1e3s'];

for (const text of [...BAD, '1234567890s', '１s']) {
  test(`${JSON.stringify(text)} is no duration`, (t) => t.is(parseDuration(text), undefined));
}

test('a duration is written in its usual form, and read back as the same', (t) => {
  const written: readonly (readonly [number, string])[] = [
    [0, '0s'],
    [250, '250ms'],
    [90_000, '1m30s'],
    [1.5 * HOUR, '1h30m'],
    [24 * HOUR, '24h'],
    [36 * HOUR, '36h'],
    [49 * HOUR, '49h'],
    [8_760 * HOUR, '365d'],
    [61_001, '1m1s1ms'],
  ];
  for (const [ms, text] of written) {
    t.is(formatDuration(ms), text);
    t.is(parseDuration(text), ms);
  }
});
