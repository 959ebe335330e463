import { pause } from '../e2e/wait.ts';
import { idOf, NodeAgent } from './agents.ts';
import type { Report } from './report.ts';
import { failuresOf, flawless, seconds, Traffic } from './traffic-process.ts';

const RATE = 50;
const NEWCOMER_RATE = 10;
/** SVIDs under the former CA are replaced within half of their life; a good while after. */
const AFTERWARDS_MS = 15_000;

/** Two agents under one CA, a workload of each, and what they do with each other. */
export class Pair {
  readonly agents: readonly [NodeAgent, NodeAgent];
  readonly traffic: Traffic;
  readonly #config: Readonly<Record<string, unknown>>;
  readonly #started: AsyncDisposableStack;

  private constructor(agents: Pair['agents'], traffic: Traffic, config: Readonly<Record<string, unknown>>, started: AsyncDisposableStack) {
    this.agents = agents;
    this.traffic = traffic;
    this.#config = config;
    this.#started = started;
  }

  static async start(config: Readonly<Record<string, unknown>>, started: AsyncDisposableStack): Promise<Pair> {
    const svids = { x509: { ttl: '60s' } };
    const one = started.use(await NodeAgent.start(['server'], { ...config, ...svids }));
    const other = started.use(await NodeAgent.start(['client'], { ...config, ...svids }));
    const places = { server: { socket: one.socket, id: idOf('server') }, client: { socket: other.socket, id: idOf('client') } };
    const traffic = started.use(await Traffic.start({ ...places, rate: RATE }));
    return new Pair([one, other], traffic, { ...config, ...svids }, started);
  }

  /** A third agent, which has never seen the CA before, and what a workload of its own does with the server of the first one. */
  async join(): Promise<Traffic> {
    const [{ socket }] = this.agents;
    const newcomer = this.#started.use(await NodeAgent.start(['newcomer'], this.#config));
    const places = { server: { socket, id: idOf('server') }, client: { socket: newcomer.socket, id: idOf('newcomer') } };
    return this.#started.use(await Traffic.try({ ...places, rate: NEWCOMER_RATE }));
  }

  /** Resolves when both workloads believe so many roots. */
  async believes(roots: number, timeoutMs: number): Promise<void> {
    await this.traffic.until(`${roots} roots at both ends`, timeoutMs, ({ watchers }) => watchers.roots[0] === roots && watchers.roots[1] === roots);
  }

  /** Resolves when leaves of both agents stand under node CAs that were not seen before. */
  async isReplaced(before: number, timeoutMs: number): Promise<void> {
    await this.traffic.until('leaves under new node CAs at both ends', timeoutMs, ({ issuers }) => issuers >= before + 2);
  }
}

/** What an operator does to the CA above. */
export interface RootChange {
  /** The new root becomes known, and nothing else. */
  publish(): Promise<void> | void;
  /** What signs stands under the new root from now on. */
  swap(): Promise<void> | void;
  /** The former root is gone above. */
  remove(): Promise<void> | void;
  /** Roots at both ends by now. */
  readonly roots: number;
  /** How long the operator waits between the two, beyond the moment at which both ends have the root. */
  readonly waitMs: number;
}

/** As documented: first the root, then the CA, then the former root goes. */
export async function announced(report: Report, pair: Pair, change: RootChange): Promise<void> {
  const { traffic } = pair;
  await report.check('a root that is published first, then signs: not one handshake fails', async () => {
    const issuers = traffic.figures.issuers;
    report.note('the new root is published');
    const published = performance.now();
    await change.publish();
    await pair.believes(change.roots, 120_000);
    const spread = performance.now() - published;
    await pause(change.waitMs);
    report.note('the CA is swapped');
    const swapped = performance.now();
    await change.swap();
    await pair.isReplaced(issuers, 300_000);
    const replaced = performance.now() - swapped;
    report.note('the former root is removed');
    await change.remove();
    await pause(AFTERWARDS_MS + 30_000);
    return `${flawless(traffic.figures)}; root at both ends after ${seconds(spread)}, both ends under the new CA ${seconds(replaced)} after the swap`;
  });
}

/** An operator who swaps everything at one moment: what it costs is told, right or wrong. */
export async function unannounced(report: Report, pair: Pair, swapAll: () => Promise<void> | void): Promise<void> {
  const { traffic } = pair;
  const before = traffic.figures;
  report.note('all is swapped at once');
  const swapped = performance.now();
  const swappedAt = Date.now();
  await swapAll();
  const joining = await pair.join();
  await report.check('everything swapped at one moment: between nodes that ran before', async () => {
    await pair.isReplaced(before.issuers, 400_000);
    const replaced = performance.now() - swapped;
    await pause(AFTERWARDS_MS);
    return `${failuresOf(traffic.figures)} (since the start; before the swap ${failuresOf(before)}); both ends under the new CA after ${seconds(replaced)}`;
  });
  await report.check('everything swapped at one moment: between one of them and a node that starts just then', async () => {
    const figures = await joining.until('connections', 60_000, ({ connections }) => connections > 0);
    const { failedFrom = swappedAt, failedUntil = swappedAt } = joining.figures;
    return `${failuresOf(figures)}; failures from ${seconds(failedFrom - swappedAt)} to ${seconds(failedUntil - swappedAt)} after the swap`;
  });
}
