import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { FollowedRoots } from '../../src/authority/followed-roots.ts';
import { judgeIssuedLeaf } from '../../src/authority/issued-leaf.ts';
import { newEncodedKeyPair } from '../../src/authority/keys.ts';
import { SystemClock } from '../../src/clock.ts';
import { EventBus, type Events } from '../../src/events.ts';
import { createLeafRequest } from '../../src/identity/leaf-request.ts';
import type { Log, LogFields } from '../../src/log.ts';
import { systemRandom } from '../../src/random.ts';
import { parseSpiffeId, parseTrustDomain } from '../../src/spiffe/id.ts';
import type { KeyType } from '../../src/spiffe/key-type.ts';
import type { X509Request } from '../../src/spiffe/signing.ts';
import { VaultClient } from '../../src/upstream/vault/client.ts';
import { IssuerWatch, type IssuerWatchOptions } from '../../src/upstream/vault/issuer-watch.ts';
import { VaultX509Signer, type PerSvidOptions } from '../../src/upstream/vault/per-svid.ts';
import { PinnedIssuer } from '../../src/upstream/vault/pinned-issuer.ts';
import { startVault, type VaultServer } from '../support/vault-server.ts';

export const trustDomain = parseTrustDomain('example.org');
export const { signal: never } = new AbortController();
const WAIT_MS = 20_000;

/** A Vault with what deploy/vault writes, its token for an agent in a file, and room for more. */
export interface PreparedVault {
  readonly server: VaultServer;
  /** A token with deploy/vault's policy and nothing else. */
  readonly tokenFile: string;
  close(): Promise<void>;
}

/** Prepares the mounts `pki` and `transit`, the role `signet` and the key `signet-jwt`. */
export async function prepareVault(): Promise<PreparedVault> {
  const server = await startVault({ own: true });
  const directory = mkdtempSync(join(tmpdir(), 'signet-vault-agent-'));
  try {
    await addPki(server, 'pki');
    await server.api('POST', 'sys/mounts/transit', { type: 'transit' });
    await server.setup({ TRUST_DOMAIN: trustDomain, TIER: 'per-svid', JWT: 'transit', ALLOWED_DOMAINS: 'web,*.example.org' });
    const tokenFile = join(directory, 'token');
    writeFileSync(tokenFile, await agentToken(server), { mode: 0o600 });
    await usable(server, readFileSync(tokenFile, 'utf8'));
    return { server, tokenFile, close: () => server.close().finally(() => rmSync(directory, { recursive: true, force: true })) };
  } catch (error) {
    await server.close();
    throw error;
  }
}

/** A policy that was just written does not count for some hundred milliseconds after the start of Vault. */
async function usable(server: VaultServer, token: string): Promise<void> {
  const end = performance.now() + WAIT_MS;
  const signs = async (): Promise<boolean> => {
    const answer = await fetch(new URL('/v1/pki/issuer/default/sign/signet', server.address), { method: 'POST', headers: { 'x-vault-token': token }, body: '{}' });
    return answer.status === 400;
  };
  while (!(await signs())) if (performance.now() > end) throw new Error('the token of the agent may not sign');
}

export async function addPki(server: VaultServer, mount: string): Promise<void> {
  await server.api('POST', `sys/mounts/${mount}`, { type: 'pki', config: { max_lease_ttl: '87600h' } });
  await server.api('POST', `${mount}/root/generate/internal`, { common_name: `root of ${mount}`, ttl: '87600h', key_type: 'ec' });
}

export async function agentToken(server: VaultServer, policy = 'signet'): Promise<string> {
  const { auth } = await server.api('POST', 'auth/token/create', { policies: [policy], no_default_policy: true, ttl: '1h' });
  return String(auth?.['client_token']);
}

