import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, openSync, closeSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { createServer, type AddressInfo } from 'node:net';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { makePki, type TestPki } from './kubernetes-pki.ts';

/**
 * A real Vault. By default one of our own, with its storage in a directory, so that it can be stopped, started, sealed and unsealed;
 * with SIGNET_TEST_VAULT_ADDR and SIGNET_TEST_VAULT_TOKEN (and SIGNET_TEST_VAULT_CACERT) one that runs already, Vault or OpenBao,
 * for tests that do none of that.
 */
export interface VaultServer {
  readonly address: URL;
  /** A token that may do everything. */
  readonly token: string;
  readonly caFile: string | undefined;
  /** Empty for a server that runs already. */
  readonly dir: string;
  readonly isOwn: boolean;
  /** Asks with the root token; rejects for what is not 2xx. `LIST` is a method here too. */
  api(method: string, path: string, body?: object): Promise<VaultBody>;
  /** Runs deploy/vault/setup.sh with these settings; returns what it printed. */
  setup(settings: Readonly<Record<string, string>>): Promise<string>;
  seal(): Promise<void>;
  unseal(): Promise<void>;
  /** Ends the process; `start` goes on with what it had stored, unsealed. */
  stop(): Promise<void>;
  start(): Promise<void>;
  /** Takes another certificate for the listener, from its next start on. */
  certify(pki: TestPki): void;
  close(): Promise<void>;
}

export interface VaultBody {
  readonly data?: Readonly<Record<string, unknown>>;
  readonly auth?: Readonly<Record<string, unknown>>;
  readonly [key: string]: unknown;
}

const CACHE = process.env['SIGNET_CACHE'] ?? join(homedir(), '.cache', 'signet-tools');
const BINARY = join(CACHE, 'bin', 'vault');
const PLUGINS = join(CACHE, 'bin', 'vault-plugins');
const SETUP = fileURLToPath(new URL('../../deploy/vault/setup.sh', import.meta.url));

const EXTERNAL = process.env['SIGNET_TEST_VAULT_ADDR'];
const START_MS = 20_000;

/** Why there is no Vault to test against, for the title of a skipped test; undefined when there is one. */
export function vaultMissing(needs: { readonly own?: boolean } = {}): string | undefined {
  if (EXTERNAL !== undefined && needs.own !== true) return undefined;
  if (EXTERNAL !== undefined) return 'the Vault of SIGNET_TEST_VAULT_ADDR is not ours to stop';
  return existsSync(BINARY) ? undefined : `no Vault at ${BINARY}`;
}

export async function startVault(options: { readonly tls?: boolean; readonly own?: boolean } = {}): Promise<VaultServer> {
  if (EXTERNAL !== undefined && options.own !== true) return externalVault(EXTERNAL);
  const server = new OwnVault(await freePort(), options.tls === true ? await makePki() : undefined);
  try {
    await server.init();
    return server;
  } catch (error) {
    await server.close();
    throw error;
  }
}

function externalVault(address: string): VaultServer {
  const token = process.env['SIGNET_TEST_VAULT_TOKEN'] ?? '';
  const caFile = process.env['SIGNET_TEST_VAULT_CACERT'];
  const ca = caFile === undefined ? undefined : readFileSync(caFile, 'utf8');
  const url = new URL(address);
  const notOurs = (): never => {
    throw new Error('this Vault is not ours to stop');
  };
  return {
    address: url,
    token,
    caFile,
    dir: '',
    isOwn: false,
    api: (method, path, body) => ask({ url, token, ca }, method, path, body),
    setup: (settings) => runSetup({ url, token, caFile }, settings),
    seal: notOurs,
    unseal: notOurs,
    stop: notOurs,
    start: notOurs,
    certify: notOurs,
    close: () => Promise.resolve(),
  };
}

class OwnVault implements VaultServer {
  readonly dir = mkdtempSync(join(tmpdir(), 'signet-vault-'));
  readonly isOwn = true;
  readonly address: URL;
  token = '';
  readonly caFile: string | undefined;
  #pki: TestPki | undefined;
  #key = '';
  #process: ChildProcess | undefined;

  constructor(port: number, pki: TestPki | undefined) {
    this.address = new URL(`${pki === undefined ? 'http' : 'https'}://127.0.0.1:${port}`);
    this.#pki = pki;
    if (pki !== undefined) this.certify(pki);
    if (pki !== undefined) this.caFile = join(this.dir, 'ca.crt');
    if (pki !== undefined) writeFileSync(join(this.dir, 'ca.crt'), pki.ca);
    const secure = { tls_cert_file: join(this.dir, 'tls.crt'), tls_key_file: join(this.dir, 'tls.key') };
    const tcp = { address: this.address.host, cluster_address: '127.0.0.1:0', ...(pki === undefined ? { tls_disable: true } : secure) };
    const config = {
      storage: { raft: { path: this.dir, node_id: 'one', performance_multiplier: 1 } },
      listener: { tcp },
      api_addr: this.address.origin,
      cluster_addr: 'https://127.0.0.1:1',
      disable_mlock: true,
      plugin_directory: PLUGINS,
      log_level: 'warn',
    };
    writeFileSync(join(this.dir, 'vault.json'), JSON.stringify(config));
  }

