import test from 'ava';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const SRC = fileURLToPath(new URL('../src/', import.meta.url));

/** From the top down. A room imports from itself and from lower levels only; rooms of one level are strangers. */
const LEVELS: readonly (readonly string[])[] = [
  ['main'],
  ['run-agent'],
  ['agent', 'cli'],
  ['assembly'],
  ['workload-api', 'admin', 'telemetry'],
  ['listener', 'grpc', 'identity'],
  ['config'],
  ['attestation', 'registration', 'authority', 'trust', 'upstream', 'client', 'http2'],
  ['kubernetes'],
  ['spiffe'],
  ['kernel', 'log', 'events'],
  ['errors', 'clock', 'random', 'http'],
];

/** Rooms that see less than their level would allow: rooms, or single files of one. */
const NARROW: Readonly<Record<string, readonly string[]>> = {
  http2: ['errors', 'clock'],
  grpc: ['http2', 'clock'],
  client: ['spiffe', 'errors', 'clock', 'random'],
  kubernetes: ['spiffe', 'errors', 'clock', 'random', 'log', 'events'],
  spiffe: ['errors'],
  cli: ['client', 'config', 'admin/messages.ts', 'spiffe', 'errors', 'clock', 'http'],
};

const files = globSync('**/*.ts', { cwd: SRC }).sort();
const imports = new Map(files.map((file) => [file, importsOf(file)]));

test('every room has a level', (t) => {
  for (const file of files) t.true(levelOf(roomOf(file)) >= 0, `${file}: its room is on no level`);
});

test('imports go down only, and rooms of one level are strangers', (t) => {
  const wrong: string[] = [];
  for (const [file, targets] of imports) {
    for (const target of targets) {
      const [from, to] = [roomOf(file), roomOf(target)];
      if (from !== to && levelOf(to) <= levelOf(from)) wrong.push(`${file} imports ${target}`);
    }
  }
  t.deepEqual(wrong, []);
});

test('the narrow rooms see no more than they may', (t) => {
  const wrong: string[] = [];
  for (const [file, targets] of imports) {
    const allowed = NARROW[roomOf(file)];
    for (const target of targets) {
      if (allowed !== undefined && roomOf(target) !== roomOf(file) && !allowed.includes(roomOf(target)) && !allowed.includes(target)) wrong.push(`${file} imports ${target}`);
    }
  }
  t.deepEqual(wrong, []);
});

test('no files import each other in a circle', (t) => {
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (file: string, path: readonly string[]): void => {
    if (path.includes(file)) return void circles.push([...path.slice(path.indexOf(file)), file].join(' > '));
    if (done.has(file)) return;
    for (const target of imports.get(file) ?? []) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of files) visit(file, []);
  t.deepEqual(circles, []);
});

test('only one file calls C functions, and time, randomness and the log have one door each', (t) => {
  const owners: readonly (readonly [RegExp, string])[] = [
    [/(?:from|require\)?\()\s*'koffi'|\('koffi'\)/, 'kernel.ts'],
    [/\bset(?:Timeout|Interval)\(/, 'clock.ts'],
    [/\bDate\.now\b/, 'clock.ts'],
    [/\bMath\.random\b|\brandomBytes\b/, 'random.ts'],
    [/from 'pino'/, 'log.ts'],
    [/^import (?!type).*from 'node:http'/m, 'http.ts'],
  ];
  const wrong: string[] = [];
  for (const file of files) {
    // The process edge and the commands of people have no injected time.
    if (['main.ts', 'run-agent.ts'].includes(file) || roomOf(file) === 'cli' || roomOf(file) === 'client') continue;
    const text = readFileSync(join(SRC, file), 'utf8').replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '');
    for (const [pattern, owner] of owners) if (file !== owner && pattern.test(text)) wrong.push(`${file}: ${pattern.source}`);
  }
  t.deepEqual(wrong, []);
});

function importsOf(file: string): string[] {
  const text = readFileSync(join(SRC, file), 'utf8');
  const found = text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g);
  return [...found].map(([, path = '']) => normalize(join(dirname(file), path)));
}

function roomOf(file: string): string {
  const [first = ''] = file.split('/');
  return first.replace(/\.ts$/, '');
}

function levelOf(room: string): number {
  return LEVELS.findIndex((rooms) => rooms.includes(room));
}
