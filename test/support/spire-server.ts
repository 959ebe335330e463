import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';

const CACHE = process.env['SIGNET_CACHE'] ?? join(homedir(), '.cache', 'signet-tools');
const SERVER = join(CACHE, 'bin', 'spire-server');
const AGENT = join(CACHE, 'bin', 'spire-agent');
const START_MS = 30_000;
const run = promisify(execFile);

/** Why there is no SPIRE to test against, for the title of a skipped test; undefined when there is one. */
export function spireMissing(): string | undefined {
  return [SERVER, AGENT].every((path) => existsSync(path)) ? undefined : `no SPIRE at ${SERVER} and ${AGENT}`;
}

export interface SpireServerOptions {
  readonly trustDomain?: string;
  /** Of the server's own CA; SPIRE prepares the next one at half of it. Default `24h`. */
  readonly caTtl?: string;
  /** Life of the agents' SVIDs. Default the server's. */
  readonly agentTtl?: string;
  /** URL of the API server that k8s_psat asks about tokens for the cluster `test`, which the service account `signet-system:signet` may have. */
  readonly psatApi?: string;
  /** Files of a CA above the server. */
  readonly above?: { readonly certificate: string; readonly key: string };
  /** PEM of the CA whose certificates x509pop takes; none without. */
  readonly popCa?: string;
}

/** The ID that all Signet nodes of the tests have: the parent of the downstream entry. */
export const NODES = '/signet/nodes';

