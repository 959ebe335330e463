import { WorkloadApiClient } from '../../../src/client/workload-api-client.ts';
import { parseSpiffeId } from '../../../src/spiffe/id.ts';
import { holds, shown } from '../../e2e/expect.ts';
import { eventually, pause } from '../../e2e/wait.ts';
import { idOf, NodeAgent } from '../agents.ts';
import { vaultOrAgentMissing } from '../missing.ts';
import type { Report } from '../report.ts';
import type { Step } from '../step.ts';
import { flawless, seconds, Traffic } from '../traffic-process.ts';
import { underVault, vaultFor } from '../vault.ts';

const HALF_MS = 90_000;
const RETURN_MS = 10_000;
const FIRST_TOKEN_MS = 20_000;
/** The port of a CA comes back some time before it serves; what is polled here adds up to 50 ms. */
const POLL_MS = 50;

/** Vault is away for three minutes; the agent is killed, and started again, in the middle. */
export const outage: Step = {
  title: 'Vault is stopped for 3 minutes under load, 60 s SVIDs, the agent killed and restarted in the middle',
  missing: vaultOrAgentMissing,
  async run(report, started) {
    const vault = await vaultFor('intermediate', started);
    await rideOutage(report, started, { name: 'vault', config: underVault(vault, 'intermediate'), stop: () => vault.server.stop(), start: () => vault.server.start() });
  },
};

/** A CA that can be stopped, and the configuration of an agent under it. */
export interface StoppableCa {
  /** As metrics have it. */
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
  stop(): Promise<void>;
  start(): Promise<void>;
}

export async function rideOutage(report: Report, started: AsyncDisposableStack, ca: StoppableCa): Promise<void> {
  const agent = started.use(await NodeAgent.start(['server', 'client'], { ...ca.config, x509: { ttl: '60s' } }));
  const [server, client] = ['server', 'client'].map((name) => ({ socket: agent.socket, id: idOf(name) })) as [Place, Place];
  await firstToken(client);
  const traffic = started.use(await Traffic.start({ server, client, rate: 20, watchers: 8, tokens: true }));
  await pause(10_000);
  report.note(`${ca.name} is stopped`);
  const stopped = performance.now();
  await ca.stop();
  await report.check(`the agent says that ${ca.name} is away, and stays ready`, async () => {
    await isAway(agent, 60_000);
    return `told ${seconds(performance.now() - stopped)} after the stop; ${await tellAge(agent, ca.name)}`;
  });
  await pause(HALF_MS - (performance.now() - stopped));
  const before = traffic.figures;
  await agent.kill();
  const killed = performance.now();
  await report.check(`the agent starts again without ${ca.name}`, async () => {
    await agent.start();
    return `SIGKILL to ready: ${seconds(performance.now() - killed)}`;
  });
  await report.check('all streams reconnect by themselves', async () => {
    const { watchers } = await traffic.until('every stream goes on', 30_000, ({ watchers: now }) => now.broken === 0 && now.updates > before.watchers.updates);
    return `interruptions ${JSON.stringify(watchers.interruptions)}; longest from the break to the next update ${seconds(watchers.longestGapMs)}`;
  });
  await isAway(agent, 60_000);
  await pause(2 * HALF_MS - (performance.now() - stopped));
  const outageMs = performance.now() - stopped;
  report.note(`${ca.name} is started, away for ${seconds(outageMs)}`);
  const returned = watchReturn(agent);
  await ca.start();
  const serving = performance.now();
  await report.check(`it recovers when ${ca.name} is back`, async () => `nothing is away ${Math.round((await returned) - serving)} ms after it served again; ${await tellAge(agent, ca.name)}`);
  await pause(20_000);
  const figures = await traffic.stop();
  await report.check('no handshake failed, and no expired certificate was presented or held', () => `${flawless(figures)}; ${ca.name} away for ${seconds(outageMs)}, ${figures.leaves} different leaves`);
  await report.check('no stream was refused anything, and tokens were signed all the time', () => {
    const codes = Object.keys(figures.watchers.interruptions);
    holds(codes.every((code) => code === 'unavailable'), `streams: ${shown(figures.watchers.interruptions)}`);
    holds(Object.keys(figures.tokenFailures).every((code) => code === 'unavailable'), `tokens: ${shown(figures.tokenFailures)}`);
    return `${figures.tokens} tokens fetched and validated; while no agent ran ${JSON.stringify(figures.tokenFailures)}`;
  });
}

interface Place {
  readonly socket: string;
  readonly id: string;
}

/** A node that has just joined a SPIRE server signs once everybody knows its key, after 6 s: longer than the workloads here wait. */
export async function firstToken({ socket, id }: Place): Promise<void> {
  await using client = new WorkloadApiClient({ endpoint: `unix://${socket}`, timeoutMs: FIRST_TOKEN_MS });
  await client.fetchJwtSvids({ audience: [id], id: parseSpiffeId(id) });
}

async function isAway(agent: NodeAgent, timeoutMs: number): Promise<void> {
  await eventually('the agent tells that its CA is away', timeoutMs, async () => {
    const { status, body } = await agent.ready();
    holds(status === 200, `not ready: ${body}`);
    return /upstream_away/.test(body) ? true : undefined;
  });
}

/** Resolves with the moment (performance.now) at which nothing is away any more. */
async function watchReturn(agent: NodeAgent): Promise<number> {
  const end = performance.now() + 30_000 + RETURN_MS;
  for (;;) {
    if (!/upstream_away/.test((await agent.ready()).body)) return performance.now();
    if (performance.now() > end) throw new Error('the agent still tells that its CA is away');
    await pause(POLL_MS);
  }
}

async function tellAge(agent: NodeAgent, upstream: string): Promise<string> {
  const metrics = await agent.metrics();
  const age = metrics.of(`signet_upstream_last_success_age_seconds{upstream="${upstream}"}`);
  return `metrics: last success ${age === undefined ? 'unknown' : `${age.toFixed(1)} s ago`}, failures ${metrics.of(`signet_upstream_failures_total{upstream="${upstream}"}`) ?? 'none'}`;
}
