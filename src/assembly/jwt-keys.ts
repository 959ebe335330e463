import type { NodeAuthority } from '../authority/node-authority.ts';
import type { JwtKeySource } from '../authority/jwt-signer.ts';
import { jwtAuthority } from '../authority/keys.ts';
import { leavesAt } from '../authority/tainted.ts';
import { signNodeKeys, verifyNodeKeys } from '../authority/node-key-set.ts';
import { sleep } from '../clock.ts';
import type { Config } from '../config/config.ts';
import type { JwtAuthority } from '../spiffe/bundle.ts';
import type { BundleSource } from '../spiffe/signing.ts';
import { ClusterJwtKeys } from '../trust/cluster-jwt-keys.ts';
import { composeBundle } from '../trust/composed-bundle.ts';
import { JwtKeyPublisher, type OwnJwtKeys } from '../trust/jwt-key-publisher.ts';
import { instanceOf } from '../trust/key-set.ts';
import { PublishedJwtKeys } from '../trust/published-jwt-keys.ts';
import type { KubernetesRooms } from './kubernetes.ts';
import { memoryIn } from './memory.ts';
import type { RoomTools } from './tools.ts';

/** The first bundle is whole where the API server answers within this time. */
const WHOLE_MS = 2_000;

/** The JWT keys of a node of a cluster, which all other nodes must know, and theirs. */
export interface SharedJwtKeys {
  readonly source: JwtKeySource;
  readonly bundle: BundleSource;
  close(): Promise<void>;
}

/** Begins to publish this node's keys and to follow those of the others. */
export async function shareJwtKeys(node: NodeAuthority, directory: string, config: Config, kubernetes: KubernetesRooms, tools: RoomTools): Promise<SharedJwtKeys> {
  const { trustDomain, jwt } = config;
  const { client, nodeName } = kubernetes;
  const others = new ClusterJwtKeys({ client, own: node, verify: verifyNodeKeys, memory: memoryIn(directory, 'jwt-keys.json', tools.log), ...tools });
  const publisher = new JwtKeyPublisher({
    client,
    node: nodeName,
    instance: instanceOf(trustDomain, directory),
    own: ownKeysOf(node, config),
    known: others,
    propagationMs: jwt.propagationMs,
    ...tools,
  });
  others.start();
  publisher.start();
  await Promise.race([others.whenKnown(), sleep(tools.clock, WHOLE_MS)]);
  return {
    source: new PublishedJwtKeys(node, publisher, tools.clock),
    bundle: composeBundle(node, others),
    close: async () => {
      await publisher.close();
      await others.close();
    },
  };
}

function ownKeysOf(node: NodeAuthority, { trustDomain }: Config): OwnJwtKeys {
  // The public form of a key costs an export, and is asked for at each change.
  const known = new Map<string, JwtAuthority>();
  const authorityOf = (key: ReturnType<NodeAuthority['jwtKeys']>[number]): JwtAuthority => {
    const authority = known.get(key.kid) ?? jwtAuthority(key.publicKey);
    known.set(key.kid, authority);
    return authority;
  };
  return {
    keys: () => node.jwtKeys().map((key) => ({ ...authorityOf(key), notAfter: leavesAt(key) })),
    signer: () => {
      const ca = issuerOf(node);
      return ca && { certificate: ca.certificate, sign: (set) => signNodeKeys(ca, node.intermediates(), { ...set, trustDomain }) };
    },
    onChange: (listener) => {
      const stops = [node.onChange(listener), node.onIssuerChange(listener), node.orders.onTaint(listener)];
      return () => stops.forEach((stop) => stop());
    },
  };
}

function issuerOf(node: NodeAuthority): ReturnType<NodeAuthority['issuer']> | undefined {
  try {
    return node.issuer();
  } catch {
    // There is none at present; when there is one, it is told.
    return undefined;
  }
}
