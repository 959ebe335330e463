import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Explanation } from '../../src/admin/messages.ts';
import { describeDryRun, describeExplanation } from '../../src/cli/explain.ts';
import { SignetError } from '../../src/errors.ts';
import { entry, filledSource, inPod, pod, STATUS, unclear, type Filling } from '../admin/filled-source.ts';
import { openAdmin } from '../admin/operator.ts';
import { needsRoot, testIf } from '../support/kernel-conditions.ts';
import { TestProcess } from '../support/kernel-processes.ts';
import { run, type Result, type Settings } from './run.ts';

const UID = process.geteuid?.() ?? 0;
const HERE = 'spiffe://example.org/here';
const plain = (_style: string, text: string): string => text;

async function signetFor(
  t: ExecutionContext,
  filling: Filling = {},
): Promise<(words: string, settings?: Settings) => Promise<Result>> {
  const { socketPath } = await openAdmin(t, filledSource(filling));
  return (words, settings = {}) => run(words.split(' '), { env: { SIGNET_ADMIN_SOCKET: socketPath }, ...settings });
}

function temporary(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'signet-explain-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

const WEB = `apiVersion: spire.spiffe.io/v1alpha1
kind: ClusterSPIFFEID
metadata: { name: web }
spec: { spiffeIDTemplate: "spiffe://example.org/web", podSelector: { matchLabels: { app: web } } }
`;

test('explain --pid tells people who it is, what it has, what applies and what it gets', async (t) => {
  const entries = [entry(HERE, [`unix:uid:${UID}`]), entry('spiffe://example.org/longer/name', ['unix:uid:4242'])];
  const signet = await signetFor(t, { entries });
  const { code, stdout, stderr } = await signet(`explain --pid ${process.pid}`);
  t.deepEqual([code, stderr], [0, '']);
  t.regex(stdout, new RegExp(`^Process ${process.pid} \\(`));
  t.regex(stdout, new RegExp(`\n {2}User +uid ${UID}, gid [0-9]+`));
  t.regex(stdout, new RegExp(`\n {2}unix:uid:${UID} +SO_PEERCRED\n`));
  t.regex(stdout, new RegExp(`\n {2}✓ ${HERE} {8} +the caller has unix:uid:${UID} \\(entries\\[0\\]\\)\n`));
  t.regex(stdout, /\n {2}✗ spiffe:\/\/example\.org\/longer\/name {2}the caller lacks unix:uid:4242 \(entries\[1\]\)\n/);
  t.regex(
    stdout,
    /\nIdentities\n {2}spiffe:\/\/example\.org\/here \(default\)\n {4}X509-SVID {2}none held now; it is made when it is asked for\n/,
  );
  t.regex(stdout, /\nAnswer: it gets one identity: spiffe:\/\/example\.org\/here\n$/);
});

test('explain --output json is what the agent has answered', async (t) => {
  const signet = await signetFor(t, { entries: [entry(HERE, [`unix:uid:${UID}`])] });
  const { code, stdout } = await signet(`explain -p ${process.pid} -o json`);
  t.is(code, 0);
  t.like(JSON.parse(stdout) as Explanation, {
    subject: { process: { pid: process.pid } },
    identities: { 0: { spiffe_id: HERE, default: true } },
    answer: { kind: 'identities' },
  });
});

test('explain ends with 4 when there is no identity, and says why', async (t) => {
  const signet = await signetFor(t);
  const { code, stdout } = await signet(`explain --pid ${process.pid}`);
  t.is(code, 4);
  t.regex(stdout, /\nAnswer: no rule and no entry applies to it/);
});

test('explain --pod shows each rule with a mark and its reason', async (t) => {
  const found = pod();
  const rules = {
    web: { spiffeIDTemplate: 'spiffe://example.org/web' },
    db: { spiffeIDTemplate: HERE, podSelector: { matchLabels: { app: 'db' } } },
  };
  const signet = await signetFor(t, { pods: [found], place: () => inPod(found), rules });
  const { code, stdout } = await signet('explain --pod shop/web-1 --container main');
  t.is(code, 0);
  t.regex(stdout, /^Pod shop\/web-1, container main\n/);
  t.regex(stdout, /\n {2}Account +service account web\n/);
  t.regex(stdout, /\n {2}✗ ClusterSPIFFEID db {3}pod labels do not match: app/);
  t.regex(stdout, /\n {2}✓ ClusterSPIFFEID web {2}it selects all pods\n +spiffe:\/\/example\.org\/web\n/);
  t.regex(stdout, /\n {2}✗ default +ClusterSPIFFEID web selects the pod\n/);
  t.regex(stdout, /\nNote: Selectors by user and group depend on the process/);
  const process_ = await signet(`explain --pid ${process.pid}`);
  t.regex(process_.stdout, new RegExp(`^Process ${process.pid} \\(.*\\) in pod shop/web-1, container main\n`));
});

test('explain --rules tells what would change, and ends with 2 when a rule is refused', async (t) => {
  const signet = await signetFor(t, { pods: [pod(), pod({ name: 'db-1', uid: 'd', labels: {} })] });
  const file = join(temporary(t), 'rules.yaml');
  writeFileSync(file, WEB);
  const good = await signet(`explain --rules ${file}`);
  t.is(good.code, 0);
  t.is(
    good.stdout.split('\nNote')[0],
    `Rules of ${file} (nothing is applied)
  ✓ ClusterSPIFFEID web: new; applies to 1 pod here

Pods of this node
  shop/web-1
    - spiffe://example.org/ns/shop/sa/web
    + spiffe://example.org/web (default)
  1 pod stays as it is.
`,
  );
  const bad = await signet('explain --rules -', { stdin: WEB.replace('podSelector', 'podSelektor') });
  t.is(bad.code, 2);
  t.regex(bad.stdout, /✗ ClusterSPIFFEID web: refused\n {4}document 1: spec\.podSelektor: found .*, allowed: /);
  const json = await signet('explain --rules - -o json', { stdin: WEB });
  t.like(JSON.parse(json.stdout), { rules: { 0: { change: 'new', pods: 1 } }, pods: { length: 2 } });
  const broken = await signet('explain --rules -', { stdin: 'a: [' });
  t.deepEqual([broken.code, broken.stdout], [2, '']);
  t.regex(broken.stderr, /it is not YAML\n {2}line 1, column .*YAML 1\.2/);
});

const WRONG: readonly (readonly [words: string, problem: RegExp])[] = [
  ['explain', /say what to explain: one of --pid N, --pod NAMESPACE\/NAME and --rules FILE/],
  ['explain --pid 1 --pod a/b', /say what to explain/],
  ['explain --pid 0', /--pid is "0"; allowed is an integer from 1/],
  ['explain --pid me', /--pid is "me"/],
  ['explain --pod web', /--pod is "web"; allowed is NAMESPACE\/NAME/],
  ['explain --pod A/b', /pod is "A\/b"/],
  ['explain --pid 1 --container a', /--container goes with --pod/],
  ['explain --rules /nowhere/rules.yaml', /\/nowhere\/rules\.yaml cannot be read: ENOENT/],
  ['explain --rules /', /\/ cannot be read: EISDIR/],
  ['explain --admin= --pid 1', /--admin has an empty value/],
  ['explain 4242', /one argument too many/],
];

for (const [words, problem] of WRONG) {
  test(`"signet ${words}" ends with 2 and says why`, async (t) => {
    const { code, stdout, stderr } = await (await signetFor(t, { pods: [] }))(words);
    t.deepEqual([code, stdout], [2, '']);
    t.regex(stderr, problem);
  });
}

test('a file of rules that is too large is refused before it is sent', async (t) => {
  const file = join(temporary(t), 'rules.yaml');
  writeFileSync(file, '#'.repeat(1_048_577));
  const { code, stderr } = await (await signetFor(t, { pods: [] }))(`explain --rules ${file}`);
  t.is(code, 2);
  t.regex(stderr, /has more than 1048576 bytes/);
});

test('what the agent does not find ends with 1 and says what to do', async (t) => {
  const signet = await signetFor(t, { pods: [pod()], elsewhere: { 'shop/there': 'node-2' } });
  const there = await signet('explain --pod shop/there');
  t.deepEqual(
    [there.code, there.stderr],
    [1, 'signet: there is no pod shop/there on this node (node-1): it runs on node node-2\n  ask the agent of node node-2\n'],
  );
  const gone = await signet('explain --pid 4194304');
  t.is(gone.code, 1);
  t.regex(gone.stderr, /there is no process 4194304 here.*\n {2}the number counts in the pid namespace of the agent/);
  t.regex((await signet('explain --pod shop/web-1 --container x')).stderr, /has no container x\n {2}it has main\n/);
});

test('without an agent, or without the right, it ends with 3 and says what to do', async (t) => {
  const directory = temporary(t);
  const nowhere = await run(['explain', '--pid', '1', '--admin', join(directory, 'admin.sock')]);
  t.deepEqual([nowhere.code, nowhere.stdout], [3, '']);
  t.regex(nowhere.stderr, /^signet: there is no agent at .*admin\.sock\n {2}is the agent running on this node\?/);
  const file = join(directory, 'file');
  writeFileSync(file, '');
  t.regex((await run(['status', '--admin', file])).stderr, /nobody listens at .*or it is no socket/);
  t.regex((await run(['status', '--admin', `/${'a'.repeat(120)}`])).stderr, /too long for a socket/);
  const usual = '/run/signet/private/admin.sock';
  // An agent of this machine may be there.
  if (!existsSync(usual)) t.regex((await run(['rules'], { env: { SIGNET_ADMIN_SOCKET: '' } })).stderr, new RegExp(usual.replaceAll('.', '\\.')));
});

const STRANGER = `
const [run, , ...words] = process.argv.slice(1);
const [{ run: command }] = await Promise.all([import(run), import(process.argv[2])]);
process.setgroups([]);
process.setgid(65534);
process.setuid(65534);
console.log(JSON.stringify(await command(words)));
`;

testIf(needsRoot, 'a user without the right ends with 3 and is told to be root', async (t) => {
  const { socketPath } = await openAdmin(t, filledSource());
  const modules = ['./run.ts', '../../src/cli/status.ts'].map((path) => new URL(path, import.meta.url).href);
  const args = ['--input-type=module', '-e', STRANGER, ...modules, 'status', '--admin', socketPath];
  const result = JSON.parse(await new TestProcess(t, process.execPath, args).line()) as Result;
  t.is(result.code, 3);
  t.regex(result.stderr, /^signet: user 65534 may not open .*admin\.sock\n {2}run this as root, or as the user of the agent\n$/);
});

test('an agent that is not ready, or busy, ends with 3', async (t) => {
  const status = (): never => {
    throw new SignetError('unavailable', 'the agent is starting');
  };
  const { code, stderr } = await (await signetFor(t, { overrides: { status } }))('status');
  t.is(code, 3);
  t.regex(stderr, /^signet: the agent is starting\n {2}/);
});

async function serve(t: ExecutionContext, answer: (socket: Socket) => void): Promise<string> {
  const path = join(temporary(t), 'other.sock');
  const accepted: Socket[] = [];
  const server = createServer((socket) => {
    accepted.push(socket.on('error', () => undefined));
    answer(socket);
  }).listen(path);
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    for (const socket of accepted) socket.destroy();
  });
  chmodSync(path, 0o600);
  return path;
}

