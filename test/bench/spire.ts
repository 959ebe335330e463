import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { endChild, runToEnd } from './process.ts';
import {
  diagnose, launch, PROJECT, userEntries, wallClock, type Restarted, type StartOptions, type Subject,
} from './subject.ts';
import type { LoadClient } from './load-client.ts';

/** SPIRE's server and agent, through the harness that `SPIRE_HARNESS` names. */
export class Spire implements Subject {
  readonly name: string;
  readonly settings: string;
  readonly socketPath: string;
  readonly #directory: string;
  readonly #client: LoadClient;
  readonly #signal: AbortSignal;
  readonly #log: string;
  readonly #environment: Readonly<Record<string, string>>;
  #agent: ChildProcess | undefined;
  #pids: readonly number[] = [];

  constructor(directory: string, client: LoadClient, tuned: boolean, port: number, signal: AbortSignal) {
    this.name = tuned ? 'SPIRE tuned' : 'SPIRE';
    this.settings = tuned ? 'no signing limits, synchronises each second, log level WARN' : 'defaults, log level WARN';
    this.#directory = directory;
    this.#client = client;
    this.#signal = signal;
    this.#environment = { TUNED: tuned ? '1' : '0', PORT: String(port), AGENT: '0' };
    this.#log = join(directory, 'agent.log');
    this.socketPath = join(directory, 'agent.sock');
  }

  static harness(): string {
    return resolve(PROJECT, process.env['SPIRE_HARNESS'] || '../shared/spire');
  }

  static #binary(name: string): string {
    return join(process.env['SIGNET_CACHE'] || join(homedir(), '.cache', 'signet-tools'), 'bin', name);
  }

  /** Why it cannot be measured, or undefined. */
  static missing(): string | undefined {
    const files = ['start.sh', 'stop.sh', 'prepare-agent.sh'].map((name) => join(Spire.harness(), name));
    const missing = [...files, Spire.#binary('spire-server'), Spire.#binary('spire-agent')].filter((file) => !existsSync(file));
    if (missing.length > 0) return `missing: ${missing.join(', ')}`;
    return process.getuid?.() === 0 ? undefined : 'its harness registers uid 0 only';
  }

  get pids(): readonly number[] {
    return this.#pids;
  }

  /** The agent is started here and not by start.sh, so that the way to its first SVID can be timed. */
  async start(options: StartOptions = {}): Promise<number> {
    await this.stop();
    mkdirSync(this.#directory, { recursive: true });
    await this.#harness('start.sh', { X509_TTL: String(options.x509TtlSeconds ?? 3600) });
    await this.#register(options);
    // With its keys in memory only an agent needs a new join token to start again.
    await this.#harness('prepare-agent.sh', options.keepState === true ? { KEYS: 'disk' } : {});
    return (await this.#launch()).startMs;
  }

  async restart(): Promise<Restarted> {
    const signalledAt = wallClock();
    await this.#endAgent();
    const { startedAt, startMs } = await this.#launch();
    return { signalledAt, startedAt, ms: startMs };
  }

  async stop(): Promise<void> {
    await this.#endAgent();
    // Not bound to the run's signal: the server has to go also when the run is called off.
    const options = { timeoutMs: 30_000, signal: new AbortController().signal };
    if (existsSync(join(this.#directory, 'server.pid'))) {
      await runToEnd(join(Spire.harness(), 'stop.sh'), [this.#directory, 'server'], options);
    }
  }

  diagnosis(): string {
    return diagnose(this.#agent, this.#log);
  }

  async #launch(): Promise<{ readonly startedAt: number; readonly startMs: number }> {
    const args = ['run', '-config', join(this.#directory, 'agent.conf')];
    const { child, startedAt, startMs } =
      await launch(this.#client, this.socketPath, this.#log, Spire.#binary('spire-agent'), args);
    this.#agent = child;
    const server = Number(readFileSync(join(this.#directory, 'server.pid'), 'utf8'));
    this.#pids = child.pid === undefined ? [server] : [child.pid, server];
    return { startedAt, startMs };
  }

  async #endAgent(): Promise<void> {
    const agent = this.#agent;
    this.#agent = undefined;
    this.#pids = [];
    if (agent !== undefined) await endChild(agent);
  }

  /** The harness knows uid 0 only. */
  async #register(options: StartOptions): Promise<void> {
    const ttl = options.x509TtlSeconds ?? 3600;
    const entries = userEntries(options).map(({ uid, id }) => ({
      parent_id: 'spiffe://example.org/host', spiffe_id: id, selectors: [{ type: 'unix', value: `uid:${uid}` }], x509_svid_ttl: ttl,
    }));
    if (entries.length === 0) return;
    const file = join(this.#directory, 'users.json');
    writeFileSync(file, JSON.stringify({ entries }));
    const args = ['entry', 'create', '-socketPath', join(this.#directory, 'server.sock'), '-data', file];
    const run = { timeoutMs: 120_000, signal: this.#signal };
    const { code, errors, output } = await runToEnd(Spire.#binary('spire-server'), args, run);
    if (code !== 0) throw new Error(`spire-server entry create: ${(errors || output).trim().slice(-500)}`);
  }

  async #harness(script: string, env: Readonly<Record<string, string>>): Promise<void> {
    const options = { env: { ...this.#environment, ...env }, timeoutMs: 120_000, signal: this.#signal };
    const { code, errors } = await runToEnd(join(Spire.harness(), script), [this.#directory], options);
    if (code !== 0) throw new Error(`${script} of SPIRE's harness: ${errors.trim() || `exit code ${code}`}`);
  }
}
