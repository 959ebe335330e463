import { readdirSync, readFileSync } from 'node:fs';
import { spawn } from 'node:child_process';
import test, { type ExecutionContext } from 'ava';
import { Explainer } from '../../src/admin/explainer.ts';
import type { Explanation } from '../../src/admin/messages.ts';
import { Refusal } from '../../src/admin/refusal.ts';
import { SignetError } from '../../src/errors.ts';
import { TestProcess, untilWithoutReaping } from '../support/kernel-processes.ts';
import { POD_UID } from '../support/kubernetes-pods.ts';
import { entry, filledSource, inPod, pod, STATUS, unclear, type Filling } from './filled-source.ts';

const UID = process.geteuid?.() ?? 0;
const HERE = 'spiffe://example.org/here';
const WEB = 'spiffe://example.org/ns/shop/sa/web';

function explainProcess(pid: number, filling: Filling = {}): Promise<Explanation> {
  return new Explainer(filledSource(filling)).process(pid, new AbortController().signal);
}

function explainPod(name: string, container: string | undefined, filling: Filling): Promise<Explanation> {
  const [namespace = '', pod = ''] = name.split('/');
  return new Explainer(filledSource(filling)).pod(namespace, pod, container, new AbortController().signal);
}

async function refusal(t: ExecutionContext, asked: Promise<Explanation>): Promise<Refusal> {
  const error = await t.throwsAsync(asked, { instanceOf: Refusal });
  return error as Refusal;
}

test('a process of the host is told with its user, its selectors and where each of them comes from', async (t) => {
  const entries = [entry(HERE, [`unix:uid:${UID}`]), entry('spiffe://example.org/other', ['unix:uid:4242', `unix:uid:${UID}`])];
  const told = await explainProcess(process.pid, { entries });
  t.like(told.subject, { process: { pid: process.pid, uid: UID, kernel_thread: false }, placement: { kind: 'unattested' } });
  t.deepEqual(
    told.selectors.find(({ selector }) => selector === `unix:uid:${UID}`),
    { selector: `unix:uid:${UID}`, from: 'SO_PEERCRED' },
  );
  t.deepEqual(told.rules, []);
  t.like(told.static_entries, {
    0: { spiffe_id: HERE, from: 'entries[0]', applies: true, missing: [], why: `the caller has unix:uid:${UID}` },
    1: { applies: false, missing: ['unix:uid:4242'], why: 'the caller lacks unix:uid:4242' },
    length: 2,
  });
  t.deepEqual(told.identities, [{ spiffe_id: HERE, default: true, hint: '', dns_names: [] }]);
  t.deepEqual(told.answer, { kind: 'identities', why: `it gets one identity: ${HERE}` });
});

test('a process that owns nothing is told so in the words of the Workload API', async (t) => {
  const told = await explainProcess(process.pid);
  t.deepEqual(told.answer, { kind: 'none', why: 'no rule and no entry applies to it (PermissionDenied: no identity issued)' });
});

test('nothing is no final word while the rules are not complete', async (t) => {
  const source = filledSource();
  const registration = { ...source.registration, isComplete: () => false };
  const told = await explainProcess(process.pid, { overrides: { registration } });
  t.like(told.answer, { kind: 'refused' });
  t.regex(told.answer.why, /not complete yet/);
});

test('what is held of an identity is told without keys, tokens and certificates', async (t) => {
  const svid = { serial: 'abc', notBefore: 0, notAfter: 3_600_000 };
  const x509 = { describe: () => ({ id: entry(HERE, ['unix:uid:1']).id, svid, renewAt: 1_800_000, readers: 2, failures: 1 }) };
  const jwt = { describe: () => ({ tokens: 3, soonestExpiry: 300_000 }) };
  const { identities } = await explainProcess(process.pid, {
    entries: [entry(HERE, [`unix:uid:${UID}`], { hint: 'a', dnsNames: ['a.test'] })],
    overrides: { x509, jwt },
  });
  t.deepEqual(identities, [
    {
      spiffe_id: HERE,
      default: true,
      hint: 'a',
      dns_names: ['a.test'],
      x509: {
        serial: 'abc',
        not_before: '1970-01-01T00:00:00Z',
        not_after: '1970-01-01T01:00:00Z',
        renew_at: '1970-01-01T00:30:00Z',
        readers: 2,
        failures: 1,
      },
      jwt: { tokens: 3, soonest_expiry: '1970-01-01T00:05:00Z' },
    },
  ]);
});

test('a process that has ended is not there, before and while it is asked about', async (t) => {
  const child = spawn('true');
  await new Promise((resolve) => child.once('exit', resolve));
  const error = await refusal(t, explainProcess(child.pid ?? 0));
  t.is(error.code, 'no_such_process');
  t.regex(error.next ?? '', /pid namespace of the agent/);
  const other = new TestProcess(t, process.execPath, ['-e', 'process.stdin.resume()']);
  const attest = async (): Promise<never> => {
    await other.stop();
    throw new SignetError('caller_gone', 'process has ended');
  };
  t.is((await refusal(t, explainProcess(other.pid, { overrides: { unix: { attest } } }))).code, 'no_such_process');
  const third = new TestProcess(t, process.execPath, ['-e', 'process.stdin.resume()']);
  const late = async (): Promise<readonly string[]> => {
    await third.stop();
    return ['unix:uid:0'];
  };
  t.is((await refusal(t, explainProcess(third.pid, { overrides: { unix: { attest: late } } }))).code, 'no_such_process');
});

