import type { ExecutionContext } from 'ava';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { profileProblem, readCa } from '../../src/authority/ca-certificate.ts';
import { SystemClock } from '../../src/clock.ts';
import { EventBus } from '../../src/events.ts';
import type { LogFields } from '../../src/log.ts';
import { systemRandom } from '../../src/random.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import type { AvailabilityTools } from '../../src/upstream/wire/availability.ts';
import { VaultClient } from '../../src/upstream/vault/client.ts';
import type { VaultAuth, VaultOptions } from '../../src/upstream/vault/vault-options.ts';
import type { VaultServer } from './vault-server.ts';

export const trustDomain = parseTrustDomain('example.org');

/** No wait in a test is longer. */
export const PATIENCE_MS = 20_000;

/** What was told, in order. */
export interface Told {
  readonly tools: AvailabilityTools;
  /** The texts of `upstreamFailed`. */
  readonly failed: string[];
  /** Log lines of the rooms themselves: `upstream.returned`. */
  readonly lines: LogFields[];
  answered: number;
}

export function listening(): Told {
  const events = new EventBus();
  const lines: LogFields[] = [];
  const note = (fields: LogFields): void => void lines.push(fields);
  const log = { debug: note, info: note, warn: note, error: note };
  const told: Told = { tools: { clock: new SystemClock(), random: systemRandom, events, log }, failed: [], lines, answered: 0 };
  events.on('upstreamFailed', ({ error }) => void told.failed.push(error));
  events.on('upstreamAnswered', () => void (told.answered += 1));
  return told;
}

/** A connection that ends with the test. */
export function connect(t: ExecutionContext, vault: Pick<VaultServer, 'address' | 'caFile'>, auth: VaultAuth, more: Partial<VaultOptions> = {}): { client: VaultClient; told: Told } {
  const told = listening();
  const { address, caFile } = vault;
  const client = new VaultClient({ address, ...(caFile === undefined ? {} : { caFile }), auth, ...more }, told.tools);
  t.teardown(() => client.close());
  return { client, told };
}

/** Waits, with a bound, until `isSo`; asked anew each 20 ms. */
export async function until(t: ExecutionContext, what: string, isSo: () => boolean): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!isSo()) {
    if (performance.now() > end) return void t.fail(`not within ${PATIENCE_MS / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** As assembly wires it. */
export function judgeRoot(root: Buffer): string | undefined {
  return profileProblem(readCa(root), trustDomain)?.what;
}

/** A directory that goes with the test. */
export function directory(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'signet-vault-test-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A name for a mount, policy or role that no other test has. */
export function freshName(kind: string): string {
  return `${kind}-${randomBytes(4).toString('hex')}`;
}

/** A PKI mount without issuers; its name. */
export async function emptyPkiMount(t: ExecutionContext, vault: VaultServer): Promise<string> {
  const mount = freshName('pki');
  await vault.api('POST', `sys/mounts/${mount}`, { type: 'pki', config: { max_lease_ttl: '87600h' } });
  if (!vault.isOwn) t.teardown(() => vault.api('DELETE', `sys/mounts/${mount}`));
  return mount;
}

/** A PKI mount with a new root; its name. */
export async function pkiMount(t: ExecutionContext, vault: VaultServer, root: object = {}): Promise<string> {
  const mount = await emptyPkiMount(t, vault);
  const usual = { common_name: `${mount} root`, organization: 'Tests', ttl: '87600h', key_type: 'ec', issuer_name: 'root-1' };
  await vault.api('POST', `${mount}/root/generate/internal`, { ...usual, ...root });
  return mount;
}
