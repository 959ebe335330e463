import { holds } from '../../e2e/expect.ts';
import { vaultMissing } from '../../support/vault-server.ts';
import { prepareVault } from '../../upstream/vault-tools.ts';
import { NodeAgent } from '../agents.ts';
import { certManagerFor, certManagerMissing, underCertManager, type CertManager } from '../cert-manager.ts';
import type { Report } from '../report.ts';
import type { Step } from '../step.ts';
import { byClients, verifyStrictly } from './clients.ts';

const SVIDS = { x509: { ttl: '60s' } };

/** The published clients of test/interop, and OpenSSL, against an agent under cert-manager. */
export const certManagerClients: Step = {
  title: 'cert-manager: all methods by the published clients, in both tiers, by a CA and by a Vault issuer',
  missing: () => certManagerMissing() ?? vaultMissing({ own: true }),
  async run(report, started) {
    const { manager, kubeconfig } = await certManagerFor(started);
    const vault = await prepareVault();
    started.defer(() => vault.close());
    for (const tier of ['intermediate', 'per-svid'] as const) {
      await using ofTier = new AsyncDisposableStack();
      const config = { ...underCertManager(kubeconfig, tier, tier === 'per-svid' ? vault : undefined), ...SVIDS };
      const agent = ofTier.use(await NodeAgent.start(['interop'], config));
      await byClients(report, tier, agent.socket, { hasPathLength: false });
    }
    await report.check('nothing is left behind in the cluster', () => nothingLeft(manager));
    await byVault(report, manager, kubeconfig, vault);
  },
};

/** The same two tiers by an issuer of the kind Vault. */
async function byVault(report: Report, manager: CertManager, kubeconfig: string, vault: Awaited<ReturnType<typeof prepareVault>>): Promise<void> {
  const { server } = vault;
  const token = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'vault-token', namespace: 'signet-system' }, stringData: { token: server.token } };
  await manager.apply(token);
  const pem = await (await fetch(new URL('/v1/pki/ca/pem', server.address))).text();
  await manager.believe(Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64'));
  for (const [tier, path] of [['intermediate', 'pki/root/sign-intermediate'], ['per-svid', 'pki/sign/signet']] as const) {
    await using ofTier = new AsyncDisposableStack();
    await manager.issuer({ vault: { server: server.address.origin, path, auth: { tokenSecretRef: { name: 'vault-token', key: 'token' } } } });
    const config = { ...underCertManager(kubeconfig, tier, tier === 'per-svid' ? vault : undefined), ...SVIDS };
    const agent = ofTier.use(await NodeAgent.start(['interop'], config));
    await report.check(`${tier}, by a Vault issuer (${path}): openssl verify -x509_strict takes the chain`, () => verifyStrictly(agent.socket));
  }
}

async function nothingLeft(manager: CertManager): Promise<string> {
  const left = await manager.requests();
  holds(left.length === 0, `there are ${left.join(', ')}`);
  return 'no CertificateRequest';
}
