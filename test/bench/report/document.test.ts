import test from 'ava';
import { figuresWith, result, sample, speedRow } from '../fixtures.ts';
import { markdownReport, plainReport } from './document.ts';

const SEEN = {
  title: 'In a cluster', command: 'make e2e', date: '2026-01-01', commit: 'aaa', conditions: 'One node.',
  tables: [{ intro: 'Then', command: 'make other', head: ['', 'seen'], rows: [['it', '7 ms']], note: 'No more.' }],
};

function lines(...args: Parameters<typeof markdownReport>): string[] {
  return markdownReport(...args).split('\n');
}

test('the document has one well-formed table for each group, and the comparison', (t) => {
  const text = lines({ figures: figuresWith(), seen: [SEEN] }, 'p.svg');
  t.is(text.filter((line) => line.startsWith('## ')).length, 12);
  t.true(text.includes('- Left out: mint rate: not there.'));
  t.true(text.includes('- Measured 2026-01-02 with `make bench` at commit abc1234567.'));
  t.true(text.includes('| JWT | 200/s | 50/s | 4× |'));
  const speed = text.filter((line) => line.startsWith('| JWT | Signet |'));
  t.true(speed[0]?.startsWith('| JWT | Signet | 3 | 300 / 200 * | 1 / 1 | 2 | 3 | 4 |'), speed[0]);
  t.true(text.includes('![How many times as good as SPIRE](p.svg)'));
  t.true(text.includes('Seen by `make e2e`, written down 2026-01-01 at aaa. One node.'));
  t.true(text.includes('Then (`make other`):'));
  let columns = 0;
  for (const line of text) {
    const cells = line.startsWith('|') ? line.replaceAll('\\|', '').split('|').length : 0;
    if (cells > 0 && columns > 0) t.is(cells, columns, line);
    columns = cells;
  }
});

test('what is said about the ratios is worked out from them', (t) => {
  const figures = { speed: result('speed', [
    speedRow('Signet', 200), speedRow('SPIRE', 50),
    { ...speedRow('Signet', 51), what: 'even' }, { ...speedRow('SPIRE', 50), what: 'even' },
    { ...speedRow('Signet', 10), what: 'slow' }, { ...speedRow('SPIRE', 40), what: 'slow' },
  ]) };
  const text = lines({ figures, seen: [] }, 'p.svg');
  t.true(text.includes('- Beside SPIRE: ahead in 1 of 3 rows, within 5 % in 1, behind in 1.'));
  t.true(text.includes('- Furthest ahead of SPIRE: JWT 4×.'));
  t.true(text.includes('- Furthest behind SPIRE: slow 0.25×.'));
});

test('storms in a row say who lost callers, and in which', (t) => {
  const row = (subject: string, lost_in: number, no_answer: number) => ({
    what: '9 storms of 5', subject, args: [], failures: [],
    samples: [sample({ errors: no_answer > 0 ? { no_answer } : {}, detail: { last_ms: [1], served: [5], lost_in } })],
  });
  const storms = result('storms', [row('Signet', 0, 0), row('SPIRE', 1, 3)]);
  const text = lines({ figures: figuresWith({ storms }), seen: [] }, 'p.svg');
  t.true(text.includes('- 9 storms of 5 in a row: Signet lost no caller in 1; SPIRE left 3 callers without an answer in storm 1.'));
});

test('a group of another commit or a quick run says so', (t) => {
  const other = result('speed', [speedRow('Signet', 1)], { commit: 'fff', quick: true });
  const text = lines({ figures: figuresWith({ speed: other }), seen: [] }, 'p.svg');
  t.true(text.includes('- Measured 2026-01-02 with `make bench` at commit fff. A quick run: its figures are a hint, not a measurement.'));
});

test('Signet alone has no comparison and no picture', (t) => {
  const alone = result('speed', [speedRow('Signet', 1)], { subjects: [{ name: 'Signet', settings: 'defaults' }] });
  const text = lines({ figures: { speed: alone }, seen: [] }, 'p.svg');
  t.false(text.some((line) => line.includes('p.svg') || line.startsWith('## Beside')));
  t.true(lines({ figures: {}, seen: [] }, 'p.svg').includes('- Nothing has been measured.'));
});

test('a group without figures has no table, and a missing figure is a dash', (t) => {
  const unfinished = { what: 'R', subject: 'Signet', args: [], samples: [], failures: ['x'] };
  const names = ['users', 'storms', 'fairness', 'peaks', 'rotation'] as const;
  const empty = Object.fromEntries(names.map((name) => [name, result<typeof name>(name, [unfinished])]));
  const restart = result('restart', [{ ...unfinished, fromSignalMs: [], fromStartMs: [], firstToLastMs: [] }]);
  const start = result('start', [{ what: 'fresh', subject: 'Signet', ms: [], failures: ['x'] }]);
  const speed = result('speed', [{ ...unfinished, primary: 'p50' as const }]);
  const figures = figuresWith({ ...empty, start, restart, speed, memory: result('memory', []) });
  for (const text of [plainReport(figures), markdownReport({ figures, seen: [] }, 'p.svg')]) {
    t.false(text.includes('Memory at rest'));
    t.regex(text, /R .*Signet.*–/);
    t.false(text.includes('NaN'));
    t.false(text.includes('Infinity'));
    t.false(text.includes('undefined'));
  }
});
