import type { VaultServer } from '../../support/vault-server.ts';
import { vaultOrAgentMissing } from '../missing.ts';
import { announced, Pair, unannounced } from '../rotation.ts';
import type { Step } from '../step.ts';
import { underVault, vaultFor } from '../vault.ts';

/** What the documentation asks for: the issuers of the mount are looked at each 30 s. */
const OVERLAP_MS = 60_000;

/** A second root in the mount; the default issuer is switched; the former issuer is deleted. */
export const rotationVault: Step = {
  title: 'the root in Vault is replaced, 50 connections a second between two agents',
  missing: vaultOrAgentMissing,
  async run(report, started) {
    const vault = await vaultFor('intermediate', started);
    const former = await defaultIssuer(vault.server);
    const pair = await Pair.start(underVault(vault, 'intermediate'), started);
    let next = '';
    await announced(report, pair, {
      publish: async () => void (next = await addRoot(vault.server, 'second')),
      swap: () => switchTo(vault.server, next),
      remove: async () => void (await vault.server.api('DELETE', `pki/issuer/${former}`)),
      roots: 2,
      waitMs: OVERLAP_MS,
    });
    await unannounced(report, pair, async () => {
      await switchTo(vault.server, await addRoot(vault.server, 'third'));
      await vault.server.api('DELETE', `pki/issuer/${next}`);
    });
  },
};

async function defaultIssuer(server: VaultServer): Promise<string> {
  return String((await server.api('GET', 'pki/config/issuers')).data?.['default']);
}

/** Its ID. */
async function addRoot(server: VaultServer, name: string): Promise<string> {
  const { data } = await server.api('POST', 'pki/root/generate/internal', { common_name: `root ${name}`, ttl: '87600h', key_type: 'ec', issuer_name: name });
  return String(data?.['issuer_id']);
}

async function switchTo(server: VaultServer, issuer: string): Promise<void> {
  await server.api('POST', 'pki/config/issuers', { default: issuer });
}
