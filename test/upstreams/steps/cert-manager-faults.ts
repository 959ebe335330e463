import { readFileSync, writeFileSync } from 'node:fs';
import { holds } from '../../e2e/expect.ts';
import { eventually } from '../../e2e/wait.ts';
import { prepareVault, type PreparedVault } from '../../upstream/vault-tools.ts';
import type { TestCa } from '../../support/authorities.ts';
import { vaultMissing } from '../../support/vault-server.ts';
import { idOf, NodeAgent } from '../agents.ts';
import { certManagerFor, certManagerMissing, underCertManager, type CertManager } from '../cert-manager.ts';
import type { Report } from '../report.ts';
import type { Step } from '../step.ts';
import { flawless, seconds, Traffic } from '../traffic-process.ts';
import type { Tier } from '../vault.ts';

const TOLD_MS = 90_000;
const RECOVERED_MS = 60_000;
const SIGNED_MS = 120_000;
const NAMESPACE = 'signet-system';
const ROLE = 'role/signet';

interface Fault {
  readonly name: string;
  cause(): Promise<unknown>;
  /** What the agent has to write into its log. */
  readonly line: RegExp;
  repair(): Promise<unknown>;
}

/** Each fault of a cert-manager has a log line and a metric of its own, and is over without a restart of the agent. */
export const certManagerFaults: Step = {
  title: 'cert-manager: each fault is named, and is over without a restart of the agent',
  missing: () => certManagerMissing() ?? vaultMissing({ own: true }),
  async run(report, started) {
    const { manager, root, kubeconfig, tokenFile } = await certManagerFor(started);
    const vault = await prepareVault();
    started.defer(() => vault.close());
    await report.check('a stranger in the namespace cannot ask the issuer', () => refusesStrangers(manager));
    for (const tier of ['intermediate', 'per-svid'] as const) {
      await using ofTier = new AsyncDisposableStack();
      await inTier(tier, report, ofTier, configOf(tier, kubeconfig, vault), faultsOf(manager, root, tokenFile, vault));
    }
  },
};

function configOf(tier: Tier, kubeconfig: string, vault: PreparedVault): Readonly<Record<string, unknown>> {
  if (tier === 'per-svid') return { ...underCertManager(kubeconfig, tier, vault), x509: { ttl: '120s' } };
  const config = underCertManager(kubeconfig, tier);
  // A node CA of two minutes is renewed each minute, so that what is wrong shows soon.
  return { ...config, authority: { ...(config['authority'] as object), ttl: '2m' }, x509: { ttl: '60s' } };
}

function faultsOf(manager: CertManager, root: TestCa, tokenFile: string, vault: PreparedVault): readonly Fault[] {
  const token = readFileSync(tokenFile, 'utf8');
  const issuer = { ca: { secretName: 'signet-root' } };
  let rules = '';
  let stopDenying = (): Promise<void> => Promise.resolve();
  return [
    { name: 'controller stopped', cause: () => manager.stopController(), line: /nobody has approved or denied the CertificateRequest/, repair: () => manager.startController() },
    {
      name: 'issuer deleted',
      cause: () => manager.kubectl('-n', NAMESPACE, 'delete', 'issuer', 'signet'),
      line: /Issuer signet does not exist: Pending: Referenced "Issuer" not found/,
      repair: () => manager.issuer(issuer),
    },
    {
      name: "the issuer's Secret deleted",
      cause: () => manager.kubectl('-n', NAMESPACE, 'delete', 'secret', 'signet-root'),
      line: /Issuer signet is not ready: Pending: /,
      repair: () => manager.sign(root),
    },
    {
      name: 'requests denied',
      cause: async () => {
        await manager.stopController();
        await manager.startController(false);
        stopDenying = manager.deny('not today');
      },
      line: /was denied: .*not today/,
      repair: async () => {
        await stopDenying();
        await manager.stopController();
        await manager.startController();
      },
    },
    {
      name: 'the issuer refuses: a Vault without the role',
      cause: async () => {
        const { server } = vault;
        await manager.apply({ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'vault-token', namespace: NAMESPACE }, stringData: { token: server.token } });
        const auth = { tokenSecretRef: { name: 'vault-token', key: 'token' } };
        await manager.issuer({ vault: { server: server.address.origin, path: 'pki/sign/nobody', auth } });
      },
      line: /Issuer signet has refused the CertificateRequest .*Vault failed to sign certificate/,
      repair: async () => {
        await manager.kubectl('-n', NAMESPACE, 'delete', 'issuer', 'signet');
        await manager.issuer(issuer);
      },
    },
    {
      name: 'the right to make requests taken away',
      cause: async () => {
        rules = await manager.kubectl('-n', NAMESPACE, 'get', ROLE, '-o', 'json');
        await manager.kubectl('-n', NAMESPACE, 'patch', ROLE, '--type=merge', '-p', '{"rules":[]}');
      },
      line: /certificaterequests.*403.*What to do: let the agent create, get, list, watch and delete|ConfigMap .* is not told: .*403/,
      repair: () => manager.kubectl('-n', NAMESPACE, 'patch', ROLE, '--type=merge', '-p', JSON.stringify({ rules: (JSON.parse(rules) as { rules: unknown }).rules })),
    },
    {
      name: "the agent's token is none of this cluster",
      cause: async () => writeFileSync(tokenFile, 'eyJhbGciOiJSUzI1NiJ9.e30.e30'),
      line: /401/,
      repair: async () => writeFileSync(tokenFile, token),
    },
  ];
}

