import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { holds } from '../e2e/expect.ts';
import type { Figures } from './traffic-figures.ts';

const PROGRAM = fileURLToPath(new URL('traffic.ts', import.meta.url));

export interface TrafficPlan {
  readonly server: { readonly socket: string; readonly id: string };
  readonly client: { readonly socket: string; readonly id: string };
  /** Connections each second. */
  readonly rate: number;
  readonly watchers?: number;
  readonly tokens?: boolean;
}

/** Workloads in a process of their own. */
export class Traffic implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  #figures: Figures | undefined;
  #stderr = '';

  private constructor(plan: TrafficPlan) {
    const text = JSON.stringify({ watchers: 0, tokens: false, ...plan });
    this.#child = spawn(process.execPath, [PROGRAM, text], { stdio: ['pipe', 'pipe', 'pipe'] });
    createInterface({ input: this.#child.stdout }).on('line', (line) => (this.#figures = JSON.parse(line) as Figures));
    this.#child.stderr.setEncoding('utf8').on('data', (piece: string) => (this.#stderr = (this.#stderr + piece).slice(-2_000)));
  }

  /** Resolves when connections have been made. */
  static async start(plan: TrafficPlan): Promise<Traffic> {
    const traffic = await Traffic.try(plan);
    await traffic.until('the first connections', 30_000, ({ connections }) => connections > 0);
    return traffic;
  }

  /** Resolves when they are being tried. */
  static async try(plan: TrafficPlan): Promise<Traffic> {
    const traffic = new Traffic(plan);
    await traffic.until('the workloads run', 30_000, ({ ranMs }) => ranMs > 0);
    return traffic;
  }

  /** The newest, at most a second old. @throws Error when the process has ended */
  get figures(): Figures {
    holds(this.#child.exitCode === null && this.#child.signalCode === null, `the traffic has ended: ${this.#stderr}`);
    return this.#figures ?? NOTHING;
  }

  async until(what: string, timeoutMs: number, isSo: (figures: Figures) => boolean): Promise<Figures> {
    const end = performance.now() + timeoutMs;
    while (!isSo(this.figures)) {
      if (performance.now() > end) throw new Error(`not within ${timeoutMs / 1_000} s: ${what}; ${JSON.stringify(this.figures)}`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    return this.figures;
  }

  /** Ends it; the last figures. */
  async stop(): Promise<Figures> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const gone = once(this.#child, 'close');
      this.#child.kill('SIGTERM');
      await gone;
    }
    return this.#figures ?? NOTHING;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

const NOTHING: Figures = {
  ranMs: 0,
  connections: 0,
  failures: {},
  slowestMs: 0,
  longestStallMs: 0,
  leaves: 0,
  issuers: 0,
  watchers: { updates: 0, interruptions: {}, longestGapMs: 0, broken: 0, roots: [0, 0] },
  tokens: 0,
  tokenFailures: {},
};

/** @throws Error when a handshake has failed, or an expired certificate was seen */
export function flawless(figures: Figures): string {
  const { connections, failures, leastLifeMs, watchers, ranMs } = figures;
  holds(connections > 0, 'there were no connections');
  holds(Object.keys(failures).length === 0, `handshakes failed: ${JSON.stringify(failures)} beside ${connections} that were right; ${paceOf(figures)}`);
  holds((leastLifeMs ?? 0) > 0, `presented with ${leastLifeMs} ms left`);
  holds((watchers.leastLifeMs ?? 0) > 0, `a watcher held one with ${watchers.leastLifeMs} ms left`);
  return `${connections} handshakes (${(connections / (ranMs / 1_000)).toFixed(1)} a second), 0 failed; least remaining life presented ${seconds(leastLifeMs)}, held ${seconds(watchers.leastLifeMs)}; ${paceOf(figures)}`;
}

function paceOf({ slowestMs, longestStallMs }: Figures): string {
  return `slowest ${slowestMs} ms, longest stall of the workloads' process ${longestStallMs} ms`;
}

/** How many failed, between which moments. */
export function failuresOf(figures: Figures): string {
  const { connections, failures, failedFrom, failedUntil } = figures;
  const failed = Object.values(failures).reduce((sum, one) => sum + one, 0);
  if (failedFrom === undefined || failedUntil === undefined) return `${connections} handshakes, 0 failed`;
  return `${connections} handshakes right, ${failed} failed over ${seconds(failedUntil - failedFrom)}: ${JSON.stringify(failures)}; ${paceOf(figures)}`;
}

export function seconds(ms: number | undefined): string {
  return ms === undefined ? 'unknown' : `${(ms / 1_000).toFixed(1)} s`;
}