/** A real SPIRE server of our own on the loopback, with its keys and its datastore on disk, so that it can be stopped and started. */
export class SpireServer implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'signet-spire-'));
  readonly port: number;
  readonly trustDomain: string;
  readonly #options: SpireServerOptions;
  #process: ChildProcess | undefined;

  private constructor(port: number, options: SpireServerOptions) {
    this.port = port;
    this.#options = options;
    this.trustDomain = options.trustDomain ?? 'example.org';
  }

  /** Resolves when it serves. It has one downstream entry, below `NODES`. */
  static async start(options: SpireServerOptions = {}): Promise<SpireServer> {
    const server = new SpireServer(await freePort(), options);
    try {
      await server.start();
      await server.addDownstream();
      return server;
    } catch (error) {
      await server[Symbol.asyncDispose]();
      throw error;
    }
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  get bundleFile(): string {
    return this.path('bundle.pem');
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  /** Runs a command of `spire-server`, as an operator does; resolves with what it prints. */
  async cli(...words: readonly string[]): Promise<string> {
    const { stdout } = await run(SERVER, [...words, '-socketPath', this.path('server.sock')], { timeout: START_MS });
    return stdout;
  }

  /** `bundleFile`: where its bundle is written to. */
  async start(bundleFile = this.bundleFile): Promise<void> {
    mkdirSync(this.path('data'), { recursive: true });
    writeFileSync(this.path('server.conf'), this.#configuration());
    this.#process = launch(SERVER, this.path('server.conf'), this.path('server.log'));
    await until('the SPIRE server serves', () => this.cli('healthcheck'), this.path('server.log'));
    writeFileSync(bundleFile, await this.cli('bundle', 'show'));
  }

  async stop(): Promise<void> {
    await end(this.#process);
  }

  /** Stops it, and takes away all that it knows. The next start makes another server. */
  async wipe(): Promise<void> {
    await this.stop();
    rmSync(this.path('data'), { recursive: true, force: true });
  }

  /** A join token for `NODES`, or for another alias. */
  async token(alias = NODES, ttl = 600): Promise<string> {
    const text = await this.cli('token', 'generate', '-ttl', String(ttl), '-spiffeID', this.id(alias));
    return /^Token: (\S+)/m.exec(text)?.[1] ?? '';
  }

  id(path: string): string {
    return `spiffe://${this.trustDomain}${path}`;
  }

  /** The ID of the entry. */
  async addEntry(words: readonly string[]): Promise<string> {
    const text = await this.cli('entry', 'create', ...words);
    return /^Entry ID\s*: (\S+)/m.exec(text)?.[1] ?? '';
  }

  addDownstream(): Promise<string> {
    return this.addEntry(['-downstream', '-parentID', this.id(NODES), '-spiffeID', this.id('/signet'), '-selector', 'signet:none:none']);
  }

  async deleteEntry(id: string): Promise<void> {
    await this.cli('entry', 'delete', '-entryID', id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    if (process.env['SIGNET_KEEP'] === undefined) rmSync(this.directory, { recursive: true, force: true });
  }

  #configuration(): string {
    const { caTtl = '24h', agentTtl, popCa, psatApi, above } = this.#options;
    const disk = above === undefined ? '' : `UpstreamAuthority "disk" { plugin_data { cert_file_path = "${above.certificate}" key_file_path = "${above.key}" } }`;
    const kubeconfig = { apiVersion: 'v1', kind: 'Config', 'current-context': 'a', clusters: [{ name: 'a', cluster: { server: psatApi } }], users: [{ name: 'a', user: {} }], contexts: [{ name: 'a', context: { cluster: 'a', user: 'a' } }] };
    if (psatApi !== undefined) writeFileSync(this.path('kubeconfig'), JSON.stringify(kubeconfig));
    const psat = psatApi === undefined ? '' : `NodeAttestor "k8s_psat" { plugin_data { clusters = { "test" = { service_account_allow_list = ["signet-system:signet"] kube_config_file = "${this.path('kubeconfig')}" } } } }`;
    if (popCa !== undefined) writeFileSync(this.path('pop-ca.pem'), popCa);
    const pop = popCa === undefined ? '' : `NodeAttestor "x509pop" { plugin_data { ca_bundle_path = "${this.path('pop-ca.pem')}" } }`;
    return `server {
  bind_address = "127.0.0.1"
  bind_port = "${this.port}"
  socket_path = "${this.path('server.sock')}"
  trust_domain = "${this.trustDomain}"
  data_dir = "${this.path('data')}"
  log_level = "INFO"
  ca_ttl = "${caTtl}"
  ca_key_type = "ec-p256"
  default_x509_svid_ttl = "5m"
  ${agentTtl === undefined ? '' : `agent_ttl = "${agentTtl}"`}
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "${this.path('data/datastore.sqlite3')}" } }
  NodeAttestor "join_token" { plugin_data {} }
  ${pop}
  ${psat}
  ${disk}
  KeyManager "disk" { plugin_data { keys_path = "${this.path('data/keys.json')}" } }
}
`;
  }
}

/** The parent of the entries of SPIRE's own agents. */
const HOST = '/spire-agents';

/** A real SPIRE agent of a server, with entries for the user who runs this, which all agents share. */
export class SpireAgent implements AsyncDisposable {
  readonly #directory: string;
  readonly #server: SpireServer;
  #process: ChildProcess | undefined;

  private constructor(server: SpireServer) {
    this.#server = server;
    this.#directory = mkdtempSync(join(tmpdir(), 'signet-spire-agent-'));
  }

  /** `workloads`: paths of IDs; `x509Ttl`, `jwtTtl` in seconds. Resolves when the agent serves. */
  static async start(server: SpireServer, workloads: readonly string[], { x509Ttl = 60, jwtTtl = 60 }: { x509Ttl?: number; jwtTtl?: number } = {}): Promise<SpireAgent> {
    for (const path of workloads) {
      await server.addEntry(['-parentID', server.id(HOST), '-spiffeID', server.id(path), '-selector', `unix:uid:${process.geteuid?.()}`, '-x509SVIDTTL', String(x509Ttl), '-jwtSVIDTTL', String(jwtTtl)]);
    }
    const agent = new SpireAgent(server);
    try {
      await agent.start();
      return agent;
    } catch (error) {
      await agent[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Starts it with a new join token, at the same socket. */
  async start(): Promise<void> {
    const path = (name: string): string => join(this.#directory, name);
    for (const name of ['agent-data.json', 'agent_svid.der', 'bundle.der']) rmSync(path(name), { force: true });
    writeFileSync(path('bundle.pem'), await this.#server.cli('bundle', 'show'));
    writeFileSync(path('agent.conf'), this.#configuration(await this.#server.token(HOST)));
    this.#process = launch(AGENT, path('agent.conf'), path('agent.log'));
    await until('the SPIRE agent serves', () => run(AGENT, ['api', 'fetch', 'x509', '-socketPath', this.socket, '-silent'], { timeout: 5_000 }), path('agent.log'));
  }

  get socket(): string {
    return join(this.#directory, 'agent.sock');
  }

  /** Ends it as an operator does; its directory stays, and with it the place of its socket. */
  async stop(): Promise<void> {
    await end(this.#process);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #configuration(token: string): string {
    return `agent {
  data_dir = "${this.#directory}"
  log_level = "WARN"
  server_address = "127.0.0.1"
  server_port = "${this.#server.port}"
  socket_path = "${this.socket}"
  trust_bundle_path = "${join(this.#directory, 'bundle.pem')}"
  trust_domain = "${this.#server.trustDomain}"
  join_token = "${token}"
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data {} }
}
`;
  }
}

function launch(program: string, configuration: string, logFile: string): ChildProcess {
  const log = openSync(logFile, 'a');
  const child = spawn(program, ['run', '-config', configuration], { stdio: ['ignore', log, log] });
  closeSync(log);
  // Whatever happens to the tests, it does not outlive them.
  const kill = (): void => void child.kill('SIGKILL');
  process.once('exit', kill);
  child.once('exit', () => process.off('exit', kill));
  return child;
}

async function end(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const kill = setTimeout(() => child.kill('SIGKILL'), 5_000);
  await gone;
  clearTimeout(kill);
}

async function until(what: string, ask: () => Promise<unknown>, logFile: string): Promise<void> {
  const deadline = performance.now() + START_MS;
  for (;;) {
    try {
      await ask();
      return;
    } catch (error) {
      if (performance.now() > deadline) throw new Error(`${what}: not within ${START_MS / 1_000} s:\n${readFileSync(logFile, 'utf8').slice(-2_000)}`, { cause: error });
      await delay(100);
    }
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
