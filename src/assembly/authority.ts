import { join } from 'node:path';
import { createIntermediate } from '../authority/certificate.ts';
import { EmbeddedAuthority, type EmbeddedOptions } from '../authority/embedded.ts';
import { NodeJwtSigner, type JwtKeySource } from '../authority/jwt-signer.ts';
import type { AuthorityOrders } from '../authority/orders.ts';
import { NodeAuthority, type NodeAuthorityOptions } from '../authority/node-authority.ts';
import { judgeCa } from '../authority/upstream-ca.ts';
import { x509OrdersOf } from '../authority/x509-orders.ts';
import { NodeX509Signer, type IssuerSource } from '../authority/x509-signer.ts';
import type { Config } from '../config/config.ts';
import { SignetError } from '../errors.ts';
import type { Random } from '../random.ts';
import type { BundleSource, JwtSigner, X509Signer } from '../spiffe/signing.ts';
import { FilesUpstream } from '../upstream/files.ts';
import type { CaTools, Upstream } from '../upstream/upstream.ts';
import type { VaultClient } from '../upstream/vault/client.ts';
import type { TransitJwtSigner } from '../upstream/vault/transit.ts';
import type { KubernetesRooms } from './kubernetes.ts';
import type { RoomTools } from './tools.ts';

/** Who signs for this node and whom its workloads believe, whichever kind it is. */
export interface Authority {
  readonly x509: X509Signer;
  readonly jwt: JwtSigner;
  readonly bundle: BundleSource;
  /** When what signs now ends, in milliseconds since the Unix epoch; a kind that is missing cannot sign, or has no end here. */
  ends(): { readonly x509?: number; readonly jwt?: number };
  /** When the CA above was last reached, and what fails; empty where there is none above. Milliseconds since the Unix epoch. */
  status?(): { readonly lastSuccess: number | undefined; readonly failing?: string };
  /** Calls `listener` when leaves have to be signed again soon, because their CA is not to be relied on any more. */
  onIssuerChange?(listener: (change: { readonly isReplaced: boolean }) => void): () => void;
  /** Calls `listener` when what failed to be signed is worth another attempt at once. */
  onRecover?(listener: () => void): () => void;
  /** Somebody has a token whose key is not in the bundle; absent where asking for it does not help. */
  askForKeys?(): void;
  /** Rotation by hand, where keys are on this node. */
  readonly orders?: AuthorityOrders;
  close(): Promise<void>;
}

/** The directory whose holder signs, one agent at a time. Not the private one itself: its lock is for the socket that is in it. */
export function stateDirectoryOf({ authority, dataDir, privateDir }: Config): string {
  return authority.type === 'embedded' ? dataDir : join(privateDir, 'authority');
}

/**
 * Judges what is there, without changing anything: an agent that could not start must not take the socket from one that runs.
 *
 * @throws SignetError `state_refused`
 */
export async function checkAuthority(config: Config, tools: RoomTools): Promise<void> {
  const { type, tier, files, vault, stepCa, spire, certManager } = config.authority;
  if (type === 'embedded') return EmbeddedAuthority.check(embeddedOptions(config));
  if (spire !== undefined) (await theSpire()).checkSpire(config, stateDirectoryOf(config));
  // Keys from before a restart are enough to go on with, whatever has become of the files.
  if (tier === 'intermediate' && NodeAuthority.check(nodeOptions(config), tools.clock.now())) return;
  if (files !== undefined) await FilesUpstream.check({ trustDomain: config.trustDomain, files }, { clock: tools.clock, ca: caTools(tools.random) });
  if (vault !== undefined) await (await theVault()).checkVault(vault);
  if (stepCa !== undefined) await (await theStepCa()).checkStepCa(stepCa);
  if (certManager !== undefined) await (await theCertManager()).checkCertManager(certManager);
}

/**
 * Opens what the configuration names. `kubernetes`: the cluster in which this node's JWT keys have to be known.
 *
 * @throws SignetError `state_refused`, `state_unwritable`, `profile_violation`
 */
export async function openAuthority(config: Config, kubernetes: KubernetesRooms | undefined, tools: RoomTools): Promise<Authority> {
  await using opened = new AsyncDisposableStack();
  const authority = await open(config, kubernetes, tools, opened);
  const all = opened.move();
  return { ...authority, close: () => all.disposeAsync() };
}

