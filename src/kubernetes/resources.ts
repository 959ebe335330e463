import { SignetError } from '../errors.ts';

/** Something that can be listed and watched. */
export interface Resource {
  /** Plural name, for messages: `pods`. */
  readonly name: string;
  /** Of the collection in all namespaces: `/api/v1/pods`. */
  readonly path: string;
  /** True: only `metadata` is asked for (PartialObjectMetadata, `meta.k8s.io/v1`). */
  readonly metadataOnly?: boolean;
  /** True where the cluster may not know it (a CRD that is not installed): a 404 means that there are none. */
  readonly optional?: boolean;
}

const SPIRE_GROUP = '/apis/spire.spiffe.io/v1alpha1';

export const PODS: Resource = { name: 'pods', path: '/api/v1/pods' };
export const NAMESPACES: Resource = { name: 'namespaces', path: '/api/v1/namespaces', metadataOnly: true };
export const NODES: Resource = { name: 'nodes', path: '/api/v1/nodes' };
export const CLUSTER_SPIFFE_IDS: Resource = { name: 'clusterspiffeids', path: `${SPIRE_GROUP}/clusterspiffeids`, optional: true };
export const CLUSTER_STATIC_ENTRIES: Resource = {
  name: 'clusterstaticentries',
  path: `${SPIRE_GROUP}/clusterstaticentries`,
  optional: true,
};
export const CLUSTER_FEDERATED_TRUST_DOMAINS: Resource = {
  name: 'clusterfederatedtrustdomains',
  path: `${SPIRE_GROUP}/clusterfederatedtrustdomains`,
  optional: true,
};

export const NODE_REPORTS: Resource = { name: 'nodereports', path: '/apis/signet.dev/v1alpha1/nodereports' };
export const NODE_KEY_SETS: Resource = { name: 'nodekeysets', path: '/apis/signet.dev/v1alpha1/nodekeysets', optional: true };
export const LEASES: Resource = { name: 'leases', path: '/apis/coordination.k8s.io/v1/leases' };
export const EVENTS: Resource = { name: 'events', path: '/apis/events.k8s.io/v1/events' };

/** The `apiVersion` of a resource's objects: `v1`, or `group/version`. */
export function apiVersionOf({ path }: Resource): string {
  return path.split('/').slice(2, -1).join('/');
}

/** The path of one object that is in no namespace. */
export function pathOf(resource: Resource, name: string): string {
  return `${resource.path}/${segment(name)}`;
}

/** The path of one object in a namespace: `/api/v1/namespaces/default/pods/web-1`. */
export function namespacedPathOf(resource: Resource, namespace: string, name?: string): string {
  const cut = resource.path.lastIndexOf('/');
  const collection = `${resource.path.slice(0, cut)}/namespaces/${segment(namespace)}${resource.path.slice(cut)}`;
  return name === undefined ? collection : `${collection}/${segment(name)}`;
}

/** A dot segment would lead to another object, an empty one to the collection. */
function segment(name: string): string {
  if (!/^\.{0,2}$/.test(name)) return encodeURIComponent(name);
  throw new SignetError('invalid_config', `${JSON.stringify(name)} is not the name of a Kubernetes object`);
}

/** Selects the pods bound to one node. */
export function onNode(nodeName: string): string {
  return `spec.nodeName=${escapeField(nodeName)}`;
}

/** Selects the one object with this name. */
export function named(name: string): string {
  return `metadata.name=${escapeField(name)}`;
}

/** Field selectors escape `\`, `,` and `=` with a backslash. */
function escapeField(value: string): string {
  return value.replaceAll(/[\\,=]/g, '\\$&');
}