async function refusesStrangers(manager: CertManager): Promise<string> {
  const object = {
    apiVersion: 'cert-manager.io/v1',
    kind: 'CertificateRequest',
    metadata: { name: 'stranger', namespace: NAMESPACE },
    spec: { request: Buffer.from('none').toString('base64'), isCA: true, issuerRef: { name: 'signet' }, duration: '1h' },
  };
  await manager.apply(
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'stranger', namespace: NAMESPACE } },
    { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'RoleBinding', metadata: { name: 'stranger', namespace: NAMESPACE }, roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'cluster-admin' }, subjects: [{ kind: 'ServiceAccount', name: 'stranger', namespace: NAMESPACE }] },
  );
  const said = await manager.createAs('system:serviceaccount:signet-system:stranger', object).then(() => 'it was taken', String);
  holds(/only Signet's agents ask the issuer signet/.test(said), said);
  return "ValidatingAdmissionPolicy signet-certificate-request: only Signet's agents ask the issuer signet";
}

async function inTier(tier: Tier, report: Report, started: AsyncDisposableStack, config: Readonly<Record<string, unknown>>, faults: readonly Fault[]): Promise<void> {
  const agent = started.use(await NodeAgent.start(['server', 'client'], config));
  const [server, client] = ['server', 'client'].map((name) => ({ socket: agent.socket, id: idOf(name) })) as [Place, Place];
  const traffic = started.use(await Traffic.start({ server, client, rate: 5 }));
  const pid = agent.pid;
  for (const fault of faults) await report.check(`${tier}: ${fault.name}`, () => judge(tier, agent, traffic, fault));
  await report.check(`${tier}: nobody has noticed any of it`, () => {
    holds(agent.pid === pid, 'the agent was started again');
    return flawless(traffic.figures);
  });
}

interface Place {
  readonly socket: string;
  readonly id: string;
}

async function judge(tier: Tier, agent: NodeAgent, traffic: Traffic, { cause, line, repair }: Fault): Promise<string> {
  await isWell(agent);
  const failures = await failuresOf(agent);
  const since = agent.log().length;
  await cause();
  const began = performance.now();
  const told = await eventually(`a line like ${line.source} in the log`, TOLD_MS, async () => errorsIn(agent.log().slice(since)).find((text) => line.test(text))).finally(repair);
  const toldAfter = performance.now() - began;
  const counted = (await failuresOf(agent)) - failures;
  holds(counted > 0, 'signet_upstream_failures_total has not counted it');
  const repaired = performance.now();
  await isWell(agent);
  const wellAfter = performance.now() - repaired;
  const before = traffic.figures;
  await traffic.until('something new is signed', SIGNED_MS, (now) => (tier === 'intermediate' ? now.issuers > before.issuers : now.leaves > before.leaves));
  const signedAfter = performance.now() - repaired;
  return `"${told.slice(0, 300)}"\ntold after ${seconds(toldAfter)}, failures +${counted}, ready without a reason ${seconds(wellAfter)} and a new ${tier === 'intermediate' ? 'node CA' : 'leaf'} in use ${seconds(signedAfter)} after the repair`;
}

function errorsIn(log: string): string[] {
  const lines = log.split('\n').filter((line) => line.includes('"event":"upstream.failed"'));
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

async function failuresOf(agent: NodeAgent): Promise<number> {
  return (await agent.metrics()).of('signet_upstream_failures_total{upstream="cert-manager"}') ?? 0;
}