type Opening = Omit<Authority, 'close'>;

/** Loaded where it is needed: every node pays for what its agent has in memory. */
const theVault = () => import('./vault-svids.ts');
const theStepCa = () => import('./step-ca.ts');
const theSpire = () => import('./spire.ts');
const theCertManager = () => import('./cert-manager.ts');

async function open(config: Config, kubernetes: KubernetesRooms | undefined, tools: RoomTools, opened: AsyncDisposableStack): Promise<Opening> {
  const { type, tier, vault } = config.authority;
  const client = vault && (await theVault()).openVault(vault, tools);
  if (client !== undefined) opened.defer(() => client.close());
  const transit = client && config.jwt.transit && (await (await theVault()).openTransit(config, config.jwt.transit, stateDirectoryOf(config), client, tools, opened));
  if (type === 'embedded') {
    const embedded = await EmbeddedAuthority.open(embeddedOptions(config), tools);
    opened.defer(() => embedded.close());
    const signers = signersOn(embedded, embedded, embedded, config, tools);
    return { ...signers, orders: embedded.orders, ...(await tokensBy(transit, embedded, signers, config, opened)) };
  }
  if (tier === 'per-svid' && type === 'cert-manager') return openCertManagerPerSvid(config, kubernetes, transit, tools, opened);
  if (tier === 'per-svid') return openPerSvid(config, client, transit, tools, opened);
  if (type === 'spire') return openUnderSpire(config, tools, opened);
  const upstream = await openUpstream(config, client, kubernetes, tools, opened);
  const node = await NodeAuthority.open(nodeOptions(config), { ...tools, upstream });
  opened.defer(() => node.close());
  const above = { onIssuerChange: node.onIssuerChange.bind(node), status: () => node.status(), orders: node.orders };
  const leafMark = type === 'step-ca' ? (await theStepCa()).notToBeRenewed : undefined;
  if (kubernetes === undefined || transit !== undefined) {
    const signers = signersOn(node, node, node, config, tools, leafMark);
    return { ...signers, ...above, ...(await tokensBy(transit, node, signers, config, opened)) };
  }
  const { shareJwtKeys } = await import('./jwt-keys.ts');
  const shared = await shareJwtKeys(node, stateDirectoryOf(config), config, kubernetes, tools);
  opened.defer(() => shared.close());
  return { ...signersOn(node, shared.source, shared.bundle, config, tools, leafMark), ...above };
}

/** The CA above the node. */
async function openUpstream(config: Config, client: VaultClient | undefined, kubernetes: KubernetesRooms | undefined, tools: RoomTools, opened: AsyncDisposableStack): Promise<Upstream> {
  const { type, files, vault, stepCa } = config.authority;
  if (stepCa !== undefined) return (await theStepCa()).openStepCa(config.trustDomain, stepCa, tools, opened);
  if (type === 'cert-manager') return (await theCertManager()).openCertManager(config, stateDirectoryOf(config), kubernetes, tools, opened);
  if (files !== undefined) {
    const upstream = await FilesUpstream.open({ trustDomain: config.trustDomain, files }, { ...tools, ca: caTools(tools.random) });
    opened.defer(() => upstream.close());
    return upstream;
  }
  if (vault === undefined || client === undefined) throw new SignetError('invalid_config', 'authority: the section of its type is not set');
  const upstream = (await theVault()).vaultIntermediate(config.trustDomain, vault, client, tools);
  opened.defer(() => upstream.close());
  return upstream;
}

/** A node CA under a SPIRE server, whose bundle has the JWT keys of all nodes. */
async function openUnderSpire(config: Config, tools: RoomTools, opened: AsyncDisposableStack): Promise<Opening> {
  const { spire } = config.authority;
  if (spire === undefined) throw new SignetError('invalid_config', 'authority.spire is not set');
  const { openSpire, shareJwtKeysBySpire } = await theSpire();
  const { session, upstream } = await openSpire(config, spire, stateDirectoryOf(config), tools, opened);
  const node = await NodeAuthority.open(nodeOptions(config), { ...tools, upstream });
  opened.defer(() => node.close());
  const { source, bundle, askForKeys } = shareJwtKeysBySpire(node, session, config, tools, opened);
  const above = { onIssuerChange: node.onIssuerChange.bind(node), status: () => node.status(), orders: node.orders };
  return { ...signersOn(node, source, bundle, config, tools), ...above, askForKeys };
}

