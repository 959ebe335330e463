import test from 'ava';
import { EXIT, EXIT_MEANINGS } from '../../src/cli/exit-codes.ts';
import { fields, painter, printable, table } from '../../src/cli/render.ts';
import { formatDistance, formatTime, parseDuration } from '../../src/cli/time.ts';
import { claimRows } from '../../src/cli/tokens.ts';
import { formatExpiry } from '../../src/cli/identities.ts';
import { UsageError } from '../../src/cli/usage-error.ts';

const plain = painter({ isTty: false, env: {} });

test('a duration is a number with its unit', (t) => {
  t.deepEqual(['500ms', '5s', '1m30s', '2h', '24h', '1d'].map((text) => parseDuration(text, '--timeout')), [500, 5_000, 90_000, 7_200_000, 86_400_000, 86_400_000]);
});

for (const text of ['5', '', 's', '0s', '-1s', '1.5s', '25h', '30s1m', '1s ', '5S', '1e3s', '9999999999s']) {
  test(`the duration ${JSON.stringify(text)} is refused`, (t) => {
    const error = t.throws(() => parseDuration(text, '--timeout'), { instanceOf: UsageError });
    t.regex(error.message, /^--timeout is ".*"; allowed is /);
  });
}

test('a distance has its two largest units', (t) => {
  const now = Date.UTC(2026, 0);
  const cases: readonly (readonly [number, string])[] = [
    [0, 'now'],
    [999, 'now'],
    [-12_000, '12s ago'],
    [1_752_000, 'in 29m 12s'],
    [3_600_000, 'in 1h'],
    [3_601_000, 'in 1h'],
    [86_400_000 + 7_200_000, 'in 1d 2h'],
  ];
  for (const [ms, text] of cases) t.is(formatDistance(now + ms, now), text);
});

test('a time is in UTC to the second', (t) => {
  t.is(formatTime(Date.UTC(2026, 10, 23, 9, 28, 17, 900)), '2026-11-23 09:28:17 UTC');
});

test('what has expired is called so, and what ends soon stands out', (t) => {
  const paint = (style: string, text: string): string => `<${style}>${text}`;
  t.regex(formatExpiry(0, 100_000, 100_000, paint), /^<red>.*, expired$/);
  t.regex(formatExpiry(0, 100_000, 91_000, paint), /^<yellow>/);
  t.regex(formatExpiry(0, 100_000, 50_000, paint), /^1970/);
});

test('colours need a terminal, and NO_COLOR turns them off', (t) => {
  t.is(painter({ isTty: true, env: {} })('red', 'x'), '\u001b[31mx\u001b[39m');
  t.is(painter({ isTty: true, env: { NO_COLOR: '' } })('red', 'x'), '\u001b[31mx\u001b[39m');
  t.is(painter({ isTty: true, env: { NO_COLOR: '1' } })('red', 'x'), 'x');
  t.is(painter({ isTty: true, env: { TERM: 'dumb' } })('red', 'x'), 'x');
  t.is(plain('red', 'x'), 'x');
});

test('text from elsewhere cannot steer a terminal', (t) => {
  t.is(printable('a\u001b[2Jb\nc\u202ed\u0000'), 'a\\u{1b}[2Jb\\u{a}c\\u{202e}d\\u{0}');
  t.is(printable('Zoë, 東京'), 'Zoë, 東京');
});

test('fields are aligned, further values stand below, rows without a value are left out', (t) => {
  t.is(fields([['A', '1'], ['None'], ['Long', '2', '3']], plain), '  A     1\n  Long  2\n        3\n');
});

test('columns are as wide as what is seen of their widest cell', (t) => {
  t.is(table(['K', 'V'], [['\u001b[31mabc\u001b[39m', 'x'], ['a', 'y']], plain), '  K    V\n  \u001b[31mabc\u001b[39m  x\n  a    y\n');
});

test('claims that are times are shown as such, and odd ones do no harm', (t) => {
  const rows = claimRows({ exp: 60, iat: 1e300, aud: ['a', 'b\u001b'], n: null, deep: { a: [1] }, nbf: 'text' }, 0);
  t.deepEqual(rows, [
    ['exp', '1970-01-01 00:01:00 UTC (in 1m)'],
    ['iat', '1e+300'],
    ['aud', 'a, b\\u{1b}'],
    ['n', 'null'],
    ['deep', '{"a":[1]}'],
    ['nbf', 'text'],
  ]);
});

test('every exit code has a meaning and a number of its own', (t) => {
  const codes = Object.values(EXIT);
  t.is(new Set(codes).size, codes.length);
  t.deepEqual(Object.keys(EXIT_MEANINGS).map(Number).sort(), [...codes].sort());
});
