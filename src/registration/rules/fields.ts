import type { TemplateData, TextMap } from './facts.ts';

/** What must be watched only where a rule asks for it. */
export type Need = 'annotations' | 'node' | 'namespaceLabels';

interface FieldBase {
  /** As Go's templates write it: `.PodMeta.Namespace`. */
  readonly name: string;
  /** Where the API has it: `pod metadata.namespace`. */
  readonly json: string;
  readonly need?: Need;
}

export interface TextField extends FieldBase {
  readonly type: 'text';
  /** Undefined while what it needs is not known. */
  readonly read: (data: TemplateData) => string | undefined;
}

export interface FlagField extends FieldBase {
  readonly type: 'flag';
  readonly read: (data: TemplateData) => boolean;
}

/** Texts by key: labels or annotations. */
export interface MapField extends FieldBase {
  readonly type: 'map';
  /** `the pod has no label`, before the key that is missing. */
  readonly without: string;
  /** Whoever makes the pod writes its values. */
  readonly fromPod: boolean;
  readonly read: (data: TemplateData) => TextMap | undefined;
}

export type Field = TextField | FlagField | MapField;

/** All that a template may name. Go's names on the left, as in SPIRE's controller manager; `.Pod` is from its older guides. */
const FIELD_LIST: readonly Field[] = [
  { name: '.TrustDomain', type: 'text', json: 'configuration trustDomain', read: ({ trustDomain }) => trustDomain },
  { name: '.ClusterName', type: 'text', json: 'configuration clusterName', read: ({ clusterName }) => clusterName },
  { name: '.ClusterDomain', type: 'text', json: 'configuration clusterDomain', read: ({ clusterDomain }) => clusterDomain },
  { name: '.PodMeta.Name', type: 'text', json: 'pod metadata.name', read: ({ pod }) => pod.name },
  { name: '.PodMeta.Namespace', type: 'text', json: 'pod metadata.namespace', read: ({ pod }) => pod.namespace },
  { name: '.PodMeta.UID', type: 'text', json: 'pod metadata.uid', read: ({ pod }) => pod.uid },
  { name: '.PodMeta.GenerateName', type: 'text', json: 'pod metadata.generateName', read: ({ pod }) => pod.generateName },
  {
    name: '.PodMeta.Labels',
    type: 'map',
    json: 'pod metadata.labels',
    without: 'the pod has no label',
    fromPod: true,
    read: ({ pod }) => pod.labels,
  },
  {
    name: '.PodMeta.Annotations',
    type: 'map',
    json: 'pod metadata.annotations',
    need: 'annotations',
    without: 'the pod has no annotation',
    fromPod: true,
    read: ({ pod }) => pod.annotations,
  },
  {
    name: '.PodSpec.ServiceAccountName',
    type: 'text',
    json: 'pod spec.serviceAccountName',
    read: ({ pod }) => pod.serviceAccount,
  },
  {
    name: '.PodSpec.DeprecatedServiceAccount',
    type: 'text',
    json: 'pod spec.serviceAccount',
    read: ({ pod }) => pod.serviceAccount,
  },
  { name: '.PodSpec.NodeName', type: 'text', json: 'pod spec.nodeName', read: ({ pod }) => pod.nodeName },
  { name: '.PodSpec.Hostname', type: 'text', json: 'pod spec.hostname', read: ({ pod }) => pod.hostname },
  { name: '.PodSpec.Subdomain', type: 'text', json: 'pod spec.subdomain', read: ({ pod }) => pod.subdomain },
  { name: '.PodSpec.HostNetwork', type: 'flag', json: 'pod spec.hostNetwork', read: ({ pod }) => pod.hostNetwork },
  {
    name: '.PodSpec.PriorityClassName',
    type: 'text',
    json: 'pod spec.priorityClassName',
    read: ({ pod }) => pod.priorityClassName,
  },
  { name: '.PodSpec.RuntimeClassName', type: 'text', json: 'pod spec.runtimeClassName', read: ({ pod }) => pod.runtimeClassName },
  { name: '.NodeMeta.Name', type: 'text', json: 'node metadata.name', read: ({ pod }) => pod.nodeName },
  { name: '.NodeMeta.UID', type: 'text', json: 'node metadata.uid', need: 'node', read: ({ node }) => node?.uid },
  {
    name: '.NodeMeta.Labels',
    type: 'map',
    json: 'node metadata.labels',
    need: 'node',
    without: 'the node has no label',
    fromPod: false,
    read: ({ node }) => node?.labels,
  },
  {
    name: '.NodeMeta.Annotations',
    type: 'map',
    json: 'node metadata.annotations',
    need: 'node',
    without: 'the node has no annotation',
    fromPod: false,
    read: ({ node }) => node?.annotations,
  },
  {
    name: '.NodeSpec.ProviderID',
    type: 'text',
    json: 'node spec.providerID',
    need: 'node',
    read: ({ node }) => node?.providerId,
  },
  { name: '.NodeSpec.PodCIDR', type: 'text', json: 'node spec.podCIDR', need: 'node', read: ({ node }) => node?.podCidr },
  { name: '.Pod.Name', type: 'text', json: 'pod metadata.name', read: ({ pod }) => pod.name },
  { name: '.Pod.Namespace', type: 'text', json: 'pod metadata.namespace', read: ({ pod }) => pod.namespace },
  { name: '.Pod.UID', type: 'text', json: 'pod metadata.uid', read: ({ pod }) => pod.uid },
  { name: '.Pod.ServiceAccount', type: 'text', json: 'pod spec.serviceAccountName', read: ({ pod }) => pod.serviceAccount },
];

/** By name. */
export const FIELDS: ReadonlyMap<string, Field> = new Map(FIELD_LIST.map((field) => [field.name, field]));

/** The names, in the order of the table. */
export const FIELD_NAMES: readonly string[] = FIELD_LIST.map(({ name }) => name);

/**
 * The field that `path` begins with, and the rest of the path: Go reads `.PodMeta.Labels.app` as the entry `app` of the map.
 * Undefined for what is no field.
 */
export function findField(path: string): { readonly field: Field; readonly key: string | undefined } | undefined {
  const whole = FIELDS.get(path);
  if (whole !== undefined) return { field: whole, key: undefined };
  const dot = path.lastIndexOf('.');
  const map = FIELDS.get(path.slice(0, dot));
  return map?.type === 'map' ? { field: map, key: path.slice(dot + 1) } : undefined;
}

/** The fields of the same group (`.PodSpec`), or else the groups. */
export function namesNear(path: string): readonly string[] {
  const group = groupOf(path).toLowerCase();
  const siblings = FIELD_NAMES.filter((name) => groupOf(name) !== name && groupOf(name).toLowerCase() === group);
  if (siblings.length > 0) return siblings;
  return [...new Set(FIELD_NAMES.map((name) => (groupOf(name) === name ? name : `${groupOf(name)}.…`)))];
}

function groupOf(path: string): string {
  return path.split('.', 2).join('.');
}
