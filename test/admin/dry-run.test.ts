import test, { type ExecutionContext } from 'ava';
import { DryRunner } from '../../src/admin/dry-run.ts';
import type { DryRun } from '../../src/admin/messages.ts';
import { Refusal } from '../../src/admin/refusal.ts';
import { SystemClock } from '../../src/clock.ts';
import { KubernetesClient } from '../../src/kubernetes/api-client.ts';
import { FakeApi } from '../support/kubernetes-api.ts';
import { rawPod } from '../support/kubernetes-pods.ts';
import { entry, filledSource, pod, type Filling } from './filled-source.ts';

const DEFAULT = 'spiffe://example.org/ns/shop/sa/web';

function dryRun(text: string, filling: Filling = {}): Promise<DryRun> {
  return new DryRunner(filledSource({ pods: [pod()], ...filling }), new SystemClock()).run(text, new AbortController().signal);
}

function clusterSpiffeId(name: string, spec: string): string {
  return `apiVersion: spire.spiffe.io/v1alpha1\nkind: ClusterSPIFFEID\nmetadata:\n  name: ${name}\nspec:\n${spec.replaceAll(/^/gm, '  ')}\n`;
}

const WEB = clusterSpiffeId('web', "spiffeIDTemplate: 'spiffe://example.org/web'\npodSelector:\n  matchLabels:\n    app: web");

async function refusal(t: ExecutionContext, text: string, filling?: Filling): Promise<Refusal> {
  return (await t.throwsAsync(dryRun(text, filling), { instanceOf: Refusal })) as Refusal;
}

test('a new rule tells which pods would have another identity', async (t) => {
  const other = pod({ name: 'db-1', uid: '22222222-63c2-4d5c-9b8e-1a2b3c4d5e6f', labels: { app: 'db' } });
  const { rules, pods } = await dryRun(WEB, { pods: [pod(), other] });
  t.deepEqual(rules, [{ kind: 'ClusterSPIFFEID', name: 'web', change: 'new', pods: 1, problems: [] }]);
  t.like(pods, {
    0: { name: 'db-1', now: [DEFAULT], then: [DEFAULT], changed: false },
    1: { name: 'web-1', now: [DEFAULT], then: ['spiffe://example.org/web'], changed: true },
  });
});

test('a rule that is there is replaced, and one that is the same is told so', async (t) => {
  const rules = { web: { spiffeIDTemplate: 'spiffe://example.org/web', podSelector: { matchLabels: { app: 'web' } } } };
  t.like(await dryRun(WEB, { rules }), { rules: { 0: { change: 'same', pods: 1 } }, pods: { 0: { changed: false } } });
  const changed = WEB.replace('example.org/web', 'example.org/shop');
  t.like(await dryRun(changed, { rules }), {
    rules: { 0: { change: 'changed' } },
    pods: { 0: { now: ['spiffe://example.org/web'], then: ['spiffe://example.org/shop'] } },
  });
});

test('a rule of another class changes nothing, and takes away what it was', async (t) => {
  const foreign = `${WEB}  className: other\n`;
  t.like(await dryRun(foreign), { rules: { 0: { change: 'unused' } }, pods: { 0: { changed: false } } });
  const rules = { web: { spiffeIDTemplate: 'spiffe://example.org/web' } };
  t.like(await dryRun(foreign, { rules }), { pods: { 0: { now: ['spiffe://example.org/web'], then: [DEFAULT] } } });
});

test('several documents, lists and empty ones are read in their order', async (t) => {
  const list = JSON.stringify({
    apiVersion: 'v1',
    kind: 'List',
    items: [
      {
        apiVersion: 'spire.spiffe.io/v1alpha1',
        kind: 'ClusterStaticEntry',
        metadata: { name: 's' },
        spec: { spiffeID: 'spiffe://example.org/static', parentID: 'spiffe://example.org/x', selectors: ['k8s:ns:shop'] },
      },
    ],
  });
  const { rules, pods } = await dryRun(`---\n${WEB}---\n---\n${list}\n`);
  t.deepEqual(
    rules.map(({ kind, name, change }) => [kind, name, change]),
    [
      ['ClusterSPIFFEID', 'web', 'new'],
      ['ClusterStaticEntry', 's', 'new'],
    ],
  );
  t.deepEqual(pods[0]?.then, ['spiffe://example.org/static', 'spiffe://example.org/web']);
});

