import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { CONFIG_DEFAULTS, LIMIT_RANGES } from '../../src/config/config.ts';
import { formatDuration } from '../../src/config/duration.ts';
import { ConfigError, formatProblems, loadConfig, parseConfig } from '../../src/config/load.ts';
import { LEVELS } from '../../src/config/schema.ts';
import { SignetError } from '../../src/errors.ts';
import { LOG_LEVELS } from '../../src/log.ts';
import { errorOf, problemsOf } from './refusals.ts';

const EXAMPLE = new URL('../../deploy/examples/signet.yaml', import.meta.url).pathname;

const directory = mkdtempSync(join(tmpdir(), 'signet-config-'));
test.after.always(() => rmSync(directory, { recursive: true, force: true }));

test('a file with only a trust domain has the defaults', (t) => {
  const { trustDomain, ...rest } = parseConfig('trustDomain: example.org', 'signet.yaml', {});
  t.is(trustDomain as string, 'example.org');
  t.deepEqual(rest, CONFIG_DEFAULTS);
});

test('the levels of the log are those that the log has', (t) => t.deepEqual([...LEVELS], [...LOG_LEVELS]));

test('the example file loads, and says the defaults', (t) => {
  const { entries, trustDomain, ...rest } = loadConfig(EXAMPLE, {});
  t.is(trustDomain as string, 'example.org');
  t.deepEqual({ ...rest, entries: [] }, CONFIG_DEFAULTS);
  t.deepEqual(
    entries.map(({ id }) => id as string),
    ['spiffe://example.org/ns/default/sa/web', 'spiffe://example.org/ns/default/sa/backup'],
  );
});

test('the example file says of every limit what it may be', (t) => {
  const text = readFileSync(EXAMPLE, 'utf8');
  for (const [name, { min, max }] of Object.entries(LIMIT_RANGES)) {
    const isTime = name.endsWith('Ms');
    const key = isTime ? name.slice(0, -2) : name;
    const bounds = isTime ? `${formatDuration(min)} to ${formatDuration(max)}` : `${min} to ${max}`;
    t.regex(text, new RegExp(`# .*; ${bounds}\\. .*\\n  ${key}: `), key);
  }
});

function assertFrozen(value: unknown): void {
  if (typeof value !== 'object' || value === null) return;
  if (!Object.isFrozen(value)) throw new Error(`not frozen: ${JSON.stringify(value)}`);
  for (const member of Object.values(value)) assertFrozen(member);
}

test('a configuration and the defaults are frozen to the bottom', (t) => {
  t.notThrows(() => assertFrozen(loadConfig(EXAMPLE, {})));
  t.notThrows(() => assertFrozen(CONFIG_DEFAULTS));
  t.throws(() => assertFrozen({}));
});

test('reading twice gives two values that share nothing that can change', (t) => {
  t.deepEqual(loadConfig(EXAMPLE, {}), loadConfig(EXAMPLE, {}));
});

const EIGHT_FAULTS = `
trustDomain: example.org
sokcetPath: /run/api.sock
x509: { ttl: 90, keyType: ecp256 }
dataDir: data
attestation: { unix: { path: true } }
entries:
  - { id: spiffe://example.org/a, selectors: ["unix:path:/bin/a"] }
  - { id: spiffe://example.org, selectors: ["unix:uid:\${NOT_SET}"] }
log: { level: inof }
`;

test('a file with eight faults gives eight problems in one go, in the order of the file', (t) => {
  t.deepEqual(problemsOf(EIGHT_FAULTS).map(({ path, found }) => [path, found]), [
    ['sokcetPath', '"sokcetPath"'],
    ['x509.ttl', '90'],
    ['x509.keyType', '"ecp256"'],
    ['dataDir', '"data"'],
    ['entries[0].selectors', '["unix:path:/bin/a"]'],
    ['entries[1].selectors[0]', '"${NOT_SET}"'],
    ['entries[1].id', '"spiffe://example.org"'],
    ['log.level', '"inof"'],
  ]);
});

const TRUST_DOMAIN =
  'a trust domain name such as example.org: a trust domain name has only lower-case letters a-z, digits, ".", "-" and "_"';