/** Runs a command that an error text advises, `vault patch …`, as an operator would. */
export function runAdvice({ server }: PreparedVault, message: string): string {
  const [, command = ''] = /`(vault [^`]+)`/.exec(message) ?? [];
  const program = join(process.env['SIGNET_CACHE'] ?? join(homedir(), '.cache', 'signet-tools'), 'bin', 'vault');
  const env = { PATH: process.env['PATH'], HOME: tmpdir(), VAULT_ADDR: server.address.origin, VAULT_TOKEN: server.token };
  const { status, stderr } = spawnSync('sh', ['-c', `"$0" ${command.replace(/^vault /, '')}`, program], { env, encoding: 'utf8', timeout: 30_000 });
  if (status !== 0) throw new Error(`${command}: ${stderr}`);
  return command;
}

/** What an agent has of everything: real time, and notes of what it tells. */
export function agentTools() {
  const events = new EventBus();
  const warnings: string[] = [];
  const failures: Events['upstreamFailed'][] = [];
  events.on('upstreamFailed', (fact) => void failures.push(fact));
  const note = ({ reason = '' }: LogFields): void => void warnings.push(reason);
  const log: Log = { debug: () => undefined, info: () => undefined, warn: note, error: note };
  return { clock: new SystemClock(), random: systemRandom, events, log, warnings, failures };
}

export type AgentTools = ReturnType<typeof agentTools>;

export function clientOf(t: ExecutionContext, { server, tokenFile }: PreparedVault, tools: AgentTools): VaultClient {
  const client = new VaultClient({ address: server.address, auth: { method: 'token', tokenFile } }, tools);
  t.teardown(() => client.close());
  return client;
}

export type Client = Pick<VaultClient, 'request' | 'requestOpen' | 'onReturn'>;

/** A signer with all that it needs, as the agent has it. */
export function perSvid(t: ExecutionContext, client: Client, tools: AgentTools, options: Partial<PerSvidOptions> & Partial<IssuerWatchOptions> = {}) {
  const { mount = 'pki', role = 'signet', issuer = 'default' } = options;
  const directory = mkdtempSync(join(tmpdir(), 'signet-roots-'));
  const watch = new IssuerWatch({ mount, issuer, ...options }, { ...tools, client });
  const bundle = new FollowedRoots({ trustDomain, directory, holdMs: 3_600_000 }, { ...tools, source: watch });
  const pinned = new PinnedIssuer({ mount, issuer }, { client, clock: tools.clock, watch, bundle });
  const trust = { roots: () => bundle.roots(), issuer: (signal: AbortSignal) => pinned.issuer(signal), refresh: (signal: AbortSignal) => pinned.refresh(signal) };
  const signer = new VaultX509Signer({ trustDomain, ...options, mount, role }, { ...tools, client, trust, judgeLeaf: judgeIssuedLeaf });
  const close = async (): Promise<void> => {
    signer.close();
    pinned.close();
    await watch.close();
    await bundle.close();
    rmSync(directory, { recursive: true, force: true });
  };
  t.teardown(close);
  return { signer, watch, bundle, pinned };
}

export async function x509Request(path: string, more: { dnsNames?: readonly string[]; ttlMs?: number; keyType?: KeyType; id?: string } = {}): Promise<X509Request> {
  const { dnsNames = [], ttlMs = 3_600_000, keyType = 'ec-p256' } = more;
  const keys = await newEncodedKeyPair(keyType);
  const id = parseSpiffeId(more.id ?? `spiffe://${trustDomain}/${path}`);
  return { id, publicKey: keys.publicKey, ttlMs, dnsNames, csr: () => createLeafRequest(keys, { id, dnsNames }) };
}

/** Resolves when `isSo` is true; looks each 20 ms, for 20 s at most. */
export async function until(what: string, isSo: () => boolean): Promise<void> {
  const end = performance.now() + WAIT_MS;
  while (!isSo()) {
    if (performance.now() > end) throw new Error(`${what}: not within ${WAIT_MS / 1_000} s`);
    await new Promise<void>((resolve) => void setTimeout(resolve, 20));
  }
}
