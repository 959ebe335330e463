import type { Selector } from '../../spiffe/selector.ts';
import type { TrustDomain } from '../../spiffe/id.ts';

/** Texts by key, without a prototype, so that no key can meet `Object.prototype`. */
export type TextMap = Readonly<Record<string, string>>;

/** What rules may ask of a pod. `Pod` of the Kubernetes room has all of it. */
export interface PodFacts {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly generateName: string;
  /** '' for a pod without one (static pods). */
  readonly serviceAccount: string;
  readonly nodeName: string;
  readonly hostname: string;
  readonly subdomain: string;
  readonly hostNetwork: boolean;
  readonly priorityClassName: string;
  readonly runtimeClassName: string;
  readonly labels: TextMap;
  /** Undefined while they are not kept (see `needsOf`). */
  readonly annotations: TextMap | undefined;
}

/** What rules may ask of the pod's node. `KubernetesNode` has all of it. Its name is the pod's `nodeName`. */
export interface NodeFacts {
  readonly uid: string;
  readonly labels: TextMap;
  readonly annotations: TextMap;
  readonly providerId: string;
  readonly podCidr: string;
}

/** What a template can say. */
export interface TemplateData {
  readonly trustDomain: TrustDomain;
  readonly clusterName: string;
  readonly clusterDomain: string;
  readonly pod: PodFacts;
  /** Undefined while it is not known. */
  readonly node?: NodeFacts | undefined;
}

/** Everything that decides which rules apply to one pod. */
export interface Facts extends TemplateData {
  /** Of the pod's namespace; undefined while they are not known. */
  readonly namespaceLabels?: TextMap | undefined;
  /** The caller's, against which static entries are held; undefined where no caller is meant. */
  readonly selectors?: readonly Selector[] | undefined;
}