test('a zombie is told as one, and gets nothing', async (t) => {
  const child = spawn('true');
  const stateOf = (): string => readFileSync(`/proc/${child.pid}/stat`, 'latin1').replace(/^.*\) (.).*$/s, '$1');
  untilWithoutReaping(() => stateOf() === 'Z', 'the child is a zombie');
  const told = await explainProcess(child.pid ?? 0, { entries: [entry(HERE, [`unix:uid:${UID}`])] });
  t.like(told, { subject: { process: { state: 'Z' } }, identities: [], answer: { kind: 'refused' } });
  t.regex(told.answer.why, /a zombie/);
});

test('a thread is told as its process', async (t) => {
  const thread =
    readdirSync('/proc/self/task')
      .map(Number)
      .find((id) => id !== process.pid) ?? 0;
  const told = await explainProcess(thread);
  t.is(told.subject.process?.pid, process.pid);
  t.deepEqual(told.notes, [`${thread} is a thread of process ${process.pid}; this is about the process.`]);
});

test('an unclear cgroup, or a pod that nobody knows, is told as a refusal with its reason', async (t) => {
  const entries = [entry(HERE, [`unix:uid:${UID}`])];
  const docker = await explainProcess(process.pid, {
    entries,
    pods: [],
    place: () => unclear('/docker/abc is a container of someone else'),
  });
  t.like(docker, {
    subject: { placement: { kind: 'unclear', cgroup: ['0::/docker/abc'] } },
    selectors: [],
    identities: [],
    answer: { kind: 'refused' },
  });
  t.regex(docker.answer.why, /^it cannot be attested: it may be in a container: \/docker\/abc is a container of someone else$/);
  const unknown = await explainProcess(process.pid, { entries, pods: [], place: () => inPod(undefined) });
  t.like(unknown, { subject: { placement: { kind: 'pod' } }, identities: [], answer: { kind: 'refused' } });
  t.regex(unknown.answer.why, /not among the pods of this node/);
});

test('a program that cannot be told is a refusal with its reason', async (t) => {
  const attest = async (): Promise<never> => {
    throw new SignetError('caller_changed', 'process 7 has executed another program');
  };
  const told = await explainProcess(process.pid, { overrides: { unix: { attest } } });
  t.like(told.answer, { kind: 'refused', why: 'process 7 has executed another program' });
});

test('a process in a pod is told with every rule and why it applies or not', async (t) => {
  const found = pod();
  const rules = {
    web: { spiffeIDTemplate: 'spiffe://example.org/web/{{ .PodMeta.Name }}', podSelector: { matchLabels: { app: 'web' } } },
    db: { spiffeIDTemplate: 'spiffe://example.org/db', podSelector: { matchLabels: { app: 'db' } } },
    broken: { spiffeIDTemplate: 'spiffe://example.org/{{ index .PodMeta.Labels "tier" }}' },
  };
  const entries = [
    entry('spiffe://example.org/root', ['unix:uid:0']),
    entry('spiffe://example.org/shop', ['k8s:ns:shop', 'k8s:container-name:main']),
  ];
  const told = await explainProcess(process.pid, { pods: [found], place: () => inPod(found), rules, entries });
  t.like(told.subject, {
    placement: { kind: 'pod' },
    container: 'main',
    pod: { namespace: 'shop', name: 'web-1', uid: POD_UID, service_account: 'web' },
  });
  const verdicts = told.rules.map(({ kind, name, outcome, applies }) => [kind, name, outcome, applies]);
  t.deepEqual(verdicts, [
    ['ClusterSPIFFEID', 'db', 'unselected', false],
    ['ClusterSPIFFEID', 'web', 'applies', true],
    ['ClusterSPIFFEID', 'broken', 'failed', false],
    ['default', 'default', 'superseded', false],
  ]);
  t.regex(told.rules[0]?.why ?? '', /pod labels do not match: app/);
  t.is(told.rules[1]?.spiffe_id, 'spiffe://example.org/web/web-1');
  t.true((told.rules[2]?.problems.length ?? 0) > 0);
  t.like(told.static_entries, { 0: { applies: false, from: 'entries[0]' }, 1: { applies: true, from: 'entries[1]' } });
  t.regex(told.static_entries[0]?.why ?? '', /unix selectors only/);
  t.deepEqual(
    told.identities.map(({ spiffe_id }) => spiffe_id),
    ['spiffe://example.org/shop', 'spiffe://example.org/web/web-1'],
  );
  const origins = new Map(told.selectors.map(({ selector, from }) => [selector, from]));
  t.is(origins.get('k8s:ns:shop'), 'pod shop/web-1 (API server)');
  t.is(origins.get('k8s:container-name:main'), 'status of container main');
  t.is(origins.get('k8s:pod-label:app:web'), 'labels of pod shop/web-1');
  t.is(origins.get(`k8s:pod-uid:${POD_UID}`), `/proc/${process.pid}/cgroup`);
  t.is(origins.get(`unix:uid:${UID}`), 'SO_PEERCRED');
});