test('what is not an agent is told so, whatever it answers', async (t) => {
  const answers: readonly (readonly [text: string | undefined, code: number, problem: RegExp])[] = [
    ['HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello', 1, /what answers at .* is not an agent \(HTTP 200\)/],
    ['HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull', 1, /is not an agent/],
    ['HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}', 1, /is not an agent \(HTTP 500\)/],
    ['220 smtp.example.org ESMTP\r\n', 3, /ended the connection: Parse Error/],
    [undefined, 3, /ended the connection: socket hang up/],
  ];
  for (const [text, code, problem] of answers) {
    const path = await serve(
      t,
      (socket) => void (text === undefined ? socket.end() : socket.once('data', () => socket.end(text))),
    );
    const result = await run(['status', '--admin', path]);
    t.is(result.code, code, String(text));
    t.regex(result.stderr, problem);
  }
});

test('an agent that never answers ends with 3 at the time-out, and an interrupt with 130', async (t) => {
  const stop = new AbortController();
  const path = await serve(t, () => undefined);
  const late = await run(['status', '--admin', path, '--timeout', '100ms']);
  t.is(late.code, 3);
  t.regex(late.stderr, /did not answer in time/);
  const other = await serve(t, () => void stop.abort());
  t.is((await run(['status', '--admin', other], { signal: stop.signal })).code, 130);
});