  async init(): Promise<void> {
    await this.#launch();
    const answer = await this.api('POST', 'sys/init', { secret_shares: 1, secret_threshold: 1 });
    this.#key = (answer['keys_base64'] as string[])[0] ?? '';
    this.token = String(answer['root_token']);
    await this.unseal();
  }

  api(method: string, path: string, body?: object): Promise<VaultBody> {
    return ask({ url: this.address, token: this.token, ca: this.#pki?.ca }, method, path, body);
  }

  setup(settings: Readonly<Record<string, string>>): Promise<string> {
    return runSetup({ url: this.address, token: this.token, caFile: this.caFile }, settings);
  }

  async seal(): Promise<void> {
    await this.api('POST', 'sys/seal', {});
  }

  async unseal(): Promise<void> {
    await this.api('POST', 'sys/unseal', { key: this.#key });
    // A single node elects itself first.
    await this.#until('active', async () => (await this.api('GET', 'sys/health'))['standby'] === false);
  }

  async stop(): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    const kill = setTimeout(() => child.kill('SIGKILL'), 5_000);
    await gone;
    clearTimeout(kill);
  }

  async start(): Promise<void> {
    await this.#launch();
    await this.unseal();
  }

  certify(pki: TestPki): void {
    this.#pki = pki;
    writeFileSync(join(this.dir, 'tls.crt'), pki.cert);
    writeFileSync(join(this.dir, 'tls.key'), pki.key, { mode: 0o600 });
  }

  async close(): Promise<void> {
    await this.stop();
    rmSync(this.dir, { recursive: true, force: true });
  }

  async #launch(): Promise<void> {
    const log = openSync(join(this.dir, 'vault.log'), 'a');
    // HOME is moved so that it leaves no files of its own.
    this.#process = spawn(BINARY, ['server', `-config=${join(this.dir, 'vault.json')}`], { stdio: ['ignore', log, log], env: { ...process.env, HOME: this.dir } });
    closeSync(log);
    const child = this.#process;
    // A test process that is ended before its hooks have run takes it along.
    const end = (): void => void child.kill('SIGKILL');
    process.once('exit', end);
    child.once('exit', () => process.off('exit', end));
    await this.#until('listening', async () => (await this.api('GET', 'sys/seal-status'))['type'] !== undefined);
  }

  async #until(what: string, isSo: () => Promise<boolean>): Promise<void> {
    const end = performance.now() + START_MS;
    while (!(await isSo().catch(() => false))) {
      if (performance.now() > end || this.#process?.exitCode !== null) {
        throw new Error(`Vault is not ${what}: ${readFileSync(join(this.dir, 'vault.log'), 'utf8').slice(-2_000)}`);
      }
      await delay(50);
    }
  }
}

interface Place {
  readonly url: URL;
  readonly token: string;
  readonly caFile: string | undefined;
}

async function runSetup({ url, token, caFile }: Place, settings: Readonly<Record<string, string>>): Promise<string> {
  const env = {
    PATH: process.env['PATH'],
    HOME: tmpdir(),
    VAULT: process.env['SIGNET_TEST_VAULT_CLI'] ?? BINARY,
    VAULT_ADDR: url.origin,
    VAULT_TOKEN: token,
    ...(caFile === undefined ? {} : { VAULT_CACERT: caFile }),
    ...settings,
  };
  const { stdout } = await promisify(execFile)('sh', [SETUP], { env, timeout: 60_000 });
  return stdout;
}

interface Target {
  readonly url: URL;
  readonly token: string;
  readonly ca: string | undefined;
}

function ask({ url, token, ca }: Target, method: string, path: string, body?: object): Promise<VaultBody> {
  const { promise, resolve, reject } = Promise.withResolvers<VaultBody>();
  const request = url.protocol === 'https:' ? httpsRequest : httpRequest;
  const options = { method, headers: { 'x-vault-token': token }, agent: false, timeout: 30_000, ...(ca === undefined ? {} : { ca }) } as const;
  const outgoing = request(new URL(`/v1/${path}`, url), options, (incoming) => {
    let text = '';
    incoming.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    incoming.on('error', reject);
    incoming.on('end', () => {
      const status = incoming.statusCode ?? 0;
      if (status >= 200 && status < 300) resolve(text === '' ? {} : (JSON.parse(text) as VaultBody));
      else reject(new Error(`${method} ${path}: ${status} ${text.trim()}`));
    });
  });
  outgoing.on('timeout', () => outgoing.destroy(new Error(`${method} ${path}: no answer`)));
  outgoing.on('error', reject);
  outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  return promise;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
