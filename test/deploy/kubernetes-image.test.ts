import { globSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { ROOT } from './manifests.ts';

const lines = readFileSync(join(ROOT, 'deploy/container/Dockerfile'), 'utf8')
  .replaceAll(/\\\n/g, ' ')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'));
const ignored = readFileSync(join(ROOT, 'deploy/container/Dockerfile.dockerignore'), 'utf8').split('\n');
const launcher = readFileSync(join(ROOT, 'deploy/signet'), 'utf8');

/** The arguments of the only instruction of this name in the last stage. */
function last(name: string): string {
  const stage = lines.slice(lines.findLastIndex((line) => line.startsWith('FROM ')));
  return stage.filter((line) => line.startsWith(`${name} `)).at(-1)?.slice(name.length + 1) ?? '';
}

test('the image starts Node.js with the flags of deploy/signet', (t) => {
  const flags = /^exec "\$node" (.+) "\$root\/dist\/main\.js"/m.exec(launcher)?.[1]?.split(' ') ?? [];
  t.true(flags.length >= 3);
  t.deepEqual(JSON.parse(last('ENTRYPOINT')), ['/usr/local/bin/node', ...flags, '/opt/signet/dist/main.js']);
});

test('the image sets the variables of deploy/signet', (t) => {
  const exported = [...launcher.matchAll(/^export (\S+)$/gm)].map(([, assignment]) => assignment ?? '');
  t.true(exported.length > 0);
  for (const assignment of exported) t.true(last('ENV').includes(assignment), assignment);
  t.true(last('ENV').includes('NODE_OPTIONS=""'));
});

test('everything that is copied from the project is there, and not ignored', (t) => {
  const sources = lines
    .filter((line) => line.startsWith('COPY ') && !line.includes('--from='))
    .flatMap((line) => line.split(/ +/).slice(1, -1).filter((word) => !word.startsWith('--')));
  t.true(sources.length >= 5);
  for (const source of sources) {
    t.truthy(statSync(join(ROOT, source), { throwIfNoEntry: false }), source);
    t.true(ignored.includes(`!${source}`), `${source} is ignored`);
  }
});

test('every stage that is copied from exists, and each has a base', (t) => {
  const stages = lines.flatMap((line) => / AS (\S+)$/.exec(line)?.[1] ?? []);
  const used = lines.flatMap((line) => /--from=(\S+)/.exec(line)?.[1] ?? []);
  t.deepEqual([...new Set(used)].sort(), stages.sort());
  const bases = lines.flatMap((line) => /^FROM .*\$\{(\w+)\}/.exec(line)?.[1] ?? []);
  for (const base of bases) t.true(lines.some((line) => line.startsWith(`ARG ${base}=`)), base);
});

test('the image has no shell to run: its instructions are lists', (t) => {
  t.deepEqual(JSON.parse(last('RUN')), ['/usr/local/bin/signet', 'version']);
  t.deepEqual(JSON.parse(last('CMD')), ['--help']);
  t.is(last('USER'), '0:0');
});

test('the files that the program reads beside its code are in the image', (t) => {
  const outside = globSync('src/**/*.ts', { cwd: ROOT })
    .flatMap((file) => [...readFileSync(join(ROOT, file), 'utf8').matchAll(/new URL\('(?:\.\.\/)+([a-z]+)\//g)])
    .map(([, directory]) => directory ?? '');
  t.true(outside.includes('proto'));
  for (const directory of new Set(outside)) t.true(lines.some((line) => line.endsWith(` /opt/signet/${directory}`)), directory);
});

test('the image has the version of the package', (t) => {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  t.true(lines.includes(`ARG VERSION=${version}`));
});
