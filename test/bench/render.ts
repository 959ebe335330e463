/**
 * `node test/bench/render.ts [--check]`: writes BENCHMARKS.md and bench/ratios.svg from bench/results, or, with --check, compares
 * them and ends with 1 and a diff where they differ.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { messageOf } from '../../src/errors.ts';
import { markdownReport } from './report/document.ts';
import { measured, peersOf } from './report/measures.ts';
import { barRows, picture } from './report/picture.ts';
import { readResults, type Results } from './results.ts';
import { PROJECT } from './subject.ts';

export interface Rendered {
  readonly file: string;
  readonly text: string;
}

/** What a folder of results gives, with the files that belong to it: for bench/results those of the repository. */
export function render(results: Results, directory: string, project: string): Rendered[] {
  const isKept = directory === keptResults(project);
  const svg = isKept ? join(project, 'bench', 'ratios.svg') : join(directory, 'ratios.svg');
  const markdown = isKept ? join(project, 'BENCHMARKS.md') : join(directory, 'BENCHMARKS.md');
  const rows = barRows(results.figures);
  const date = measured(results.figures)[0]?.date.slice(0, 10) ?? '';
  return [
    { file: markdown, text: markdownReport(results, isKept ? 'bench/ratios.svg' : 'ratios.svg') },
    ...(rows.length > 0 ? [{ file: svg, text: picture(peersOf(results.figures), rows, date) }] : []),
  ];
}

export function keptResults(project: string): string {
  return join(project, 'bench', 'results');
}

export function writeRendered(directory: string): void {
  for (const { file, text } of render(readResults(directory), directory, PROJECT)) writeFileSync(file, text);
}

/** The differences of the files to what their results give, as a diff; empty when there are none. */
export function differences(rendered: readonly Rendered[]): string {
  return rendered.map(({ file, text }) => (existsSync(file) && readFileSync(file, 'utf8') === text ? '' : diff(file, text))).join('');
}

function diff(file: string, text: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'render-'));
  try {
    const wanted = join(directory, 'wanted');
    writeFileSync(wanted, text);
    const { stdout, error } = spawnSync('diff', ['-u', '--label', file, '--label', 'from bench/results', '-N', file, wanted], { encoding: 'utf8' });
    return error === undefined && stdout !== '' ? stdout : `${file} differs from what bench/results give\n`;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function main(argv: readonly string[]): number {
  const directory = keptResults(PROJECT);
  if (argv.length > 1 || (argv.length === 1 && argv[0] !== '--check')) {
    process.stderr.write('usage: node test/bench/render.ts [--check]\n');
    return 2;
  }
  if (argv.length === 0) {
    writeRendered(directory);
    return 0;
  }
  const found = differences(render(readResults(directory), directory, PROJECT));
  if (found === '') return 0;
  process.stderr.write(`${found}
The figures of BENCHMARKS.md and bench/ratios.svg come from bench/results and are not written by hand. What to do:
  make bench-render     write them again, after a change of the results or of how they are shown
  make bench            measure again
`);
  return 1;
}

if (import.meta.main) {
  try {
    process.exitCode = main(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`render: ${messageOf(error)}\n`);
    process.exitCode = 1;
  }
}