test('"entries" stands for all entries of the configuration', async (t) => {
  const entries = [entry('spiffe://example.org/old', ['k8s:ns:shop'])];
  const text = 'entries:\n  - id: spiffe://example.org/new\n    selectors: [k8s:ns:shop, k8s:container-name:main]\n';
  const { rules, pods } = await dryRun(text, { entries });
  t.like(rules[0], { kind: 'entries', name: '1 entry', change: 'changed', pods: 1 });
  t.like(pods[0], { now: ['spiffe://example.org/old', DEFAULT], then: ['spiffe://example.org/new', DEFAULT] });
  t.like(await dryRun('entries: []', { entries: [] }), { rules: { 0: { change: 'same' } } });
});

const FAULTS: readonly (readonly [what: string, text: string, path: RegExp, allowed: RegExp])[] = [
  ['another kind', 'kind: Deployment\nmetadata: {name: a}\n', /^document 1: kind$/, /ClusterSPIFFEID or ClusterStaticEntry/],
  ['no kind', 'a: 1\n', /^document 1: kind$/, /./],
  ['a text', 'hello\n', /^document 1: kind$/, /./],
  ['another version', WEB.replace('v1alpha1', 'v1'), /^document 1: apiVersion$/, /^spire\.spiffe\.io\/v1alpha1$/],
  ['no name', WEB.replace('  name: web', '  labels: {}'), /^document 1: metadata\.name$/, /a name/],
  ['one name twice', `${WEB}---\n${WEB}`, /^document 2: metadata\.name$/, /each rule once/],
  ['an unknown member', WEB.replace('podSelector', 'podSelektor'), /^document 1: spec\.podSelektor$/, /./],
  ['an unknown field', WEB.replace('org/web', 'org/{{ .PodMeta.Nmae }}'), /^document 1: spec\.spiffeIDTemplate$/, /./],
  ['administrators', `${WEB}  admin: true\n`, /^document 1: spec\.admin$/, /./],
  [
    'an entry of another trust domain',
    'entries:\n  - id: spiffe://other.test/a\n    selectors: [k8s:ns:a]\n',
    /^document 1: entries\[0\]\.id$/,
    /example\.org/,
  ],
  [
    'an entry without selectors',
    'entries:\n  - id: spiffe://example.org/a\n    selectors: []\n',
    /^document 1: entries\[0\]\.selectors$/,
    /./,
  ],
];

for (const [what, text, path, allowed] of FAULTS) {
  test(`a document with ${what} is refused by its place, and the others are tried`, async (t) => {
    const other = WEB.replace('name: web', 'name: good');
    const { rules, pods } = await dryRun(`${text}---\n${other}`);
    const faulty = rules.filter(({ problems }) => problems.length > 0);
    t.is(faulty.length, 1);
    t.regex(faulty[0]?.problems[0]?.path ?? '', path);
    t.regex(faulty[0]?.problems[0]?.allowed ?? '', allowed);
    t.like(rules.at(-1), { name: 'good', pods: 1, problems: [] });
    t.deepEqual(pods[0]?.then, ['spiffe://example.org/web']);
  });
}

test('what cannot be read as YAML is refused as a whole', async (t) => {
  t.is((await refusal(t, 'a: [')).code, 'bad_rules');
  t.regex((await refusal(t, 'a: 1\na: 2\n')).problems[0]?.path ?? '', /^line 2, column /);
  t.regex((await refusal(t, '')).message, /no rules/);
  t.regex((await refusal(t, '---\n---\n')).message, /no rules/);
  t.regex((await refusal(t, 'a: !!js/function x\n')).problems[0]?.allowed ?? '', /without custom tags/);
  t.regex((await refusal(t, '---\na: 1\n'.repeat(513))).message, /513 rules .* at most 512/);
  const bomb = `a: &a [x]\n${Array.from({ length: 20 }, (_, i) => `b${i}: &b${i} [*a, *a, *a, *a]`).join('\n')}\n`;
  t.is((await refusal(t, bomb)).code, 'bad_rules');
  t.is((await refusal(t, '['.repeat(10_000))).code, 'bad_rules');
});

test('a rule that selects a pod and fails for it is told at the pod', async (t) => {
  const { pods } = await dryRun(
    clusterSpiffeId('broken', 'spiffeIDTemplate: \'spiffe://example.org/{{ index .PodMeta.Labels "tier" }}\''),
  );
  t.deepEqual(pods[0]?.then, []);
  t.regex(pods[0]?.problems[0] ?? '', /^ClusterSPIFFEID broken: .*tier/);
});

