import test from 'ava';
import { LONGEST_PROBLEM, MOST_RULES, linesIn, linesOf, shorten, type RuleTally } from '../../../src/registration/status/tally.ts';
import { tally } from './tallies.ts';

test('a rule that selects nothing here has no line, whatever it is refused for', (t) => {
  const nothing = tally('empty', { podsSelected: 0, problem: 'spiffeIDTemplate: line 1, column 4: unknown field .Foo' });
  t.deepEqual(linesOf([nothing, tally('web')]).lines.map(({ name }) => name), ['web']);
});

test('lines come in one order whatever the order of the tallies, and with the same members', (t) => {
  const tallies = [tally('b'), tally('a'), tally('a', { kind: 'ClusterStaticEntry', uid: 'z' }), { ...tally('c'), extra: 1 } as RuleTally];
  const [there, back] = [linesOf(tallies).lines, linesOf([...tallies].reverse()).lines];
  t.is(JSON.stringify(there), JSON.stringify(back));
  t.deepEqual(there.map(({ kind, name }) => `${kind} ${name}`), ['ClusterSPIFFEID a', 'ClusterSPIFFEID b', 'ClusterSPIFFEID c', 'ClusterStaticEntry a']);
  t.false('extra' in (there[2] ?? {}));
});

test('a report has room for 512 rules, and those with failures go first', (t) => {
  const tallies = Array.from({ length: 600 }, (_, i) => tally(`r${String(i).padStart(3, '0')}`, { podsFailed: i >= 590 ? 1 : 0 }));
  const { lines, cut } = linesOf(tallies);
  t.is(lines.length, MOST_RULES);
  t.is(cut, 88);
  t.is(lines.filter(({ podsFailed }) => podsFailed > 0).length, 10);
  t.is(lines[0]?.name, 'r000');
});

test('a problem is one line of at most 256 bytes, cut between characters', (t) => {
  t.is(shorten('one\n two\t\u0007three '), 'one two three');
  for (const text of ['x'.repeat(300), 'é'.repeat(300), '€'.repeat(300), '😀'.repeat(300), `a${'😀'.repeat(300)}`, '\ud800'.repeat(300) + 'y'.repeat(300)]) {
    const short = shorten(text);
    t.true(Buffer.byteLength(short) <= LONGEST_PROBLEM, `${Buffer.byteLength(short)} bytes`);
    t.true(Buffer.byteLength(short) > LONGEST_PROBLEM - 8);
    t.false(short.includes('\uFFFD'));
    t.true(short.endsWith('…'));
  }
});

test('what was written reads back as the same lines', (t) => {
  const { lines } = linesOf([tally('a', { problem: 'pod web-1 has no label "team"' }), tally('b', { kind: 'ClusterStaticEntry', entriesMasked: 2 })]);
  const report = JSON.parse(JSON.stringify({ spec: { reporter: 'x', rules: lines } })) as Record<string, unknown>;
  t.is(JSON.stringify(linesIn(report)), JSON.stringify(lines));
});

test('lines that someone else has spoiled count as nothing, and do not throw', (t) => {
  const rules = [null, 7, {}, { uid: 3, generation: 'x', podsSelected: -4, podsFailed: 1.5, entriesMasked: 1e300 }];
  t.deepEqual(linesIn({ spec: { rules } }).map(({ podsSelected, podsFailed, entriesMasked }) => [podsSelected, podsFailed, entriesMasked]), [[0, 0, 0], [0, 0, 0]]);
});
