import type { KubernetesClient } from './api-client.ts';
import { hasStatus } from './api-error.ts';
import { objectAt, textAt, type JsonObject } from './json.ts';
import { NODES, apiVersionOf, pathOf } from './resources.ts';

/**
 * `metadata.uid` of a Node, or undefined where there is none with that name, as on a machine that is no node of the cluster.
 *
 * @throws KubernetesError for anything else, a missing right (403) included.
 */
export async function nodeUidOf(client: Pick<KubernetesClient, 'get'>, name: string, signal: AbortSignal): Promise<string | undefined> {
  try {
    const node = await client.get(pathOf(NODES, name), { signal });
    return textAt(objectAt(node, 'metadata'), 'uid') || undefined;
  } catch (error) {
    if (hasStatus(error, 404)) return undefined;
    throw error;
  }
}

/** `metadata` of an object that goes with its Node. Without a UID it belongs to nobody. */
export function ownedByNode(name: string, node: string, uid: string | undefined): JsonObject {
  return uid === undefined ? { name } : { name, ownerReferences: [{ apiVersion: apiVersionOf(NODES), kind: 'Node', name: node, uid }] };
}