const LOOKING = [
  clusterSpiffeId('ns', "spiffeIDTemplate: 'spiffe://example.org/prod'\nnamespaceSelector:\n  matchLabels:\n    env: prod"),
  clusterSpiffeId('node', 'spiffeIDTemplate: \'spiffe://example.org/{{ index .NodeMeta.Labels "zone" }}\''),
  clusterSpiffeId('note', 'spiffeIDTemplate: \'spiffe://example.org/{{ index .PodMeta.Annotations "team" }}\''),
].join('---\n');

test('what proposed rules look at and the agent does not follow is asked of the API server once', async (t) => {
  const api = await FakeApi.start();
  t.teardown(() => api.stop());
  const client = new KubernetesClient({ credentials: api.credentials(), clock: new SystemClock() });
  t.teardown(() => client.close());
  const node = { metadata: { name: 'node-1', uid: 'n-1', labels: { zone: 'z1' } } };
  api.collections.set('/api/v1/namespaces', [{ metadata: { name: 'shop', uid: 's', labels: { env: 'prod' } } }]);
  api.collections.set('/api/v1/pods', [rawPod({ annotations: { team: 'blue' } })]);
  api.faults.push((seen, response) => {
    if (seen.path !== '/api/v1/nodes/node-1') return false;
    response.end(JSON.stringify(node));
    return true;
  });
  const source = filledSource({ pods: [pod()], unknown: true });
  const kubernetes = source.kubernetes === undefined ? undefined : { ...source.kubernetes, client };
  const runner = (overrides: object) => new DryRunner({ ...source, ...overrides }, new SystemClock());
  const told = await runner({ kubernetes }).run(LOOKING, new AbortController().signal);
  t.deepEqual(told.pods[0]?.then, ['spiffe://example.org/prod', 'spiffe://example.org/blue', 'spiffe://example.org/z1']);
  t.deepEqual(told.pods[0]?.problems, []);
  t.is(api.seen.length, 3);
  await runner({ kubernetes }).run(WEB, new AbortController().signal);
  t.is(api.seen.length, 3);

  await api.stop();
  const away = await runner({ kubernetes }).run(LOOKING, new AbortController().signal);
  t.like(away.pods[0], { now: [DEFAULT], then: [DEFAULT], changed: false });
  t.is(away.pods[0]?.problems.length, 3);
  t.is(away.notes.filter((note) => note.includes('could not be read: ')).length, 3);
  const without = await runner({}).run(LOOKING, new AbortController().signal);
  t.like(without.pods[0], { then: [DEFAULT], changed: false });
});

test('without pods there is nothing to try, and one dry run waits for nobody', async (t) => {
  t.is((await refusal(t, WEB, { pods: undefined as never })).code, 'no_kubernetes');
  // A clock that makes each pod the last of its turn.
  let now = 0;
  const clock = Object.assign(new SystemClock(), { monotonic: () => (now += 100) });
  const runner = new DryRunner(filledSource({ pods: [pod(), pod()] }), clock);
  const first = runner.run(WEB, new AbortController().signal);
  const second = await t.throwsAsync(runner.run(WEB, new AbortController().signal), { instanceOf: Refusal });
  t.is((second as Refusal).code, 'busy');
  t.is((await first).pods.length, 2);
  const stop = new AbortController();
  const stopped = runner.run(WEB, stop.signal);
  stop.abort(new Error('gone'));
  await t.throwsAsync(stopped, { message: 'gone' });
  t.is((await runner.run(WEB, new AbortController().signal)).pods.length, 2);
});

test('a node full of pods and as many rules as are taken are tried', async (t) => {
  const pods = Array.from({ length: 250 }, (_, i) =>
    pod({ name: `p-${i}`, uid: `00000000-0000-4000-8000-${String(i).padStart(12, '0')}` }),
  );
  const text = Array.from({ length: 100 }, (_, i) =>
    clusterSpiffeId(`r${i}`, `spiffeIDTemplate: 'spiffe://example.org/r${i}/{{ .PodMeta.Name }}'`),
  ).join('---\n');
  const told = await dryRun(text, { pods });
  t.is(told.pods.length, 250);
  t.is(told.pods[0]?.then.length, 100);
  t.true(told.rules.every((rule) => rule.pods === 250));
});