/** No key that signs is on this node. */
async function openPerSvid(config: Config, client: VaultClient | undefined, transit: TransitJwtSigner | undefined, tools: RoomTools, opened: AsyncDisposableStack): Promise<Opening> {
  const { vault } = config.authority;
  if (vault === undefined || client === undefined || transit === undefined) throw new SignetError('invalid_config', 'authority.tier per-svid needs authority.vault and jwt.transit');
  const { x509, bundle, onIssuerChange, onRecover } = await (await theVault()).openVaultSvids(config, vault, stateDirectoryOf(config), client, transit, tools, opened);
  const status = () => {
    const failing = client.problem() ?? transit.problem();
    return { lastSuccess: undefined, ...(failing === undefined ? {} : { failing }) };
  };
  return { x509, jwt: transit, bundle, ends: () => ({}), onIssuerChange, onRecover, status };
}

/** The same by cert-manager, which signs no tokens: Vault's transit engine does. */
async function openCertManagerPerSvid(config: Config, kubernetes: KubernetesRooms | undefined, transit: TransitJwtSigner | undefined, tools: RoomTools, opened: AsyncDisposableStack): Promise<Opening> {
  if (transit === undefined) throw new SignetError('invalid_config', 'authority.tier per-svid needs jwt.transit');
  const { x509, bundle, onRecover, problem } = (await theCertManager()).openCertManagerSvids(config, stateDirectoryOf(config), kubernetes, transit, tools, opened);
  const status = () => ({ lastSuccess: undefined, ...definedOf({ failing: problem() ?? transit.problem() }) });
  return { x509, jwt: transit, bundle, ends: () => ({}), onRecover, status };
}

/** Tokens, and the keys that they are verified with, where a transit engine signs them. */
async function tokensBy(transit: TransitJwtSigner | undefined, own: BundleSource & { readonly orders: AuthorityOrders }, { ends }: Pick<Authority, 'ends'>, { trustDomain }: Config, opened: AsyncDisposableStack) {
  if (transit === undefined) return {};
  const bundle = (await theVault()).bundleOf(trustDomain, own, transit);
  opened.defer(() => bundle.close());
  const endsOfCa = (): ReturnType<Authority['ends']> => definedOf({ x509: ends().x509 });
  return { jwt: transit, bundle, ends: endsOfCa, orders: x509OrdersOf(own.orders) };
}

/** Keys that are on this node. */
function signersOn(ca: IssuerSource, keys: JwtKeySource, bundle: BundleSource, { trustDomain, jwt }: Config, { clock, random }: RoomTools, leafMark?: Buffer) {
  return {
    x509: new NodeX509Signer(ca, trustDomain, clock, random, leafMark),
    jwt: new NodeJwtSigner(keys, trustDomain, jwt.issuer, clock),
    bundle,
    ends: () => definedOf({ x509: notAfterOf(() => ca.issuer()), jwt: notAfterOf(() => keys.jwtKey()) }),
  };
}

function notAfterOf(read: () => { readonly notAfter: number }): number | undefined {
  try {
    return read().notAfter;
  } catch {
    // There is none now, which its absence says.
    return undefined;
  }
}

function definedOf<T extends object>(values: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

function caTools(random: Random): CaTools {
  return { judgeCa, signNodeCa: (ca, request) => createIntermediate(ca, request, random) };
}

function embeddedOptions({ trustDomain, dataDir, authority }: Config): EmbeddedOptions {
  return { trustDomain, dataDir, ttlMs: authority.ttlMs };
}

function nodeOptions(config: Config): NodeAuthorityOptions {
  const { trustDomain, authority } = config;
  const { ttlMs, nameConstraint, acceptUnconstrainedCA } = authority;
  return { trustDomain, privateDir: stateDirectoryOf(config), ttlMs, nameConstraint, acceptUnconstrainedCA };
}