test('the default rule gives a pod its identity, and an excluded namespace says so', async (t) => {
  const found = pod();
  t.like(await explainPod('shop/web-1', undefined, { pods: [found] }), {
    identities: { 0: { spiffe_id: WEB } },
    rules: { 0: { kind: 'default', applies: true } },
  });
  const excluded = await explainPod('shop/web-1', undefined, { pods: [found], excludeNamespaces: ['shop'] });
  t.like(excluded, { identities: [], rules: { 0: { outcome: 'excluded' } }, answer: { kind: 'none' } });
});

test('a pod without service account is told why it gets nothing', async (t) => {
  const told = await explainPod('shop/web-1', undefined, { pods: [pod({ spec: { serviceAccountName: undefined } })] });
  t.is(told.answer.kind, 'none');
  t.regex(told.rules[0]?.why ?? '', /no service account/);
});

test('what depends on the process is told as such where only a pod is asked about', async (t) => {
  const told = await explainPod('shop/web-1', 'main', {
    pods: [pod()],
    entries: [entry('spiffe://example.org/x', ['k8s:ns:shop', 'unix:uid:7'])],
  });
  t.like(told.static_entries, { 0: { applies: false, why: 'it depends on the process, which must have unix:uid:7' } });
});

test('an identity that no rule gives any more is told to be on its way out', async (t) => {
  const found = pod();
  const source = filledSource({ pods: [found] });
  const old = entry('spiffe://example.org/old', [`k8s:pod-uid:${POD_UID}`]);
  const told = await explainPod('shop/web-1', undefined, {
    pods: [found],
    overrides: { registration: { ...source.registration, match: () => [old] } },
  });
  t.true(told.notes.includes('No rule gives spiffe://example.org/old any more: it is about to be withdrawn.'));
});

test('a pod that is not on this node is refused, with its node where the API server tells it', async (t) => {
  const filling = { pods: [pod()], elsewhere: { 'shop/there': 'node-2', 'shop/pending': '' } };
  const there = await refusal(t, explainPod('shop/there', undefined, filling));
  t.is(there.code, 'no_such_pod');
  t.is(there.message, 'there is no pod shop/there on this node (node-1): it runs on node node-2');
  t.is(there.next, 'ask the agent of node node-2');
  t.regex((await refusal(t, explainPod('shop/pending', undefined, filling))).message, /not bound to a node yet$/);
  t.is(
    (await refusal(t, explainPod('shop/none', undefined, filling))).message,
    'there is no pod shop/none on this node (node-1)',
  );
});

test('a pod is not said to be missing while the list of pods is not complete', async (t) => {
  const pods = { node: 'node-1', size: 0, unlisted: 0, synced: false, conflicts: 0 };
  const error = await refusal(
    t,
    explainPod('shop/web-1', undefined, { pods: [], overrides: { status: () => ({ ...STATUS, pods }) } }),
  );
  t.is(error.code, 'not_ready');
});

test('a container has to be one of the pod; the only one need not be named', async (t) => {
  const two = {
    spec: {
      containers: [
        { name: 'main', image: 'a' },
        { name: 'log', image: 'b' },
      ],
    },
  };
  const error = await refusal(t, explainPod('shop/web-1', 'nowhere', { pods: [pod(two)] }));
  t.deepEqual([error.code, error.next], ['no_such_container', 'it has main, log']);
  const unnamed = await explainPod('shop/web-1', undefined, { pods: [pod(two)] });
  t.is(unnamed.subject.container, undefined);
  t.false(unnamed.selectors.some(({ selector }) => selector.startsWith('k8s:container-')));
  const named = await explainPod('shop/web-1', 'log', { pods: [pod(two)] });
  t.true(named.notes.some((note) => /No status names container log yet/.test(note)));
  t.is((await explainPod('shop/web-1', undefined, { pods: [pod()] })).subject.container, 'main');
});

test('of several pods that have had one name, the one that is not being deleted is told', async (t) => {
  const leaving = pod({ uid: '11111111-63c2-4d5c-9b8e-1a2b3c4d5e6f' });
  const old = { ...leaving, deletionTimestamp: 1 };
  const told = await explainPod('shop/web-1', undefined, { pods: [old, pod()] });
  t.is(told.subject.pod?.uid, POD_UID);
  t.true(told.notes.some((note) => /2 pods have had this name/.test(note)));
  const only = await explainPod('shop/web-1', undefined, { pods: [old] });
  t.true(only.subject.pod?.deleting);
});
