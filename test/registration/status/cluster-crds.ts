import { randomBytes } from 'node:crypto';
import type { KubernetesClient } from '../../../src/kubernetes/api-client.ts';
import { hasStatus } from '../../../src/kubernetes/api-error.ts';
import type { JsonObject } from '../../../src/kubernetes/json.ts';
import { pathOf, type Resource } from '../../../src/kubernetes/resources.ts';
import type { StatusResources } from '../../../src/registration/status/aggregator.ts';

const CRDS: Resource = { name: 'customresourcedefinitions', path: '/apis/apiextensions.k8s.io/v1/customresourcedefinitions' };

/** The three kinds in an API group of their own, so that a shared cluster's real ones are not touched. */
export interface OwnKinds {
  readonly group: string;
  readonly resources: StatusResources;
  remove(): Promise<void>;
}

const text: JsonObject = { type: 'string' };
const count: JsonObject = { type: 'integer', minimum: 0 };
const flag: JsonObject = { type: 'boolean' };
const object = (properties: JsonObject, required: string[] = []): JsonObject => ({ type: 'object', properties, ...(required.length > 0 ? { required } : {}) });
const anything: JsonObject = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };

const LINE = object(
  { kind: text, name: text, uid: text, generation: count, podsSelected: count, podsFailed: count, entriesMasked: count, problem: { type: 'string', maxLength: 256 } },
  ['kind', 'name', 'uid', 'generation', 'podsSelected', 'podsFailed', 'entriesMasked'],
);
const REPORT = object({ spec: object({ reporter: text, rules: { type: 'array', maxItems: 512, items: LINE } }) });
/** `status` as SPIRE's controller manager defines it. */
const STATS = object({
  namespacesSelected: { type: 'integer' },
  namespacesIgnored: { type: 'integer' },
  podsSelected: { type: 'integer' },
  podEntryRenderFailures: { type: 'integer' },
  entriesMasked: { type: 'integer' },
  entriesToSet: { type: 'integer' },
  entryFailures: { type: 'integer' },
});
const SPIFFE_ID = object({ spec: anything, status: object({ stats: STATS }) });
const STATIC_ENTRY = object({ spec: anything, status: object({ rendered: flag, masked: flag, set: flag }, ['rendered', 'masked', 'set']) });

export async function makeOwnKinds(client: KubernetesClient): Promise<OwnKinds> {
  const group = `signet-status-${randomBytes(4).toString('hex')}.example.org`;
  const made: string[] = [];
  const make = async (kind: string, plural: string, schema: JsonObject, isStatusApart: boolean): Promise<Resource> => {
    const subresources = isStatusApart ? { subresources: { status: {} } } : {};
    const version = { name: 'v1alpha1', served: true, storage: true, schema: { openAPIV3Schema: schema }, ...subresources };
    const names = { kind, plural, singular: kind.toLowerCase(), listKind: `${kind}List` };
    made.push(`${plural}.${group}`);
    await client.create(CRDS.path, { metadata: { name: `${plural}.${group}` }, spec: { group, names, scope: 'Cluster', versions: [version] } });
    const resource = { name: plural, path: `/apis/${group}/v1alpha1/${plural}` };
    await served(client, resource);
    return resource;
  };
  const remove = async (): Promise<void> => {
    for (const name of made) await client.delete(pathOf(CRDS, name)).catch(() => undefined);
  };
  try {
    const reports = await make('NodeReport', 'nodereports', REPORT, false);
    const spiffeIds = await make('ClusterSPIFFEID', 'clusterspiffeids', SPIFFE_ID, true);
    const staticEntries = await make('ClusterStaticEntry', 'clusterstaticentries', STATIC_ENTRY, true);
    return { group, resources: { reports, spiffeIds, staticEntries }, remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** A new CRD is served a moment after it was accepted. */
async function served(client: KubernetesClient, resource: Resource): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      return void (await client.list(resource, {}, () => undefined));
    } catch (error) {
      if (tries === 500 || !hasStatus(error, 404)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
