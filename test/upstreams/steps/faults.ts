import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { holds } from '../../e2e/expect.ts';
import { eventually } from '../../e2e/wait.ts';
import { makePki } from '../../support/kubernetes-pki.ts';
import { startVault, type VaultServer } from '../../support/vault-server.ts';
import { addPki } from '../../upstream/vault-tools.ts';
import { idOf, NodeAgent, TRUST_DOMAIN } from '../agents.ts';
import { vaultOrAgentMissing } from '../missing.ts';
import type { Report } from '../report.ts';
import type { Step } from '../step.ts';
import { flawless, seconds, Traffic } from '../traffic-process.ts';
import type { Tier } from '../vault.ts';

const TOLD_MS = 60_000;
const RECOVERED_MS = 30_000;
const SIGNED_MS = 90_000;
const RENEW_ONLY = 'path "auth/token/renew-self" { capabilities = ["update"] }';

/** What goes wrong above, and what sets it right. */
export interface Fault {
  readonly name: string;
  cause(): Promise<unknown>;
  /** What the agent has to write into its log. */
  readonly line: RegExp;
  /** Nothing, where the agent helps itself. */
  repair?(): Promise<unknown>;
}

/** Each fault of a Vault has a log line and a metric of its own, and is over without a restart of the agent. */
export const faults: Step = {
  title: 'faults of Vault: each is named, and is over without a restart of the agent',
  missing: vaultOrAgentMissing,
  async run(report) {
    for (const tier of ['intermediate', 'per-svid'] as const) {
      await using ofTier = new AsyncDisposableStack();
      await inTier(tier, report, ofTier);
    }
  },
};

async function inTier(tier: Tier, report: Report, started: AsyncDisposableStack): Promise<void> {
  const scene = await Scene.open(tier, started);
  const config = { authority: scene.authority, ...scene.jwt, x509: { ttl: tier === 'intermediate' ? '30s' : '60s' } };
  await rideFaults(report, started, { label: tier, upstream: 'vault', config, faults: scene.faults, isSigned: tier === 'intermediate' ? 'issuers' : 'leaves' });
}

export interface FaultyCa {
  /** Before each sentence of the report. */
  readonly label: string;
  /** As metrics have it. */
  readonly upstream: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly faults: readonly Fault[];
  /** What shows that the upstream has signed something new. */
  readonly isSigned: 'issuers' | 'leaves';
}

/** One fault after the other under an agent whose workloads go on. */
export async function rideFaults(report: Report, started: AsyncDisposableStack, ca: FaultyCa): Promise<void> {
  const agent = started.use(await NodeAgent.start(['server', 'client'], ca.config));
  const [server, client] = ['server', 'client'].map((name) => ({ socket: agent.socket, id: idOf(name) })) as [Place, Place];
  const traffic = started.use(await Traffic.start({ server, client, rate: 5 }));
  const pid = agent.pid;
  for (const fault of ca.faults) await report.check(`${ca.label}: ${fault.name}`, () => judge(ca, agent, traffic, fault));
  await report.check(`${ca.label}: nobody has noticed any of it`, () => {
    holds(agent.pid === pid, 'the agent was started again');
    return flawless(traffic.figures);
  });
}

interface Place {
  readonly socket: string;
  readonly id: string;
}

