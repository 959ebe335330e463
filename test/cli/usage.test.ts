import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import test from 'ava';
import { COMMANDS } from '../../src/cli/command-list.ts';
import { run } from './run.ts';

const directory = await mkdtemp(join(tmpdir(), 'signet-usage-'));
test.after.always(() => rm(directory, { recursive: true, force: true }));

const NOWHERE = join(directory, 'nowhere.sock');

const WRONG: readonly (readonly [words: string, problem: RegExp])[] = [
  ['fetch', /needs one of: x509, jwt, bundle/],
  ['fetch --socket x', /needs one of/],
  ['fetch x590', /unknown command "fetch x590"; did you mean "signet fetch x509"\?/],
  ['fetsh x509', /did you mean "signet fetch"\?/],
  ['helthcheck', /did you mean "signet healthcheck"\?/],
  ['zebra', /see "signet --help"/],
  ['constructor', /unknown command/],
  ['fetch x509 --soket x', /unknown option --soket; did you mean --socket\?/],
  ['fetch x509 --zzzzzz', /known are --write/],
  ['fetch x509 -z', /unknown option -z/],
  ['fetch x509 extra', /"extra" is one argument too many/],
  ['fetch x509 --write=', /--write has an empty value/],
  ['fetch x509 --output yaml', /--output is "yaml"; allowed is table, json/],
  ['fetch x509 --timeout 5', /--timeout is "5"/],
  ['fetch x509 --socket http://x', /must begin with unix: or tcp:/],
  ['fetch jwt', /--audience is missing/],
  ['fetch jwt --audience=', /empty value/],
  ['fetch jwt --audience a --id example.org', /--id: "example.org" is not a SPIFFE ID/],
  ['fetch bundle --format der', /allowed is pem, jwks, spiffe/],
  ['fetch bundle --format pem --output json', /exclude each other/],
  ['fetch bundle --trust-domain A', /--trust-domain: /],
  ['watch --count 0', /--count is "0"; allowed is an integer from 1/],
  ['validate --audience a', /something is missing: signet validate/],
  ['validate t', /--audience is missing/],
  ['config check', /something is missing/],
  ['version --socket x', /unknown option --socket/],
];

for (const [words, problem] of WRONG) {
  test(`"signet ${words}" ends with 2 and says why`, async (t) => {
    const { code, stdout, stderr } = await run(words.split(' '), { env: { SPIFFE_ENDPOINT_SOCKET: `unix://${NOWHERE}` } });
    t.is(code, 2);
    t.is(stdout, '');
    t.regex(stderr, problem);
  });
}

test('WE-10: without an endpoint, a command ends with 2 and names both ways to give one', async (t) => {
  const { code, stderr } = await run(['fetch', 'x509']);
  t.is(code, 2);
  t.regex(stderr, /SPIFFE_ENDPOINT_SOCKET/);
  t.regex(stderr, /--socket/);
});

test('a socket that is not there ends with 3 and asks whether the agent runs', async (t) => {
  for (const words of [['fetch', 'x509'], ['fetch', 'jwt', '-a', 'a'], ['fetch', 'bundle'], ['healthcheck'], ['validate', '-a', 'a', 't']]) {
    const { code, stderr } = await run([...words, '--socket', NOWHERE]);
    t.is(code, 3, words.join(' '));
    t.regex(stderr, /there is no socket at .*nowhere\.sock\n {2}is the agent running\?/);
  }
});

test('a path that is no socket ends with 3 and says so', async (t) => {
  const path = join(directory, 'file ? # %.sock');
  await writeFile(path, '');
  const { code, stderr } = await run(['healthcheck', '--socket', path]);
  t.is(code, 3);
  t.true(stderr.includes(`${path} is not a socket`));
});

test('an endpoint that accepts and never answers ends with 3 at the time-out', async (t) => {
  const path = join(directory, 'silent.sock');
  // grpc-js goes on waiting for the server's first words after its channel was closed.
  const accepted: Socket[] = [];
  const server = createServer((socket) => void accepted.push(socket.on('error', () => undefined))).listen(path);
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    for (const socket of accepted) socket.destroy();
  });
  const { code, stderr } = await run(['fetch', 'x509', '--socket', path, '--timeout', '200ms']);
  t.is(code, 3);
  t.regex(stderr, /did not answer in time/);
});

