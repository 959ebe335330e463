import { createServer, type AddressInfo } from 'node:net';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../e2e/wait.ts';
import { startAgentProcess, type AgentProcess } from '../support/agent-process.ts';
import { http, scrape, type Scrape } from '../telemetry/scrape.ts';
import { ROOT } from './missing.ts';
import { runProgram } from '../e2e/run-program.ts';

export const TRUST_DOMAIN = 'example.org';
/** The SPIFFE ID of a workload. */
export const idOf = (name: string): string => `spiffe://${TRUST_DOMAIN}/${name}`;

/** An agent as a process, which can be started again on what it has left. */
export class NodeAgent implements AsyncDisposable {
  readonly directory: string;
  readonly #config: Readonly<Record<string, unknown>>;
  readonly #telemetry: { readonly host: string; readonly port: number };
  #process: AgentProcess | undefined;

  private constructor(config: Readonly<Record<string, unknown>>, port: number) {
    this.directory = mkdtempSync(join(tmpdir(), 'signet-under-ca-'));
    this.#telemetry = { host: '127.0.0.1', port };
    this.#config = { trustDomain: TRUST_DOMAIN, telemetry: { address: `127.0.0.1:${port}` }, ...config };
  }

  /** `workloads`: names of what the user who runs this owns. Resolves when the agent is ready. */
  static async start(workloads: readonly string[], config: Readonly<Record<string, unknown>>): Promise<NodeAgent> {
    const selectors = [`unix:uid:${process.geteuid?.()}`];
    const entries = workloads.map((name) => ({ id: idOf(name), selectors, hint: name }));
    const agent = new NodeAgent({ entries, ...config }, await freePort());
    try {
      await agent.start();
    } catch (error) {
      await agent[Symbol.asyncDispose]();
      throw error;
    }
    return agent;
  }

  async start(): Promise<void> {
    this.#process = await startAgentProcess({ directory: this.directory, config: this.#config });
  }

  /** Ends it as a crash does. */
  async kill(): Promise<void> {
    this.#running.signal('SIGKILL');
    await this.#running.exited;
  }

  get socket(): string {
    return this.#running.socketPath;
  }

  get pid(): number {
    return this.#running.pid;
  }

  /** What this process of it has logged. */
  log(): string {
    return this.#running.log();
  }

  metrics(): Promise<Scrape> {
    return scrape(this.#telemetry);
  }

  async ready(): Promise<{ readonly status: number; readonly body: string }> {
    return http(this.#telemetry, '/ready');
  }

  /** A command of the operator; its answer as JSON. */
  async signet(...words: readonly string[]): Promise<unknown> {
    const env = { SIGNET_ADMIN_SOCKET: join(this.directory, 'private', 'admin.sock') };
    return JSON.parse(await runProgram([join(ROOT, 'deploy', 'signet'), ...words, '--output', 'json'], { env }));
  }

  async logged(what: string, pattern: RegExp, timeoutMs = 90_000): Promise<string> {
    return eventually(what, timeoutMs, async () => this.log().split('\n').find((line) => pattern.test(line)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process?.stop();
    if (process.env['SIGNET_KEEP'] === undefined) rmSync(this.directory, { recursive: true, force: true });
  }

  get #running(): AgentProcess {
    if (this.#process === undefined) throw new Error('the agent is not started');
    return this.#process;
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
