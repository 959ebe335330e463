import { prepareVault, type PreparedVault } from '../upstream/vault-tools.ts';
import { TRUST_DOMAIN } from './agents.ts';

export type Tier = 'intermediate' | 'per-svid';

/** A Vault of our own, with the policy of the tier as deploy/vault writes it. */
export async function vaultFor(tier: Tier, started: AsyncDisposableStack): Promise<PreparedVault> {
  const vault = await prepareVault();
  started.defer(() => vault.close());
  if (tier === 'intermediate') await vault.server.setup({ TRUST_DOMAIN, POLICY: 'signet' });
  return vault;
}

/** The part of an agent's configuration that says who signs. */
export function underVault({ server, tokenFile }: PreparedVault, tier: Tier): Readonly<Record<string, unknown>> {
  const pki = { mount: 'pki', ...(tier === 'per-svid' ? { role: 'signet' } : {}) };
  const vault = { address: server.address.href, auth: { method: 'token', tokenFile }, pki };
  const jwt = { ttl: '60s', ...(tier === 'per-svid' ? { signer: 'transit', transit: { key: 'signet-jwt' } } : {}) };
  return { authority: { type: 'vault', tier, ttl: '1h', vault }, jwt };
}
