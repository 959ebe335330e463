import test from 'ava';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { result, speedRow } from './fixtures.ts';
import { readResults, resultText, writeResult } from './results.ts';

function folder(t: { teardown: (fn: () => void) => void }): string {
  const directory = mkdtempSync(join(tmpdir(), 'results-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  return directory;
}

test('what is written is read again, and what was not measured is missing', (t) => {
  const directory = folder(t);
  const speed = result('speed', [speedRow('Signet', 1, 2)]);
  writeResult(directory, speed);
  t.deepEqual(readResults(directory), { figures: { speed }, seen: [] });
});

test('lists of numbers and of words take one line, and no more digits than are measured', (t) => {
  const text = resultText({ a: [1, 2.123456789, -3e-7], b: ['x', 'y, [z]'], c: [{ d: 0.000123456 }], e: [], f: {}, g: 'a"\n{ "' });
  t.deepEqual(JSON.parse(text), { a: [1, 2.1235, -3e-7], b: ['x', 'y, [z]'], c: [{ d: 0.0001235 }], e: [], f: {}, g: 'a"\n{ "' });
  t.true(text.includes('"a": [1, 2.1235, -3e-7]'));
  t.true(text.includes('    { "d": 0.0001235 }\n'));
  t.true(text.includes('"b": ["x", "y, [z]"]'));
});

test('a file that cannot be read, or is another group\'s, is an error that names it', (t) => {
  const directory = folder(t);
  writeFileSync(join(directory, 'speed.json'), '{');
  t.throws(() => readResults(directory), { message: /speed\.json cannot be read: .* What to do: / });
  writeFileSync(join(directory, 'speed.json'), '{ "group": "memory", "rows": [] }');
  t.throws(() => readResults(directory), { message: /speed\.json does not hold the group speed/ });
});
