/**
 * The whole agent as on a node of a cluster: real processes in real cgroups, the real kernel, a real socket. Only the API server is
 * made by hand, so that it can say what a test needs.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import type { JsonObject } from '../../../src/kubernetes/json.ts';
import { startTestAgent, type TestAgent } from '../../support/agent.ts';
import { FakeApi } from '../../support/kubernetes-api.ts';
import { rawPod, running } from '../../support/kubernetes-pods.ts';
import { TestProcess, until } from '../../support/kernel-processes.ts';
import { testIf } from '../../support/kernel-conditions.ts';
import { CID, OTHER_CID, OTHER_UID, UID } from '../../attestation/cgroup-fixtures.ts';
import { RealCgroups, needsCgroups } from '../../support/real-cgroups.ts';

const PODS = '/api/v1/pods';
const RULES = '/apis/spire.spiffe.io/v1alpha1/clusterspiffeids';
const WEB = 'spiffe://example.org/ns/shop/sa/web';
const ALL = 'spiffe://example.org/pod/web-1';

const web = (more: Parameters<typeof rawPod>[0] = {}): JsonObject => rawPod({ uid: UID, ...more });
const other = rawPod({ uid: OTHER_UID, name: 'web-2' });
const rule = (name: string, more: JsonObject = {}): JsonObject => ({
  metadata: { name, uid: `rule-${name}`, resourceVersion: '300', generation: 1 },
  spec: { spiffeIDTemplate: 'spiffe://{{ .TrustDomain }}/pod/{{ .PodMeta.Name }}', ...more },
});

interface Scene {
  readonly api: FakeApi;
  readonly agent: TestAgent;
  readonly restart: () => Promise<TestAgent>;
  /** A process in a container of the pod. */
  readonly workload: (podUid: string, containerId: string) => TestProcess;
}

interface SceneOptions {
  readonly pods?: JsonObject[];
  readonly config?: Record<string, unknown>;
}

