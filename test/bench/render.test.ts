import test from 'ava';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { figuresWith } from './fixtures.ts';
import { differences, keptResults, render } from './render.ts';

test('a figure that was changed by hand is found, and shown as a diff', (t) => {
  const project = mkdtempSync(join(tmpdir(), 'render-'));
  t.teardown(() => rmSync(project, { recursive: true }));
  const rendered = render({ figures: figuresWith(), seen: [] }, keptResults(project), project);
  t.deepEqual(rendered.map(({ file }) => file), [join(project, 'BENCHMARKS.md'), join(project, 'bench/ratios.svg')]);
  t.regex(differences(rendered), /\+\| JWT \| 200\/s \| 50\/s \| 4× \|/);
  for (const { file, text } of rendered) {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
  t.is(differences(rendered), '');
  const [{ file } = { file: '' }] = rendered;
  writeFileSync(file, readFileSync(file, 'utf8').replace('| 4× |', '| 5× |'));
  t.regex(differences(rendered), /-\| JWT \| 200\/s \| 50\/s \| 5× \|\n\+\| JWT \| 200\/s \| 50\/s \| 4× \|/);
});

test('results elsewhere have their document beside them', (t) => {
  const files = render({ figures: figuresWith(), seen: [] }, '/elsewhere', '/project').map(({ file }) => file);
  t.deepEqual(files, ['/elsewhere/BENCHMARKS.md', '/elsewhere/ratios.svg']);
});
