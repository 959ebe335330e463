import { hostname } from 'node:os';
import { createHash } from 'node:crypto';
import { profileProblem, readCa } from '../authority/ca-certificate.ts';
import { FollowedRoots } from '../authority/followed-roots.ts';
import { judgeIssuedLeaf } from '../authority/issued-leaf.ts';
import type { CertManagerConfig, Config } from '../config/config.ts';
import { SignetError } from '../errors.ts';
import { KubernetesClient } from '../kubernetes/api-client.ts';
import { kubeconfigCredentials } from '../kubernetes/kubeconfig.ts';
import type { BundleSource, X509Signer } from '../spiffe/signing.ts';
import { Anchors } from '../upstream/cert-manager/anchors.ts';
import { faultOf } from '../upstream/cert-manager/cert-manager-error.ts';
import { CertManagerIntermediate } from '../upstream/cert-manager/intermediate.ts';
import { CertManagerX509Signer } from '../upstream/cert-manager/per-svid.ts';
import { CertificateRequests } from '../upstream/cert-manager/requests.ts';
import { Trouble } from '../upstream/cert-manager/trouble.ts';
import { TwoPartBundle } from '../upstream/vault/bundle.ts';
import type { TransitJwtSigner } from '../upstream/vault/transit.ts';
import type { KubernetesRooms } from './kubernetes.ts';
import type { RoomTools } from './tools.ts';

/** The longest life of anything that is signed, in milliseconds: so long what it verifies with stays. */
const LONGEST_MS = 86_400_000;

/** What both tiers stand on. */
interface Connected {
  readonly requests: CertificateRequests;
  readonly anchors: Anchors;
  readonly trouble: Trouble;
}

export interface CertManagerSvids {
  readonly x509: X509Signer;
  readonly bundle: BundleSource;
  /** Calls `listener` when signing works again after it has failed: `x509.retryFailed()`. */
  onRecover(listener: () => void): () => void;
  problem(): string | undefined;
}

/** Judges what can be judged before anything is opened. @throws SignetError `state_refused` */
export function checkCertManager({ roots }: CertManagerConfig): Promise<void> {
  return Anchors.check({ files: roots });
}

/** Node CAs from an issuer. `directory`: where the agent's state is, which tells it apart from others on its node. */
export function openCertManager(config: Config, directory: string, kubernetes: KubernetesRooms | undefined, tools: RoomTools, opened: AsyncDisposableStack): CertManagerIntermediate {
  return new CertManagerIntermediate(sectionOf(config).issuer, { ...tools, ...connect(config, directory, kubernetes, tools, opened) });
}

/** SVIDs that an issuer signs one by one. `jwt`: whose keys are in the bundle. */
export function openCertManagerSvids(config: Config, directory: string, kubernetes: KubernetesRooms | undefined, jwt: TransitJwtSigner, tools: RoomTools, opened: AsyncDisposableStack): CertManagerSvids {
  const { trustDomain, x509: { ttlMs }, entries } = config;
  const { requests, anchors, trouble } = connect(config, directory, kubernetes, tools, opened);
  const holdMs = Math.max(LONGEST_MS, ttlMs, ...entries.map(({ x509TtlMs = 0 }) => x509TtlMs));
  const roots = new FollowedRoots({ trustDomain, directory, holdMs }, { ...tools, source: anchors });
  opened.defer(() => roots.close());
  const known = (signal: AbortSignal): Promise<void> => (roots.roots().length > 0 ? Promise.resolve() : anchors.known(signal));
  const options = { trustDomain, issuer: sectionOf(config).issuer };
  const x509 = new CertManagerX509Signer(options, { ...tools, requests, trouble, roots, known, judgeLeaf: judgeIssuedLeaf });
  opened.defer(() => x509.close());
  const bundle = new TwoPartBundle(trustDomain, roots, jwt);
  opened.defer(() => bundle.close());
  return { x509, bundle, onRecover: (listener) => x509.onRecover(listener), problem: () => x509.problem() };
}

function connect(config: Config, directory: string, kubernetes: KubernetesRooms | undefined, tools: RoomTools, opened: AsyncDisposableStack): Connected {
  const { trustDomain, kubernetes: { nodeName } } = config;
  const { namespace, issuer, roots: files, rootsConfigMap: configMap } = sectionOf(config);
  const client = kubernetes?.client ?? ownClient(config, tools, opened);
  const trouble = new Trouble(tools, () => client.get('/version').catch((error: unknown) => Promise.reject(faultOf(error, namespace))));
  opened.defer(() => trouble.close());
  const judgeRoot = (root: Buffer): string | undefined => profileProblem(readCa(root), trustDomain)?.what;
  const anchors = new Anchors({ files, configMap }, { ...tools, client, trouble, judgeRoot });
  opened.defer(() => anchors.close());
  const node = nodeName ?? hostname();
  const owner = { node, instance: createHash('sha256').update([node, trustDomain, directory].join('\0')).digest('hex').slice(0, 32) };
  const requests = new CertificateRequests({ namespace, issuer, owner, nodeName }, { ...tools, client, trouble });
  opened.defer(() => requests.close());
  return { requests, anchors, trouble };
}

/** Where pods are not attested nobody else has one. */
function ownClient({ kubernetes: { kubeconfig } }: Config, { clock }: RoomTools, opened: AsyncDisposableStack): KubernetesClient {
  if (kubeconfig === undefined) throw new SignetError('invalid_config', 'kubernetes.kubeconfig is not set');
  const client = new KubernetesClient({ credentials: kubeconfigCredentials(kubeconfig), clock });
  opened.defer(() => client.close());
  return client;
}

/** The configuration has been judged already. */
function sectionOf({ authority: { certManager } }: Config): CertManagerConfig {
  if (certManager === undefined) throw new SignetError('invalid_config', 'authority.certManager is not set');
  return certManager;
}