test('text from elsewhere cannot steer the terminal', (t) => {
  const evil = '\u001b[2J\n';
  const explanation: Explanation = {
    subject: {
      process: { pid: 1, command: evil, state: 'S', kernel_thread: false, uid: 0, gid: 0, groups: [] },
      placement: { kind: 'pod', why: evil, cgroup: [evil] },
      pod: {
        namespace: evil,
        name: evil,
        uid: evil,
        service_account: evil,
        node: evil,
        phase: evil,
        deleting: false,
        containers: [],
      },
      container: evil,
    },
    selectors: [{ selector: evil, from: evil }],
    rules: [{ kind: evil, name: evil, applies: false, outcome: evil, why: evil, spiffe_id: evil, problems: [evil] }],
    static_entries: [{ spiffe_id: evil, from: evil, selectors: [], missing: [], applies: true, why: evil }],
    identities: [
      { spiffe_id: evil, default: true, hint: evil, dns_names: [evil], x509: { serial: evil, readers: 1, failures: 0 } },
    ],
    answer: { kind: 'identities', why: evil },
    notes: [evil],
  };
  t.false(describeExplanation(explanation, 0, plain).includes('\u001b'));
  const problems = [{ path: evil, found: evil, allowed: evil }];
  const pods = [{ namespace: evil, name: evil, now: [evil], then: [evil, 'a'], changed: true, problems: [evil] }];
  t.false(
    describeDryRun(
      { rules: [{ kind: evil, name: evil, change: 'new', pods: 1, problems }], pods, notes: [evil] },
      evil,
      plain,
    ).includes('\u001b'),
  );
});

test('each cgroup path is shown once, with its hierarchies where there are several', async (t) => {
  const same = ['9:memory:/kubepods/a', '8:cpu,cpuacct:/kubepods/a', '0::/kubepods/a'];
  const other = ['9:memory:/docker/a', '1:name=systemd:/', '0::/'];
  for (const [cgroup, shown] of [
    [same, /\n {2}Place +not clear: it may be .*\n +\/kubepods\/a\n\n/],
    [other, /\n +\/docker\/a \(memory\)\n +\/ \(name=systemd, v2\)\n\n/],
  ] as const) {
    const signet = await signetFor(t, { pods: [], place: () => ({ ...unclear('why'), cgroup }) });
    t.regex((await signet(`explain --pid ${process.pid}`)).stdout, shown);
  }
});

test('two operators are answered at once', async (t) => {
  const signet = await signetFor(t, { entries: [entry(HERE, [`unix:uid:${UID}`])], overrides: { status: () => STATUS } });
  const results = await Promise.all([
    signet(`explain --pid ${process.pid}`),
    signet('status'),
    signet('rules'),
    signet(`explain --pid ${process.pid}`),
  ]);
  t.deepEqual(
    results.map(({ code }) => code),
    [0, 0, 0, 0],
  );
});
