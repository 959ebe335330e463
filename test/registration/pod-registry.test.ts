import test from 'ava';
import { EventBus } from '../../src/events.ts';
import type { CustomObject, Needs } from '../../src/kubernetes/cluster.ts';
import type { KubernetesNode } from '../../src/kubernetes/objects.ts';
import type { PodListener } from '../../src/kubernetes/pod-index.ts';
import { podTrim, type Pod } from '../../src/kubernetes/pod.ts';
import { PodRegistry, type ClusterView, type PodRegistryOptions } from '../../src/registration/pod-registry.ts';
import type { Entry } from '../../src/spiffe/entry.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { rawPod, type PodShape } from '../support/kubernetes-pods.ts';
import { testEntry } from '../support/signers.ts';

const TEMPLATE = '/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}';
const DEFAULT_ID = 'spiffe://example.org/ns/shop/sa/web';

const OPTIONS: PodRegistryOptions = {
  trustDomain: parseTrustDomain('example.org'),
  clusterName: 'prod',
  clusterDomain: 'cluster.local',
  withdrawalDelayMs: 10_000,
  excludeNamespaces: [],
  className: '',
  watchClassless: true,
  defaultRule: { enabled: true, template: TEMPLATE, namespaces: [] },
};

function pod(uid: string, shape: PodShape = {}): Pod {
  const trimmed = podTrim()(rawPod({ uid, name: `web-${uid}`, ...shape }));
  if (trimmed === undefined) throw new Error('no pod');
  return trimmed;
}

function rule(name: string, spec: Record<string, unknown>, generation = 1): CustomObject {
  return { uid: `uid-${name}`, name, generation, spec };
}

