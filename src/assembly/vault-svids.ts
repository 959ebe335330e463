import { profileProblem, readCa } from '../authority/ca-certificate.ts';
import { FollowedRoots } from '../authority/followed-roots.ts';
import { judgeIssuedLeaf } from '../authority/issued-leaf.ts';
import { jwtAuthority } from '../authority/keys.ts';
import { PublicKeyStore } from '../authority/public-key-store.ts';
import type { Config, TransitConfig, VaultConfig } from '../config/config.ts';
import { SignetError } from '../errors.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import type { BundleSource, JwtSigner, X509Signer } from '../spiffe/signing.ts';
import { TwoPartBundle } from '../upstream/vault/bundle.ts';
import type { VaultClient } from '../upstream/vault/client.ts';
import { IssuerWatch } from '../upstream/vault/issuer-watch.ts';
import { VaultIntermediate } from '../upstream/vault/intermediate.ts';
import { VaultX509Signer } from '../upstream/vault/per-svid.ts';
import { PinnedIssuer } from '../upstream/vault/pinned-issuer.ts';
import { TransitJwtSigner } from '../upstream/vault/transit.ts';
import type { RoomTools } from './tools.ts';
export { openVault } from './vault.ts';

/** The longest life of anything that is signed, in milliseconds: so long what it verifies with stays. */
const LONGEST_MS = 86_400_000;
/** The start waits so long for Vault: then what was kept from before a restart is served. */
const START_MS = 5_000;

export interface VaultSvids {
  readonly x509: X509Signer;
  readonly bundle: BundleSource;
  onIssuerChange(listener: (change: { readonly isReplaced: boolean }) => void): () => void;
  /** Calls `listener` when Vault signs again after it has failed: `x509.retryFailed()`. */
  onRecover(listener: () => void): () => void;
}

/** SVIDs that Vault signs one by one, in the state directory `directory`. `jwt`: whose keys are in the bundle. */
export async function openVaultSvids(config: Config, { pki }: VaultConfig, directory: string, client: VaultClient, jwt: TransitJwtSigner, tools: RoomTools, opened: AsyncDisposableStack): Promise<VaultSvids> {
  const { trustDomain, x509: { ttlMs }, entries } = config;
  const { mount, role } = pki;
  if (role === undefined) throw new SignetError('invalid_config', 'authority.vault.pki.role is not set');
  const watch = new IssuerWatch(pki, { ...tools, client, judgeRoot: rootJudge(trustDomain) });
  opened.defer(() => watch.close());
  const holdMs = Math.max(LONGEST_MS, ttlMs, ...entries.map(({ x509TtlMs = 0 }) => x509TtlMs));
  const roots = new FollowedRoots({ trustDomain, directory, holdMs }, { ...tools, source: watch });
  opened.defer(() => roots.close());
  const pinned = new PinnedIssuer(pki, { client, clock: tools.clock, watch, bundle: roots });
  opened.defer(() => pinned.close());
  const trust = { roots: () => roots.roots(), issuer: (signal: AbortSignal) => pinned.issuer(signal), refresh: (signal: AbortSignal) => pinned.refresh(signal) };
  const x509 = new VaultX509Signer({ trustDomain, mount, role }, { ...tools, client, trust, judgeLeaf: judgeIssuedLeaf });
  opened.defer(() => x509.close());
  const bundle = new TwoPartBundle(trustDomain, roots, jwt);
  opened.defer(() => bundle.close());
  await atStart(tools, (signal) => watch.look(signal));
  return { x509, bundle, onIssuerChange: (listener) => pinned.onIssuerChange(listener), onRecover: (listener) => x509.onRecover(listener) };
}

/** JWT-SVIDs that Vault's transit engine signs. With another tier: `new TwoPartBundle(trustDomain, rootsOf(node), jwt)`. */
export async function openTransit(config: Config, { mount, key }: TransitConfig, directory: string, client: VaultClient, tools: RoomTools, opened: AsyncDisposableStack): Promise<TransitJwtSigner & JwtSigner> {
  const { trustDomain, jwt: { issuer } } = config;
  const store = new PublicKeyStore(directory, trustDomain, `${mount}/${key}`);
  const options = { trustDomain, mount, key, longestTtlMs: LONGEST_MS, ...(issuer === undefined ? {} : { issuer }) };
  const jwt = await TransitJwtSigner.open(options, { ...tools, client, jwtAuthority, store });
  opened.defer(() => jwt.close());
  await atStart(tools, (signal) => jwt.look(signal));
  return jwt;
}

/** The roots of a node CA's bundle, for a bundle whose JWT keys are elsewhere. */
function rootsOf(node: BundleSource): { roots(): readonly Buffer[]; onChange(listener: () => void): () => void } {
  return { roots: () => node.current().x509Authorities, onChange: (listener) => node.onChange(listener) };
}

/** Node CAs from Vault. */
export function vaultIntermediate(trustDomain: TrustDomain, { pki }: VaultConfig, client: VaultClient, tools: RoomTools): VaultIntermediate {
  return new VaultIntermediate(pki, { ...tools, client, judgeRoot: rootJudge(trustDomain) });
}

/** Judges what can be judged before anything is opened. @throws SignetError `state_refused` */
export function checkVault({ pki }: VaultConfig): Promise<void> {
  return VaultIntermediate.check(pki);
}

/** The roots of `own` with the keys that tokens of the transit engine are verified with. */
export function bundleOf(trustDomain: TrustDomain, own: BundleSource, jwt: TransitJwtSigner): TwoPartBundle {
  return new TwoPartBundle(trustDomain, rootsOf(own), jwt);
}

/** What is wrong with a root of the mount (DER), if anything: one of another trust domain may be there too. */
function rootJudge(trustDomain: TrustDomain): (root: Buffer) => string | undefined {
  return (root) => profileProblem(readCa(root), trustDomain)?.what;
}

async function atStart({ clock }: RoomTools, look: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const deadline = new AbortController();
  const alarm = clock.after(START_MS, () => deadline.abort(new SignetError('timed_out', 'Vault has not answered yet')));
  // What fails is told by the client, and tried again.
  await look(deadline.signal).catch(() => undefined);
  alarm.cancel();
}
