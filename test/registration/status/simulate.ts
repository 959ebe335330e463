/**
 * What rule status costs an API server: many agents in one process, each with a client, connections and a NodeReport of its own,
 * against the server that SIGNET_TEST_KUBECONFIG leads to. Prints a table. Takes about 17 minutes, since it runs with the timing
 * that agents have; makes an API group, a Lease and a few Events of its own, and removes them.
 *
 *     SIGNET_TEST_KUBECONFIG=… node test/registration/status/simulate.ts [agents=200] [scale=1] [churn]
 *
 * `scale` makes the phases longer or shorter, not the agents' timing. With `churn` only those phases run that end in it.
 */
import { subscribe } from 'node:diagnostics_channel';
import type { ClientRequest, IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { SystemClock, sleep } from '../../../src/clock.ts';
import { KubernetesClient, type WatchEvent } from '../../../src/kubernetes/api-client.ts';
import { Informer } from '../../../src/kubernetes/informer.ts';
import { objectAt, textAt, textsAt, type JsonObject } from '../../../src/kubernetes/json.ts';
import { LEASES, namespacedPathOf, pathOf } from '../../../src/kubernetes/resources.ts';
import { systemRandom } from '../../../src/random.ts';
import { RuleStatus, type StatusClient } from '../../../src/registration/status/rule-status.ts';
import type { RuleTally } from '../../../src/registration/status/tally.ts';
import { reachCluster, type Cluster } from '../../support/kubernetes-cluster.ts';
import { makeOwnKinds, type OwnKinds } from './cluster-crds.ts';

const POD_COUNT = 20;
const NAMESPACE = 'default';
const clock = new SystemClock();
const found = await reachCluster();
const AGENTS = Number(process.argv[2] ?? 200);
const SCALE = Number(process.argv[3] ?? 1);
const IS_CHURN_ONLY = process.argv[4] === 'churn';

const CATEGORIES = ['report read', 'report write', 'lease read', 'lease write', 'status write', 'event write', 'watch or list', 'rule events', 'report events'] as const;
type Category = (typeof CATEGORIES)[number];
const WRITES: readonly Category[] = ['report write', 'lease write', 'status write', 'event write'];

class Counter {
  readonly counts = new Map<Category, number>();
  readonly sockets = new Set<Socket>();

  add(category: Category): void {
    this.counts.set(category, (this.counts.get(category) ?? 0) + 1);
  }

  /** HTTP bytes inside TLS. */
  get sent(): number {
    return [...this.sockets].reduce((sum, socket) => sum + socket.bytesWritten, 0);
  }

  get received(): number {
    return [...this.sockets].reduce((sum, socket) => sum + socket.bytesRead, 0);
  }
}

interface Rule {
  readonly name: string;
  readonly uid: string;
  readonly generation: number;
  readonly tier: string;
  readonly problem: string | undefined;
}

/** An agent's part in rule status, on a node whose pods are labels in memory. */
class Agent {
  readonly counter = new Counter();
  readonly status: RuleStatus;
  readonly pods: string[] = Array.from({ length: POD_COUNT }, (_, i) => (i % 2 === 0 ? 'web' : 'db'));
  readonly #client: KubernetesClient;
  readonly #rules: Informer<Rule>;

  constructor(cluster: Cluster, kinds: OwnKinds, leaseName: string, n: number) {
    this.#client = new KubernetesClient({ credentials: cluster.credentials, clock, userAgent: `sim-${n}` });
    const client = counted(this.#client, this.counter);
    // Every agent follows the rules anyway, to evaluate them: its events are what a status write costs the others.
    this.#rules = new Informer({ client, resource: kinds.resources.spiffeIds, trim: ruleOf, clock, random: systemRandom });
    const options = { client, nodeName: `sim-${n}`, reporter: `sim-pod-${n}`, namespace: NAMESPACE, leaseName, resources: kinds.resources };
    this.status = new RuleStatus({ ...options, isOurs: () => true, nodeUid: async () => undefined, clock, random: systemRandom });
    this.#rules.onChange(() => this.evaluate());
  }

  start(): void {
    this.#rules.start();
    void this.#rules.whenSynced().then(() => this.evaluate(), () => undefined);
    this.status.start();
  }

  evaluate(): void {
    this.status.set([...this.#rules.items()].map((rule) => this.#tallyOf(rule)));
  }

  async close(): Promise<void> {
    await this.status.close();
    await this.#rules.close();
    this.#client.close();
  }

  #tallyOf({ name, uid, generation, tier, problem }: Rule): RuleTally {
    const podsSelected = problem === undefined ? this.pods.filter((label) => label === tier).length : 0;
    return { kind: 'ClusterSPIFFEID', name, uid, generation, podsSelected, podsFailed: 0, entriesMasked: 0, problem };
  }
}

function ruleOf(raw: JsonObject): Rule {
  const [metadata, spec] = [objectAt(raw, 'metadata'), objectAt(raw, 'spec')];
  const isBad = textAt(spec, 'spiffeIDTemplate').includes('{{ .Foo }}');
  return {
    name: textAt(metadata, 'name'),
    uid: textAt(metadata, 'uid'),
    generation: Number(metadata['generation']),
    tier: textsAt(objectAt(spec, 'podSelector'), 'matchLabels')['tier'] ?? '',
    problem: isBad ? 'spiffeIDTemplate: line 1, column 4: unknown field .Foo' : undefined,
  };
}

function counted(client: KubernetesClient, counter: Counter): StatusClient {
  const isLease = (path: string): boolean => path.includes('/leases');
  return {
    get: (path, options) => (counter.add(isLease(path) ? 'lease read' : 'report read'), client.get(path, options)),
    apply: (path, object, options) => (counter.add(isLease(path) ? 'lease write' : 'report write'), client.apply(path, object, options)),
    applyStatus: (path, object, options) => (counter.add('status write'), client.applyStatus(path, object, options)),
    create: (path, object, options) => (counter.add(isLease(path) ? 'lease write' : 'event write'), client.create(path, object, options)),
    list: (resource, options, onItem) => (counter.add('watch or list'), client.list(resource, options, onItem)),
    async *watch(resource, options): AsyncGenerator<WatchEvent, void, undefined> {
      counter.add('watch or list');
      for await (const event of client.watch(resource, options)) {
        if (event.type !== 'BOOKMARK') counter.add(resource.name === 'nodereports' ? 'report events' : 'rule events');
        yield event;
      }
    },
  };
}

/** Finds the sockets of each agent by the name that it sends. */
function watchSockets(agents: readonly Agent[]): void {
  const byName = new Map(agents.map((agent, n) => [`sim-${n}`, agent]));
  subscribe('http.client.response.finish', (message) => {
    const { request, response } = message as { request: ClientRequest; response: IncomingMessage };
    byName.get(String(request.getHeader('user-agent')))?.counter.sockets.add(response.socket);
  });
}

interface Totals {
  readonly at: number;
  readonly counts: ReadonlyMap<Category, number>;
  readonly sent: number;
  readonly received: number;
}

function totalsOf(agents: readonly Agent[]): Totals {
  const counts = new Map<Category, number>();
  for (const { counter } of agents) for (const [category, count] of counter.counts) counts.set(category, (counts.get(category) ?? 0) + count);
  const sum = (of: (agent: Agent) => number): number => agents.reduce((total, agent) => total + of(agent), 0);
  return { at: performance.now(), counts, sent: sum(({ counter }) => counter.sent), received: sum(({ counter }) => counter.received) };
}

interface Row {
  readonly phase: string;
  readonly seconds: number;
  readonly all: { before: Totals; after: Totals };
  readonly holder: { before: Totals; after: Totals };
}

const rows: Row[] = [];

/** Runs `act` at the beginning of a phase of `seconds`, and notes what was asked and written in it. */
async function phase(name: string, seconds: number, agents: readonly Agent[], act: () => Promise<void> | void): Promise<void> {
  const holders = agents.filter(({ status }) => status.isHolder);
  const before = { all: totalsOf(agents), holder: totalsOf(holders) };
  const end = performance.now() + seconds * SCALE * 1_000;
  await act();
  await sleep(clock, Math.max(end - performance.now(), 0));
  const after = { all: totalsOf(agents), holder: totalsOf(holders) };
  rows.push({ phase: name, seconds: (after.all.at - before.all.at) / 1_000, all: { before: before.all, after: after.all }, holder: { before: before.holder, after: after.holder } });
  process.stdout.write(`${rowText(rows.at(-1)!)}\n`);
}

function rowText({ phase: name, seconds, all, holder }: Row): string {
  const minutes = seconds / 60;
  const of = (category: Category): number => (all.after.counts.get(category) ?? 0) - (all.before.counts.get(category) ?? 0);
  const writes = WRITES.reduce((sum, category) => sum + of(category), 0);
  const reports = (of('report write') / AGENTS / minutes).toFixed(2);
  const other = { sent: all.after.sent - all.before.sent, received: all.after.received - all.before.received };
  const own = { sent: holder.after.sent - holder.before.sent, received: holder.after.received - holder.before.received };
  const perAgent = (bytes: number, less: number): string => String(Math.round((bytes - less) / (AGENTS - 1)));
  const cells = [name, seconds.toFixed(0), ...CATEGORIES.map((category) => String(of(category))), (writes / minutes).toFixed(1), reports];
  return `| ${[...cells, perAgent(other.sent, own.sent), perAgent(other.received, own.received), String(own.sent), String(own.received)].join(' | ')} |`;
}

async function run(cluster: Cluster): Promise<void> {
  const { client } = cluster;
  const kinds = await makeOwnKinds(client);
  const leaseName = kinds.group.replace('.example.org', '');
  const { spiffeIds } = kinds.resources;
  const agents = Array.from({ length: AGENTS }, (_, n) => new Agent(cluster, kinds, leaseName, n));
  watchSockets(agents);
  const ruleName = `web-${leaseName.slice(-8)}`;
  const apply = async (name: string, tier: string, template = '/a'): Promise<void> => {
    const spec = { spiffeIDTemplate: template, podSelector: { matchLabels: { tier } } };
    await client.apply(pathOf(spiffeIds, name), { apiVersion: `${kinds.group}/v1alpha1`, kind: 'ClusterSPIFFEID', metadata: { name }, spec }, { fieldManager: 'sim', force: true });
  };
  const told = async (): Promise<unknown> => objectAt(objectAt(await client.get(pathOf(spiffeIds, ruleName)), 'status'), 'stats')['podsSelected'];
  const check = async (tier: string): Promise<void> => {
    const wanted = agents.reduce((sum, { pods }) => sum + pods.filter((label) => label === tier).length, 0);
    process.stdout.write(`  status says ${String(await told())} pods; there are ${wanted}\n`);
  };
  const quietPhases = async (): Promise<void> => {
    await phase('at rest', 180, agents, () => undefined);
    await phase('rule changed', 60, agents, () => apply(ruleName, 'db'));
    await check('db');
    await phase('one pod of one node changes', 60, agents, () => {
      const [one] = agents;
      one!.pods[0] = 'db';
      one!.evaluate();
    });
    await check('db');
    await phase('rule that does not parse', 60, agents, () => apply(`bad-${leaseName.slice(-8)}`, 'web', '{{ .Foo }}'));
  };
  const handOver = async (): Promise<void> => {
    const holder = agents.find(({ status }) => status.isHolder);
    const rest = agents.filter((agent) => agent !== holder);
    const closedAt = performance.now();
    let takenAfter: number | undefined;
    await phase('the holder goes', 120, rest, async () => {
      await holder?.close();
      while (takenAfter === undefined && performance.now() - closedAt < 100_000) {
        await sleep(clock, 100);
        if (rest.some(({ status }) => status.isHolder)) takenAfter = performance.now() - closedAt;
      }
    });
    process.stdout.write(`  another one held the Lease after ${takenAfter === undefined ? 'more than 100' : (takenAfter / 1_000).toFixed(1)} s\n`);
  };
  const head = ['phase', 's', ...CATEGORIES, 'writes/min, all', 'report writes/min and agent', 'bytes sent per agent', 'received per agent', 'sent by holder', 'received by holder'];
  process.stdout.write(`${AGENTS} agents, ${POD_COUNT} pods each\n| ${head.join(' | ')} |\n|${head.map(() => '---').join('|')}|\n`);
  try {
    await phase('start, no rule', 45, agents, () => agents.forEach((agent) => agent.start()));
    await phase('rule created', 60, agents, () => apply(ruleName, 'web'));
    await check('web');
    if (!IS_CHURN_ONLY) await quietPhases();
    await phase('all pods of all nodes keep changing', 240, agents, () => churn(agents, 240 * SCALE));
    await phase('after it', 180, agents, () => undefined);
    await check(IS_CHURN_ONLY ? 'web' : 'db');
    if (!IS_CHURN_ONLY) await handOver();
  } finally {
    await Promise.all(agents.map((agent) => agent.close()));
    await client.delete(namespacedPathOf(LEASES, NAMESPACE, leaseName)).catch(() => undefined);
    await removeEvents(client, leaseName.slice(-8));
    await kinds.remove();
  }
}

/** Each node's count moves all the time, is never quiet, and comes back to where it was only after 84 s: the most that a node writes. */
async function churn(agents: readonly Agent[], seconds: number): Promise<void> {
  const end = performance.now() + seconds * 1_000;
  for (let turn = 1; performance.now() < end; turn++) {
    const count = (10 + turn * 8) % (POD_COUNT + 1);
    for (const agent of agents) {
      agent.pods.forEach((_, pod) => (agent.pods[pod] = pod < count ? 'db' : 'web'));
      agent.evaluate();
    }
    await sleep(clock, 4_000);
  }
}

async function removeEvents(client: KubernetesClient, suffix: string): Promise<void> {
  const events = `/apis/events.k8s.io/v1/namespaces/${NAMESPACE}/events`;
  const names: string[] = [];
  await client.list({ name: 'events', path: events }, {}, (raw) => void names.push(textAt(objectAt(raw, 'metadata'), 'name')));
  for (const name of names.filter((one) => one.includes(suffix))) await client.delete(`${events}/${name}`).catch(() => undefined);
}

if (typeof found === 'string') {
  process.stderr.write(`no API server to simulate against: ${found}\n`);
  process.exitCode = 1;
} else {
  // The clock's timers do not keep a process alive.
  const alive = setInterval(() => undefined, 60_000);
  await run(found).finally(() => clearInterval(alive));
  found.client.close();
}