class View implements ClusterView {
  readonly known = new Map<string, Pod>();
  readonly needed: Needs[] = [];
  rules: CustomObject[] = [];
  statics: CustomObject[] = [];
  labels: Record<string, string> | undefined = undefined;
  node: KubernetesNode | undefined = undefined;
  /** The objects themselves were told, whatever else the rules look at. */
  synced = false;
  knowsRules = true;
  /** How often anything was judged. */
  judged = 0;
  isSynced = true;
  readonly #podListeners = new Set<PodListener>();
  readonly #listeners = new Set<() => void>();
  readonly pods = {
    find: (uid: string) => this.known.get(uid),
    listed: () => this.known.values(),
    onChange: (listener: PodListener) => (this.#podListeners.add(listener), () => void this.#podListeners.delete(listener)),
  };
  readonly spiffeIds = this.#objects(() => this.rules);
  readonly staticEntries = this.#objects(() => this.statics);
  namespaceLabels = (): Record<string, string> | undefined => ((this.judged += 1), this.labels);
  need(needs: Needs): void {
    this.needed.push(needs);
  }
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
  #objects(items: () => readonly CustomObject[]) {
    const isSynced = (): boolean => this.synced;
    return {
      // An informer's can be gone through once.
      *items() {
        yield* items();
      },
      get synced() {
        return isSynced();
      },
    };
  }
  tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }
  put(one: Pod): void {
    const change = this.known.has(one.uid) ? 'changed' : 'added';
    this.known.set(one.uid, one);
    for (const listener of [...this.#podListeners]) listener(change, one);
  }
  drop(one: Pod): void {
    this.known.delete(one.uid);
    for (const listener of [...this.#podListeners]) listener('removed', one);
  }
}

function setUp(entries: readonly Entry[] = [], options: Partial<PodRegistryOptions> = {}) {
  const view = new View();
  const clock = new FakeClock();
  const events = new EventBus();
  view.put(pod('a'));
  const registry = new PodRegistry(entries, { ...OPTIONS, ...options }, view, clock, events);
  let changes = 0;
  registry.onChange(() => (changes += 1));
  const ids = (uid = 'a', ...more: string[]): string[] => registry.match([`k8s:pod-uid:${uid}`, 'k8s:ns:shop', 'unix:uid:0', ...more]).map(({ id }) => id);
  return { view, clock, events, registry, ids, changes: () => changes };
}

const ALL = { spiffeIDTemplate: 'spiffe://{{ .TrustDomain }}/all/{{ .PodMeta.Name }}' };

test('a pod owns the identity of its service account without anything registered', (t) => {
  const { registry } = setUp();
  const [entry, ...rest] = registry.match(['k8s:pod-uid:a', 'unix:uid:1']);
  t.deepEqual(rest, []);
  t.is(entry?.id as string, DEFAULT_ID);
  t.deepEqual(entry?.selectors, ['k8s:pod-uid:a']);
  t.deepEqual(registry.match(['unix:uid:0']), [], 'a process of the host is no pod');
});

test('two pods of one account own one ID by different entries', (t) => {
  const { view, registry } = setUp();
  view.put(pod('b'));
  const [a] = registry.match(['k8s:pod-uid:a']);
  const [b] = registry.match(['k8s:pod-uid:b']);
  t.is(a?.id, b?.id);
  t.notDeepEqual(a?.selectors, b?.selectors);
  t.is(registry.match(['k8s:pod-uid:a'])[0], a);
});

test('a rule is in force at once, and what it takes the place of goes after the delay', (t) => {
  const { view, clock, ids, changes } = setUp();
  t.deepEqual(ids(), [DEFAULT_ID]);
  view.rules = [rule('all', ALL)];
  view.tell();
  t.is(changes(), 1);
  t.deepEqual(ids(), ['spiffe://example.org/all/web-a', DEFAULT_ID]);
  clock.advance(10_000);
  t.deepEqual(ids(), ['spiffe://example.org/all/web-a']);
  t.is(changes(), 2);
  view.rules = [];
  view.tell();
  t.deepEqual(ids(), [DEFAULT_ID, 'spiffe://example.org/all/web-a']);
  view.rules = [rule('all', ALL)];
  view.tell();
  clock.advance(60_000);
  t.deepEqual(ids(), ['spiffe://example.org/all/web-a'], 'a manifest that is applied again is no withdrawal');
});

test('a pod whose labels change is judged again, whoever hears of it first', (t) => {
  const { view, ids, changes } = setUp();
  view.rules = [rule('blue', { ...ALL, podSelector: { matchLabels: { team: 'blue' } } })];
  view.tell();
  t.deepEqual(ids(), [DEFAULT_ID]);
  const before = changes();
  view.put(pod('a', { labels: { team: 'blue' }, version: '8' }));
  t.deepEqual(ids(), ['spiffe://example.org/all/web-a', DEFAULT_ID]);
  t.is(changes(), before + 1);
  view.put(pod('a', { labels: { team: 'blue' }, version: '9' }));
  t.is(changes(), before + 1, 'nothing that matters has changed');
});

test('the order is: entries, rules, the default; an entry with a negative priority comes last', (t) => {
  const first = testEntry('z-first', { selectors: ['k8s:ns:shop'] });
  const last = testEntry('a-last', { selectors: ['k8s:ns:shop'], priority: -1 });
  const { view, ids } = setUp([first, last]);
  view.rules = [rule('all', ALL)];
  view.tell();
  t.deepEqual(ids(), [first.id, 'spiffe://example.org/all/web-a', last.id]);
});

test('a ClusterStaticEntry counts like an entry of the configuration, for pods and for processes of the host', (t) => {
  const { view, registry, clock, ids } = setUp();
  const spec = (selectors: string[]) => ({ spiffeID: 'spiffe://example.org/static', parentID: 'spiffe://example.org/agent', selectors });
  view.statics = [rule('pods', spec(['k8s:ns:shop'])), rule('host', { ...spec(['unix:uid:0']), spiffeID: 'spiffe://example.org/host' })];
  view.tell();
  t.deepEqual(ids(), ['spiffe://example.org/static', DEFAULT_ID]);
  t.deepEqual(registry.match(['unix:uid:0']).map(({ id }) => id as string), ['spiffe://example.org/host']);
  view.statics = [];
  view.tell();
  clock.advance(10_000);
  t.deepEqual(ids(), [DEFAULT_ID]);
  t.deepEqual(registry.match(['unix:uid:0']), []);
});

test('reading the configuration again keeps what the cluster says', (t) => {
  const { view, registry, ids } = setUp();
  view.statics = [rule('pods', { spiffeID: 'spiffe://example.org/static', parentID: 'spiffe://example.org/x', selectors: ['k8s:ns:shop'] })];
  view.tell();
  registry.replace([testEntry('more', { selectors: ['k8s:ns:shop'] })]);
  t.deepEqual(ids(), ['spiffe://example.org/more', 'spiffe://example.org/static', DEFAULT_ID].sort((a, b) => (a === DEFAULT_ID ? 1 : b === DEFAULT_ID ? -1 : a < b ? -1 : 1)));
});

test('pods of an excluded namespace own nothing by rules', (t) => {
  const { ids, registry } = setUp([], { excludeNamespaces: ['shop'] });
  t.deepEqual(ids(), []);
  t.true(registry.isComplete(['k8s:pod-uid:a']));
});

test('a rule with selectors for the workload applies only to callers that have them', (t) => {
  const { view, ids } = setUp();
  view.rules = [rule('root', { ...ALL, workloadSelectorTemplates: ['unix:uid:0', 'k8s:container-name:main'] })];
  view.tell();
  t.deepEqual(ids(), []);
  t.deepEqual(ids('a', 'k8s:container-name:main'), ['spiffe://example.org/all/web-a']);
});

test('while the rules are not known, a pod waits and nobody is told that it has nothing', async (t) => {
  const { view, registry } = setUp();
  const aborted = new AbortController();
  view.knowsRules = false;
  view.isSynced = false;
  view.tell();
  await t.notThrowsAsync(registry.whenKnown(['unix:uid:0'], aborted.signal), 'rules are for pods');
  let isKnown = false;
  const waiting = registry.whenKnown(['k8s:pod-uid:a'], aborted.signal).then(() => (isKnown = true));
  await Promise.resolve();
  t.false(isKnown);
  t.false(registry.isComplete(['k8s:pod-uid:a']));
  view.knowsRules = true;
  view.isSynced = true;
  view.tell();
  await waiting;
  t.true(registry.isComplete(['k8s:pod-uid:a']));
  view.knowsRules = false;
  view.tell();
  const given = registry.whenKnown(['k8s:pod-uid:a'], aborted.signal);
  aborted.abort(new Error('too long'));
  await t.throwsAsync(given, { message: 'too long' });
});

test('a rule that needs the labels of namespaces takes nothing away before they are known', (t) => {
  const { view, clock, registry, ids } = setUp();
  t.deepEqual(ids(), [DEFAULT_ID]);
  view.rules = [rule('prod', { ...ALL, namespaceSelector: { matchLabels: { env: 'prod' } } })];
  view.tell();
  t.true(view.needed.at(-1)?.namespaces);
  clock.advance(60_000);
  t.deepEqual(ids(), [DEFAULT_ID]);
  t.false(registry.isComplete(['k8s:pod-uid:a']));
  view.labels = { env: 'prod' };
  view.tell();
  t.deepEqual(ids(), ['spiffe://example.org/all/web-a', DEFAULT_ID]);
});

test('a refused rule is told once for each version of it, and counts for nothing', (t) => {
  const { view, events, registry, ids } = setUp();
  const told: string[] = [];
  events.on('ruleRefused', ({ kind, name, problem }) => told.push(`${kind} ${name}: ${problem}`));
  view.rules = [rule('bad', { spiffeIDTemplate: 'spiffe://{{ .TrustDomain }}/{{ .Pod.Nmae }}' })];
  view.tell();
  view.tell();
  t.is(told.length, 1);
  t.regex(told[0] ?? '', /^ClusterSPIFFEID bad: .*Nmae/);
  t.deepEqual(ids(), [DEFAULT_ID]);
  t.is(registry.rules.refused.length, 1);
  view.rules = [rule('bad', { spiffeIDTemplate: 'still bad' }, 2)];
  view.tell();
  t.is(told.length, 2);
});

test('the tallies say what each rule comes to on this node', (t) => {
  const { view, registry } = setUp();
  view.put(pod('b', { labels: {} }));
  view.rules = [
    rule('all', { spiffeIDTemplate: 'spiffe://{{ .TrustDomain }}/app/{{ index .PodMeta.Labels "app" }}' }),
    rule('none', { ...ALL, podSelector: { matchLabels: { app: 'nobody' } } }),
    rule('bad', { spiffeIDTemplate: '' }),
  ];
  view.tell();
  const [all, none, bad] = registry.tallies();
  t.like(all, { kind: 'ClusterSPIFFEID', name: 'all', uid: 'uid-all', generation: 1, podsSelected: 2, podsFailed: 1 });
  t.regex(all?.problem ?? '', /app/);
  t.like(none, { name: 'none', podsSelected: 0, podsFailed: 0, problem: undefined });
  t.like(bad, { name: 'bad', podsSelected: 0 });
  t.truthy(bad?.problem);
});

test('a pod that is gone is forgotten, with the delays that were running for it', (t) => {
  const { view, clock, registry, ids } = setUp([testEntry('own', { selectors: ['k8s:ns:shop'] })]);
  t.is(ids().length, 2);
  view.rules = [rule('all', ALL)];
  view.tell();
  const one = pod('a');
  view.drop(one);
  t.is(clock.pending, 0);
  t.deepEqual(ids(), ['spiffe://example.org/own'], 'an entry by selectors is not about the pod alone');
  registry.close();
});

test('a pod that is forgotten and told of again is told to whoever asked for it, and is never said to own nothing meanwhile', (t) => {
  const { view, registry, ids, changes } = setUp();
  t.deepEqual(ids(), [DEFAULT_ID]);
  view.drop(pod('a'));
  t.is(changes(), 1);
  t.deepEqual(ids(), []);
  t.false(registry.isComplete(['k8s:pod-uid:a']));
  view.put(pod('b'));
  t.is(changes(), 1, 'nobody has asked for that one');
  view.put(pod('a'));
  t.is(changes(), 2);
  t.deepEqual(ids(), [DEFAULT_ID]);
  t.true(registry.isComplete(['k8s:pod-uid:a']));
});

test('a hash that finds a pod is not the UID of one', (t) => {
  const { view, registry, ids } = setUp();
  view.known.set('hash', pod('a'));
  t.deepEqual(ids('hash'), []);
  t.false(registry.isComplete(['k8s:pod-uid:hash']));
  t.deepEqual(ids(), [DEFAULT_ID]);
});

test('only pods that a rule may concern wait for what it looks at', async (t) => {
  const { view, registry, ids } = setUp();
  const { signal } = new AbortController();
  view.put(pod('b', { labels: { tier: 'edge' } }));
  view.synced = true;
  const template = { spiffeIDTemplate: 'spiffe://{{ .TrustDomain }}/n/{{ .NodeMeta.UID }}' };
  view.rules = [rule('edge', { ...template, podSelector: { matchLabels: { tier: 'edge' } } })];
  view.knowsRules = false;
  view.tell();
  t.true(view.needed.at(-1)?.node);
  await registry.whenKnown(['k8s:pod-uid:a'], signal);
  t.deepEqual(ids(), [DEFAULT_ID]);
  let isKnown = false;
  const waiting = registry.whenKnown(['k8s:pod-uid:b'], signal).then(() => (isKnown = true));
  view.tell();
  await new Promise((resolve) => setImmediate(resolve));
  t.false(isKnown);
  view.node = { uid: 'n-1', name: 'node-1', labels: {}, annotations: {}, providerId: '', podCidr: '' } as KubernetesNode;
  view.knowsRules = true;
  view.tell();
  await waiting;
  t.deepEqual(ids('b'), ['spiffe://example.org/n/n-1']);
});

test('a pod that waits for what a rule looks at waits no longer than the signal says, nor when it is gone', async (t) => {
  const { view, registry } = setUp();
  view.synced = true;
  view.rules = [rule('prod', { ...ALL, namespaceSelector: { matchLabels: { env: 'prod' } } })];
  view.tell();
  const stop = new AbortController();
  const bounded = t.throwsAsync(registry.whenKnown(['k8s:pod-uid:a'], stop.signal), { message: 'too long' });
  stop.abort(new Error('too long'));
  await bounded;
  await t.throwsAsync(registry.whenKnown(['k8s:pod-uid:a'], stop.signal), { message: 'too long' });
  const waiting = registry.whenKnown(['k8s:pod-uid:a'], new AbortController().signal);
  view.drop(pod('a'));
  await t.notThrowsAsync(waiting);
});

const BY_APP = { spiffeIDTemplate: 'spiffe://{{ .TrustDomain }}/app/{{ index .PodMeta.Labels "app" }}' };

test('a pod whose labels change all the time is judged four times a second, by its last state', (t) => {
  const { view, clock, ids, changes } = setUp([], { withdrawalDelayMs: 60_000 });
  view.rules = [rule('app', BY_APP)];
  view.tell();
  t.deepEqual(ids(), ['spiffe://example.org/app/web'], 'the first judgement');
  const flip = (i: number): void => (view.put(pod('a', { labels: { app: `x${i}` } })), void ids());
  const before = changes();
  view.judged = 0;
  for (let i = 1; i <= 200; i++) {
    flip(i);
    clock.advance(10);
  }
  t.is(view.judged, 8);
  t.is(changes() - before, 8);
  clock.advance(1_000);
  t.is(ids()[0], 'spiffe://example.org/app/x200');
  t.true(view.judged <= 12);
  view.judged = 0;
  flip(201);
  t.is(view.judged, 1, 'after a rest a change counts at once');
  t.is(ids()[0], 'spiffe://example.org/app/x201');
});

test('a pod owns at most sixteen of the identities that it had, the youngest', (t) => {
  const { view, clock, ids } = setUp([], { withdrawalDelayMs: 60_000 });
  view.rules = [rule('app', BY_APP)];
  view.tell();
  for (let i = 1; i <= 40; i++) {
    view.put(pod('a', { labels: { app: `x${i}` } }));
    clock.advance(1_000);
    ids();
  }
  t.deepEqual(ids(), Array.from({ length: 17 }, (_, i) => `spiffe://example.org/app/x${40 - i}`));
  clock.advance(60_000);
  t.deepEqual(ids(), ['spiffe://example.org/app/x40']);
});

test('while the last state of a pod is not judged yet, nobody says that it has nothing, and whoever comes waits for it', async (t) => {
  const { view, clock, registry, ids, changes } = setUp([], { excludeNamespaces: ['shop'] });
  t.deepEqual(ids(), []);
  t.true(registry.isComplete(['k8s:pod-uid:a']));
  for (let i = 1; i <= 4; i++) view.put(pod('a', { labels: { app: `x${i}` } }));
  t.false(registry.isComplete(['k8s:pod-uid:a']));
  let isKnown = false;
  const waiting = registry.whenKnown(['k8s:pod-uid:a'], new AbortController().signal).then(() => (isKnown = true));
  await new Promise((resolve) => setImmediate(resolve));
  t.false(isKnown);
  const before = changes();
  clock.advance(1_000);
  await waiting;
  t.true(registry.isComplete(['k8s:pod-uid:a']));
  t.is(changes(), before + 1, 'that there are none for sure is told');
});

test('a rule that is undecided keeps what it gave, although another gives the same ID to other callers', (t) => {
  const { view, clock, registry, ids } = setUp();
  const template = { spiffeIDTemplate: 'spiffe://{{ .TrustDomain }}/x' };
  view.labels = { env: 'prod' };
  view.rules = [
    rule('a', { ...template, workloadSelectorTemplates: ['unix:uid:1000'] }),
    rule('b', { ...template, namespaceSelector: { matchLabels: { env: 'prod' } } }),
  ];
  view.tell();
  t.deepEqual(ids(), ['spiffe://example.org/x']);
  view.labels = undefined;
  view.tell();
  clock.advance(60_000);
  t.deepEqual(ids(), ['spiffe://example.org/x']);
  t.false(registry.isComplete(['k8s:pod-uid:a']));
});

test('while a rule is undecided, the other rules give and take as ever', (t) => {
  const { view, clock, ids } = setUp();
  view.labels = { env: 'prod' };
  view.rules = [rule('app', BY_APP), rule('prod', { ...ALL, namespaceSelector: { matchLabels: { env: 'prod' } } })];
  view.tell();
  const prod = 'spiffe://example.org/all/web-a';
  t.deepEqual(ids(), [prod, 'spiffe://example.org/app/web']);
  view.labels = undefined;
  for (let i = 1; i <= 40; i++) {
    view.put(pod('a', { labels: { app: `x${i}` } }));
    clock.advance(1_000);
  }
  t.is(ids()[0], prod, 'it stays the default identity');
  clock.advance(60_000);
  t.deepEqual(ids(), [prod, 'spiffe://example.org/app/x40']);
});

test('the class of each rule is told, however many there are', (t) => {
  const { view, registry } = setUp([], { className: 'mine' });
  view.rules = [rule('one', { ...ALL, className: 'mine' }), rule('two', { ...ALL, className: 'mine' })];
  view.tell();
  t.deepEqual(registry.counts().map(({ name, className }) => [name, className]).slice(0, 2), [['one', 'mine'], ['two', 'mine']]);
});
