import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { endChild, workingProcess } from './process.ts';
import { diagnose, launch, PROJECT, userEntries, wallClock, type Restarted, type StartOptions, type Subject } from './subject.ts';
import type { LoadClient } from './load-client.ts';

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

  async start(options: StartOptions = {}): Promise<number> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
    mkdirSync(join(this.#directory, 'data'), { recursive: true });
    // Callers of other users have to reach the socket.
    mkdirSync(join(this.#directory, 'run'), { mode: 0o755 });
    // JSON is YAML.
    writeFileSync(this.#file, JSON.stringify(this.#configuration(options), undefined, 2));
    return (await this.#launch()).startMs;
  }

  async restart(): Promise<Restarted> {
    const signalledAt = wallClock();
    await this.stop();
    const { startedAt, startMs } = await this.#launch();
    return { signalledAt, startedAt, ms: startMs };
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

  get #file(): string {
    return join(this.#directory, 'signet.yaml');
  }

  async #launch(): Promise<{ readonly startedAt: number; readonly startMs: number }> {
    const args = ['deploy/signet', 'agent', '--config', this.#file];
    const { child, startedAt, startMs } = await launch(this.#client, this.socketPath, this.#log, 'sh', args);
    this.#child = child;
    this.#pids = child.pid === undefined ? [] : [workingProcess(child.pid)];
    return { startedAt, startMs };
  }

  #configuration(options: StartOptions): object {
    return {
      trustDomain: 'example.org',
      socketPath: this.socketPath,
      dataDir: join(this.#directory, 'data'),
      privateDir: join(this.#directory, 'private'),
      x509: { ttl: `${options.x509TtlSeconds ?? 3600}s` },
      entries: [
        { id: 'spiffe://example.org/ns/default/sa/root', selectors: [`unix:uid:${process.getuid?.()}`] },
        ...userEntries(options).map(({ uid, id }) => ({ id, selectors: [`unix:uid:${uid}`] })),
      ],
      ...(options.defaultLimits === true ? {} : { limits: { callRatePerOwner: 1_000_000, connectionRatePerOwner: 100_000 } }),
      log: { level: 'warn' },
    };
  }
}