test('a watch that gets no update ends with 3 after --timeout, and says why', async (t) => {
  const { code, stderr } = await run(['watch', '--socket', NOWHERE, '--timeout', '2s']);
  t.is(code, 3);
  t.regex(stderr, /next attempt in [0-9.]+ s\n/);
  t.regex(stderr, /there is no socket/);
});

test('an interrupt ends a fetch with 130 and a watch with 0', async (t) => {
  const path = join(directory, 'interrupted.sock');
  const stops: AbortController[] = [];
  const accepted: Socket[] = [];
  const server = createServer((socket) => {
    accepted.push(socket.on('error', () => undefined));
    stops.shift()?.abort();
  }).listen(path);
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    for (const socket of accepted) socket.destroy();
  });
  for (const [words, code] of [[['fetch', 'x509'], 130], [['watch'], 0], [['watch', '-n', '1'], 130]] as const) {
    const stop = new AbortController();
    stops.push(stop);
    const result = await run([...words, '--socket', path], { signal: stop.signal });
    t.is(result.code, code, words.join(' '));
  }
});

test('an interrupt ends a command that waits for standard input', async (t) => {
  const stop = new AbortController();
  const running = run(['validate', '-a', 'a', '-', '--socket', NOWHERE], { signal: stop.signal });
  setImmediate(() => stop.abort());
  t.is((await running).code, 130);
});

test('every command has help with its options, examples and the exit codes', async (t) => {
  for (const name of Object.keys(COMMANDS)) {
    const { code, stdout, stderr } = await run([...name.split(' '), '--help']);
    t.deepEqual([code, stderr], [0, '']);
    t.regex(stdout, /Usage:\n {2}signet /);
    t.regex(stdout, /Options:\n/);
    t.regex(stdout, /Examples:\n {2}signet /);
    t.regex(stdout, /Exit codes:\n {2}0 +done\n/);
    t.true(stdout.split('\n').every((line) => line.length <= 130), name);
    t.is((await run(['help', ...name.split(' ')])).stdout, stdout);
  }
});

test('the overview lists every command, with those that are run elsewhere', async (t) => {
  for (const words of [['help'], ['--help'], ['-h']]) {
    const { code, stdout } = await run(words, { others: [['agent', 'run the agent']] });
    t.is(code, 0);
    for (const name of [...Object.keys(COMMANDS), 'agent']) t.true(stdout.includes(`  ${name} `), name);
  }
});

test('the version is that of the package', async (t) => {
  t.regex((await run(['version'])).stdout, /^signet \d+\.\d+\.\d+ \(Node \d+/);
  t.regex((await run(['--version'])).stdout, /^signet /);
  const { stdout } = await run(['version', '-o', 'json']);
  t.deepEqual(Object.keys(JSON.parse(stdout) as object), ['version', 'node']);
});

test('a good configuration ends with 0, a bad one with 2 and all its problems', async (t) => {
  const [good, bad] = [join(directory, 'good.yaml'), join(directory, 'bad.yaml')];
  await writeFile(good, 'trustDomain: example.org\n');
  await writeFile(bad, 'trustDomain: Example.org\nx509:\n  ttl: 5\n');
  t.is((await run(['config', 'check', good])).code, 0);
  const failed = await run(['config', 'check', bad]);
  t.deepEqual([failed.code, failed.stdout], [2, '']);
  t.regex(failed.stderr, /trustDomain/);
  t.regex(failed.stderr, /x509\.ttl/);
  const json = await run(['config', 'check', bad, '--output', 'json']);
  t.is(json.code, 2);
  t.like(JSON.parse(json.stdout), { valid: false, problems: [{ path: 'trustDomain' }, { path: 'x509.ttl' }] });
  t.is((await run(['config', 'check', join(directory, 'absent.yaml')])).code, 2);
});

function failingStream(code: string): Writable {
  return new Writable({ write: (_chunk, _encoding, done) => done(Object.assign(new Error(`write ${code}`), { code })) });
}

test('a reader that has gone is no failure, a full disk is', async (t) => {
  t.is((await run(['version'], { stdout: failingStream('EPIPE') })).code, 0);
  const full = await run(['version'], { stdout: failingStream('ENOSPC') });
  t.is(full.code, 1);
  t.regex(full.stderr, /ENOSPC/);
});
