import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { messageOf } from '../../src/errors.ts';
import { endChild, runToEnd, workingProcess } from './process.ts';
import type { AwaitDetail, LoadClient, Target } from './load-client.ts';

export const PROJECT = resolve(import.meta.dirname, '../..');

export interface StartOptions {
  /** Lifetime of the X509-SVIDs; default 3600. */
  readonly x509TtlSeconds?: number;
}

/** An agent under test: a real process, fresh at each start. */
export interface Subject extends Target {
  readonly name: string;
  /** What was set differently from the product's defaults. */
  readonly settings: string;
  /** Resolves with the milliseconds from the agent's start to the first X509-SVID in a client's hands. */
  start(options?: StartOptions): Promise<number>;
  stop(): Promise<void>;
  /** Why it may have failed: how it ended and the end of its log; empty while it runs. */
  diagnosis(): string;
}

interface Launched {
  readonly child: ChildProcess;
  readonly startMs: number;
}

function endOf(logFile: string): string {
  return existsSync(logFile) ? readFileSync(logFile, 'utf8').trim().split('\n').slice(-15).join('\n') : '';
}

function diagnose(child: ChildProcess | undefined, logFile: string): string {
  if (child === undefined || (child.exitCode === null && child.signalCode === null)) return '';
  return `the agent has ended (${child.signalCode ?? `exit code ${child.exitCode}`}); the end of its log:\n${endOf(logFile)}`;
}

/**
 * Starts an agent with a client that already waits for its socket. Rejects with the end of its log when it ends or does not
 * serve within a minute.
 */
async function launch(
  client: LoadClient, socketPath: string, logFile: string, command: string, args: readonly string[],
): Promise<Launched> {
  rmSync(socketPath, { force: true });
  const waiting = client.run<AwaitDetail>({ socketPath, pids: [] }, ['await', '-for', '60s'], 60);
  // Handled below; an agent that cannot be spawned must not leave this rejection without anyone.
  waiting.catch(() => {});
  const log = openSync(logFile, 'w');
  const from = performance.timeOrigin + performance.now();
  const child = spawn(command, args, { cwd: PROJECT, stdio: ['ignore', log, log] });
  closeSync(log);
  const ended = new Promise<never>((_, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => reject(new Error(`${command} ended (${signal ?? `exit code ${code}`})`)));
  });
  ended.catch(() => {});
  try {
    const { report } = await Promise.race([waiting, ended]);
    if (report.detail === undefined) throw new Error('load await printed no detail');
    return { child, startMs: report.detail.at_unix_ms - from };
  } catch (error) {
    await endChild(child);
    const text = `${command} ${args.join(' ')} does not serve: ${messageOf(error)}; the end of its log:\n${endOf(logFile)}`;
    throw new Error(text, { cause: error });
  }
}

/** Signet as `make build` left it, with one identity for the current user. */
export class Signet implements Subject {
  readonly name = 'Signet';
  readonly settings =
    'limits.callRatePerOwner 1,000,000 and limits.connectionRatePerOwner 100,000 (one user makes all the load), log.level warn';
  readonly socketPath: string;
  readonly #directory: string;
  readonly #client: LoadClient;
  readonly #log: string;
  #child: ChildProcess | undefined;
  #pids: readonly number[] = [];

  constructor(directory: string, client: LoadClient) {
    this.#directory = directory;
    this.#client = client;
    this.#log = join(directory, 'agent.log');
    this.socketPath = join(directory, 'run', 'api.sock');
  }

  /** Why it cannot be measured, or undefined. */
  static missing(): string | undefined {
    const missing = ['dist/main.js', 'deploy/signet'].filter((file) => !existsSync(join(PROJECT, file)));
    return missing.length > 0 ? `${missing.join(' and ')} missing: run \`make build\` first` : undefined;
  }

  get pids(): readonly number[] {
    return this.#pids;
  }

  async start({ x509TtlSeconds = 3600 }: StartOptions = {}): Promise<number> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
    for (const name of ['run', 'data']) mkdirSync(join(this.#directory, name), { recursive: true, mode: 0o700 });
    const file = join(this.#directory, 'signet.yaml');
    // JSON is YAML.
    writeFileSync(file, JSON.stringify(this.#configuration(x509TtlSeconds), undefined, 2));
    const args = ['deploy/signet', 'agent', '--config', file];
    const { child, startMs } = await launch(this.#client, this.socketPath, this.#log, 'sh', args);
    this.#child = child;
    this.#pids = child.pid === undefined ? [] : [workingProcess(child.pid)];
    return startMs;
  }

  async stop(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    this.#pids = [];
    if (child !== undefined) await endChild(child);
  }

  diagnosis(): string {
    return diagnose(this.#child, this.#log);
  }

  #configuration(x509TtlSeconds: number): object {
    return {
      trustDomain: 'example.org',
      socketPath: this.socketPath,
      dataDir: join(this.#directory, 'data'),
      privateDir: join(this.#directory, 'private'),
      x509: { ttl: `${x509TtlSeconds}s` },
      entries: [{ id: 'spiffe://example.org/ns/default/sa/root', selectors: [`unix:uid:${process.getuid?.()}`] }],
      limits: { callRatePerOwner: 1_000_000, connectionRatePerOwner: 100_000 },
      log: { level: 'warn' },
    };
  }
}

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
  async start({ x509TtlSeconds = 3600 }: StartOptions = {}): Promise<number> {
    await this.stop();
    mkdirSync(this.#directory, { recursive: true });
    await this.#harness('start.sh', { X509_TTL: String(x509TtlSeconds) });
    await this.#harness('prepare-agent.sh', {});
    const args = ['run', '-config', join(this.#directory, 'agent.conf')];
    const { child, startMs } = await launch(this.#client, this.socketPath, this.#log, Spire.#binary('spire-agent'), args);
    this.#agent = child;
    const server = Number(readFileSync(join(this.#directory, 'server.pid'), 'utf8'));
    this.#pids = child.pid === undefined ? [server] : [child.pid, server];
    return startMs;
  }

  async stop(): Promise<void> {
    const agent = this.#agent;
    this.#agent = undefined;
    this.#pids = [];
    if (agent !== undefined) await endChild(agent);
    // Not bound to the run's signal: the server has to go also when the run is called off.
    const options = { timeoutMs: 30_000, signal: new AbortController().signal };
    if (existsSync(join(this.#directory, 'server.pid'))) {
      await runToEnd(join(Spire.harness(), 'stop.sh'), [this.#directory, 'server'], options);
    }
  }

  diagnosis(): string {
    return diagnose(this.#agent, this.#log);
  }

  async #harness(script: string, env: Readonly<Record<string, string>>): Promise<void> {
    const options = { env: { ...this.#environment, ...env }, timeoutMs: 120_000, signal: this.#signal };
    const { code, errors } = await runToEnd(join(Spire.harness(), script), [this.#directory], options);
    if (code !== 0) throw new Error(`${script} of SPIRE's harness: ${errors.trim() || `exit code ${code}`}`);
  }
}