test('problems are rendered for people, one block each', (t) => {
  const yaml = 'trustDomain: Example.org\nx509: { ttl: 90 }\nlog: { levle: info }\n';
  const error = errorOf(() => parseConfig(yaml, 'signet.yaml', {}));
  t.is(
    formatProblems(error),
    `signet.yaml has 3 problems.

  trustDomain
    found    "Example.org"
    allowed  ${TRUST_DOMAIN}

  x509.ttl
    found    90
    allowed  a duration from 10s to 365d, such as 250ms, 90s, 30m, 1h30m or 7d
    hint     add a unit: ms, s, m, h or d

  log.levle
    found    "levle"
    allowed  a key among level
    hint     did you mean "level"?
`,
  );
});

test('a problem of the whole file is rendered as such', (t) => {
  const error = errorOf(() => parseConfig('a: 1\n---\nb: 2\n', 'signet.yaml', {}));
  t.is(
    formatProblems(error),
    'signet.yaml has 1 problem.\n\n  (the file)\n    found    2 YAML documents\n    allowed  one YAML document\n',
  );
});

test('an error has its code, its file and a message for one line of a log', (t) => {
  const error = errorOf(() => parseConfig('log: { level: inof }', 'signet.yaml', {}));
  t.true(error instanceof SignetError);
  t.is(error.code, 'invalid_config');
  t.is(error.name, 'ConfigError');
  t.is(error.fileName, 'signet.yaml');
  t.is(
    error.message,
    'signet.yaml has 2 problems: trustDomain: found nothing, allowed: a trust domain name such as example.org; ' +
      'log.level: found "inof", allowed: one of debug, info, warn, error, silent (did you mean "info"?)',
  );
});

test('a message stays short however many problems there are', (t) => {
  const keys = Array.from({ length: 1_000 }, (_, n) => `k${n}: 1`).join('\n');
  const error = errorOf(() => parseConfig(`trustDomain: a\n${keys}`, 'signet.yaml', {}));
  t.is(error.problems.length, 1_000);
  t.true(error.message.endsWith('; and 990 more'));
});

test('what a terminal would obey is shown escaped', (t) => {
  const [problem] = problemsOf('trustDomain: "\\e[31m\\x9b\\u202ex"\n');
  t.is(problem?.found, '"\\u001b[31m\\u009b\\u202ex"');
});

test('a file is read, through a link too', (t) => {
  const file = join(directory, 'good.yaml');
  writeFileSync(file, '\uFEFFtrustDomain: "${TD}"\n');
  symlinkSync(file, join(directory, 'link.yaml'));
  t.is(loadConfig(file, { TD: 'example.org' }).trustDomain as string, 'example.org');
  t.is(loadConfig(join(directory, 'link.yaml'), { TD: 'example.org' }).trustDomain as string, 'example.org');
});

function refusesFile(title: string, prepare: (path: string) => void, found: string, allowed: string): void {
  test(title, (t) => {
    const path = join(directory, `${title.replaceAll(/\W/g, '-')}.yaml`);
    prepare(path);
    const error = t.throws(() => loadConfig(path, {}), { instanceOf: ConfigError });
    t.deepEqual(error?.problems, [{ path: '', found, allowed }]);
    t.is(error?.fileName, path);
  });
}

refusesFile('a file that is not there is refused', () => undefined, 'ENOENT', 'a readable file');
refusesFile(
  'a directory is refused',
  (path) => execFileSync('mkdir', [path]),
  'something that is no regular file',
  'a readable file',
);
refusesFile(
  'a named pipe is refused without waiting',
  (path) => execFileSync('mkfifo', [path]),
  'something that is no regular file',
  'a readable file',
);
refusesFile(
  'a file above 1 MiB is refused',
  (path) => writeFileSync(path, ' '.repeat(1_048_577)),
  '1048577 bytes',
  'at most 1048576 bytes',
);
refusesFile(
  'a file that is not UTF-8 is refused',
  (path) => writeFileSync(path, Buffer.from('trustDomain: \xe9', 'latin1')),
  'bytes that are not UTF-8',
  'text in UTF-8',
);