async function setUp(t: ExecutionContext, { pods = [web(), other], config = {} }: SceneOptions = {}): Promise<Scene> {
  const directory = mkdtempSync(join(tmpdir(), 'signet-node-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const api = await FakeApi.start();
  t.teardown(() => api.stop());
  api.collections.set(PODS, pods);
  api.collections.set(RULES, []);
  const cgroups = new RealCgroups(t);
  mkdirSync(join(directory, 'etc'));
  const kubeconfig = join(directory, 'etc', 'kubeconfig');
  writeFileSync(kubeconfig, kubeconfigOf(api));
  const settings = {
    clusterName: 'test',
    kubernetes: { nodeName: 'node-1', kubeconfig },
    attestation: { kubernetes: { enabled: true, cgroupRoot: cgroups.root, podTimeout: '10s' } },
    authority: { singleNode: true },
    withdrawalDelay: '200ms',
    ...config,
  };
  const start = async (): Promise<TestAgent> => {
    const agent = await startTestAgent({ directory, config: settings });
    t.teardown(() => agent.stop());
    return agent;
  };
  const agent = await start();
  await until(() => api.watches.size === 2, 'the watches of pods and rules');
  const program = fileURLToPath(new URL('caller.ts', import.meta.url));
  const workload = (podUid: string, containerId: string): TestProcess => {
    const child = new TestProcess(t, process.execPath, [program, agent.socketPath]);
    cgroups.enter(`${cgroups.root}/burstable/pod${podUid}/${containerId}`, child.pid);
    return child;
  };
  return { api, agent, restart: start, workload };
}

function kubeconfigOf(api: FakeApi): string {
  const cluster = { server: `https://127.0.0.1:${api.port}`, 'certificate-authority-data': Buffer.from(api.pki.ca).toString('base64') };
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'test',
    clusters: [{ name: 'test', cluster }],
    users: [{ name: 'test', user: { token: 'none' } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
  });
}

interface State {
  readonly ids?: string[];
  readonly keys?: string[];
  readonly trouble?: string;
}

async function next(workload: TestProcess): Promise<State> {
  return JSON.parse(await workload.line()) as State;
}

async function ask(workload: TestProcess, command: string): Promise<State> {
  return JSON.parse(await workload.ask(command)) as State;
}

/** The next state with these IDs; states in between are versions of what was there. */
async function becomes(t: ExecutionContext, workload: TestProcess, ids: readonly string[]): Promise<State> {
  for (;;) {
    const state = await next(workload);
    if (JSON.stringify(state.ids) === JSON.stringify(ids)) return state;
    t.log(JSON.stringify(state));
  }
}

testIf(needsCgroups, 'a pod gets the identity of its service account; two pods of one account have different keys', async (t) => {
  const { workload } = await setUp(t);
  const [one, two] = [workload(UID, CID), workload(OTHER_UID, OTHER_CID)];
  const [first, second] = [await ask(one, 'fetch'), await ask(two, 'fetch')];
  t.deepEqual(first.ids, [WEB]);
  t.deepEqual(second.ids, [WEB]);
  t.notDeepEqual(first.keys, second.keys);
  t.deepEqual((await ask(one, 'fetch')).keys, first.keys, 'one pod has one identity, however often it asks');
});

testIf(needsCgroups, "the root of a container does not get what the host's root owns", async (t) => {
  const entries = [
    { id: 'spiffe://example.org/host', selectors: ['unix:uid:0'] },
    { id: 'spiffe://example.org/both', selectors: ['unix:uid:0', 'k8s:ns:shop', 'k8s:sa:web'] },
  ];
  const { workload } = await setUp(t, { config: { entries } });
  t.deepEqual((await ask(workload(UID, CID), 'fetch')).ids, ['spiffe://example.org/both', WEB]);
});

testIf(needsCgroups, 'a process in an unknown container is refused for now, and nobody says that it has no identity', async (t) => {
  const { workload } = await setUp(t, { config: { attestation: { kubernetes: { enabled: true, cgroupRoot: '/elsewhere' } } } });
  const { trouble = '' } = await ask(workload(UID, CID), 'fetch');
  t.regex(trouble, /workload attestation failed/);
  t.notRegex(trouble, /no identity/);
});

testIf(needsCgroups, 'a pod that calls before the API server has told of it waits for the event, and is not refused', async (t) => {
  const { api, agent, workload } = await setUp(t, { pods: [] });
  const attested: string[] = [];
  agent.agent.events.on('connected', () => attested.push('connected'));
  const caller = workload(UID, CID);
  caller.tell('fetch');
  await until(() => attested.length > 0, 'the caller');
  // It is the event that answers: no list has the pod.
  api.tell('ADDED', web({ version: '200' }), PODS);
  t.deepEqual((await next(caller)).ids, [WEB]);
});

testIf(needsCgroups, 'a rule is in force on an open stream at once, and what it takes away goes after the delay', async (t) => {
  const { api, workload } = await setUp(t);
  const caller = workload(UID, CID);
  t.deepEqual((await ask(caller, 'watch')).ids, [WEB]);
  api.tell('ADDED', rule('all'), RULES);
  await becomes(t, caller, [ALL, WEB]);
  await becomes(t, caller, [ALL]);
  api.tell('DELETED', rule('all'), RULES);
  await becomes(t, caller, [WEB, ALL]);
  await becomes(t, caller, [WEB]);
});

testIf(needsCgroups, 'labels, and the status that names the container, change what an open stream has', async (t) => {
  const entries = [{ id: 'spiffe://example.org/main', selectors: ['k8s:ns:shop', 'k8s:container-name:main'] }];
  const { api, workload } = await setUp(t, { config: { entries } });
  const caller = workload(UID, CID);
  t.deepEqual((await ask(caller, 'watch')).ids, [WEB]);
  api.tell('MODIFIED', web({ version: '201', status: running(CID) }), PODS);
  await becomes(t, caller, ['spiffe://example.org/main', WEB]);
  api.tell('ADDED', rule('blue', { podSelector: { matchLabels: { team: 'blue' } } }), RULES);
  api.tell('MODIFIED', web({ version: '202', status: running(CID), labels: { team: 'blue' } }), PODS);
  await becomes(t, caller, ['spiffe://example.org/main', ALL]);
});

testIf(needsCgroups, 'a pod that is deleted keeps its identity while its processes run', async (t) => {
  const { api, workload } = await setUp(t);
  const [caller, watcher] = [workload(UID, CID), workload(UID, CID)];
  const before = await ask(caller, 'fetch');
  t.deepEqual((await ask(watcher, 'watch')).ids, [WEB]);
  api.tell('DELETED', web({ version: '210' }), PODS);
  // Whichever is heard first: the pod's processes are judged by the new rule like those of any other pod.
  api.tell('ADDED', rule('all'), RULES);
  await becomes(t, watcher, [ALL, WEB]);
  const after = await ask(caller, 'fetch');
  t.true(after.ids?.includes(ALL));
  t.true(before.ids?.every((id) => id === WEB));
});

testIf(needsCgroups, 'while the API server is away a restarted agent goes on with the pods and rules that were known', async (t) => {
  const { api, agent, restart, workload } = await setUp(t);
  api.tell('ADDED', rule('all'), RULES);
  const caller = workload(UID, CID);
  caller.tell('watch');
  await becomes(t, caller, [ALL]);
  await agent.agent.stop();
  await api.stop();
  const second = await restart();
  t.true(second.agent.readiness.ready);
  await becomes(t, caller, [ALL]);
  t.deepEqual((await ask(workload(OTHER_UID, OTHER_CID), 'fetch')).ids, ['spiffe://example.org/pod/web-2']);
  await until(() => second.agent.readiness.reasons().some(({ code }) => code === 'api_server_away'), 'the outage to be told');
});