async function judge({ upstream, isSigned }: FaultyCa, agent: NodeAgent, traffic: Traffic, { cause, line, repair }: Fault): Promise<string> {
  await isWell(agent);
  const failures = await failuresOf(agent, upstream);
  const since = agent.log().length;
  await cause();
  const began = performance.now();
  const told = await eventually(`a line like ${line.source} in the log`, TOLD_MS, async () => errorsIn(agent.log().slice(since)).find((text) => line.test(text)));
  const toldAfter = performance.now() - began;
  const counted = (await failuresOf(agent, upstream)) - failures;
  holds(counted > 0, 'no metric has counted it');
  await repair?.();
  const repaired = performance.now();
  await isWell(agent);
  const wellAfter = performance.now() - repaired;
  const before = traffic.figures;
  // Readiness may have had another answer than the one that counts.
  await traffic.until('something new is signed', SIGNED_MS, (now) => now[isSigned] > before[isSigned]);
  const signedAfter = performance.now() - repaired;
  const [server, path] = [/https:\/\/[^/\s:]+:\d+/g, /\/tmp\/\S+\//g];
  const text = told.replaceAll(server, 'https://…').replaceAll(path, '…/');
  return `"${text.slice(0, 260)}"\ntold after ${seconds(toldAfter)}, failures +${counted}, ready without a reason ${seconds(wellAfter)} and a new ${isSigned === 'issuers' ? 'node CA' : 'leaf'} in use ${seconds(signedAfter)} after the repair`;
}

function errorsIn(log: string): string[] {
  const lines = log.split('\n').filter((line) => /"event":"(upstream|authority)\.failed"/.test(line));
  return lines.flatMap((line) => {
    try {
      return [String((JSON.parse(line) as { err?: unknown }).err)];
    } catch {
      // The last line is not complete yet.
      return [];
    }
  });
}

async function isWell(agent: NodeAgent): Promise<void> {
  await eventually('nothing is away', RECOVERED_MS, async () => {
    const { status, body } = await agent.ready();
    return status === 200 && !/upstream_away|authority_failing/.test(body) ? true : undefined;
  });
}

/** Requests that failed, and answers that were refused. */
async function failuresOf(agent: NodeAgent, upstream: string): Promise<number> {
  const metrics = await agent.metrics();
  return (metrics.of(`signet_upstream_failures_total{upstream="${upstream}"}`) ?? 0) + (metrics.of('signet_authority_failures_total') ?? 0);
}

/** A Vault with TLS, and the login of an agent by AppRole. */
class Scene {
  readonly #vault: VaultServer;
  readonly #tier: Tier;
  readonly #directory: string;

  private constructor(vault: VaultServer, tier: Tier, directory: string) {
    this.#vault = vault;
    this.#tier = tier;
    this.#directory = directory;
  }

  static async open(tier: Tier, started: AsyncDisposableStack): Promise<Scene> {
    const directory = mkdtempSync(join(tmpdir(), 'signet-vault-faults-'));
    started.defer(() => rmSync(directory, { recursive: true, force: true }));
    const vault = await startVault({ tls: true, own: true });
    started.defer(() => vault.close());
    await vault.api('POST', 'sys/auth/approle', { type: 'approle' });
    await addPki(vault, 'pki');
    if (tier === 'per-svid') await vault.api('POST', 'sys/mounts/transit', { type: 'transit' });
    const scene = new Scene(vault, tier, directory);
    copyFileSync(vault.caFile ?? '', scene.#path('ca.crt'));
    await scene.#writeRole();
    return scene;
  }

  get authority(): object {
    const auth = { method: 'approle', mount: 'approle', roleIdFile: this.#path('role-id'), secretIdFile: this.#path('secret-id') };
    const pki = { mount: 'pki', ...(this.#tier === 'per-svid' ? { role: 'signet' } : {}) };
    const vault = { address: this.#vault.address.href, caFile: this.#path('ca.crt'), auth, pki };
    // A node CA of a minute is renewed each 30 s, so that what is wrong shows soon.
    return { type: 'vault', tier: this.#tier, ...(this.#tier === 'intermediate' ? { ttl: '1m' } : {}), vault };
  }

  get jwt(): object {
    return this.#tier === 'per-svid' ? { jwt: { ttl: '60s', signer: 'transit', transit: { key: 'signet-jwt' } } } : { jwt: { ttl: '30s' } };
  }

  get faults(): readonly Fault[] {
    const vault = this.#vault;
    const revoke = () => vault.api('POST', 'sys/leases/revoke-prefix/auth/approle/login', {});
    return [
      { name: 'sealed', cause: () => vault.seal(), line: /503: Vault is sealed/, repair: () => vault.unseal() },
      { name: 'token revoked', cause: revoke, line: /does not take our token any more: it was revoked/ },
      {
        name: 'policy changed',
        cause: () => vault.api('POST', 'sys/policies/acl/signet', { policy: RENEW_ONLY }),
        line: /\/(sign-intermediate|sign\/signet): 403: .*permission denied/,
        repair: () => this.#setup(),
      },
      {
        name: 'role of the login deleted, token revoked',
        cause: async () => {
          await vault.api('DELETE', 'auth/approle/role/signet');
          await revoke();
        },
        line: /refuses the login by approle/,
        repair: () => this.#writeRole(),
      },
      { name: 'TLS CA swapped', ...this.#swapped() },
    ];
  }

  #swapped(): Pick<Fault, 'cause' | 'line' | 'repair'> {
    let ca = '';
    const cause = async (): Promise<void> => {
      const pki = await makePki();
      ca = pki.ca;
      await this.#vault.stop();
      this.#vault.certify(pki);
      await this.#vault.start();
    };
    return { cause, line: /TLS fails: .*not verified by/, repair: async () => writeFileSync(this.#path('ca.crt'), ca) };
  }

  #path(name: string): string {
    return join(this.#directory, name);
  }

  #setup(): Promise<string> {
    const parts = this.#tier === 'per-svid' ? { TIER: 'per-svid', JWT: 'transit' } : {};
    return this.#vault.setup({ TRUST_DOMAIN, AUTH: 'approle', ...parts });
  }

  /** The role of the login as documented, and what it is proved by. */
  async #writeRole(): Promise<void> {
    await this.#setup();
    const role = await this.#vault.api('GET', 'auth/approle/role/signet/role-id');
    const secret = await this.#vault.api('POST', 'auth/approle/role/signet/secret-id', {});
    writeFileSync(this.#path('role-id'), String(role.data?.['role_id']));
    writeFileSync(this.#path('secret-id'), String(secret.data?.['secret_id']));
  }
}
