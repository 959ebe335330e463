import { flagAt, objectAt, objectsAt, textAt, textsAt, timeAt, type JsonObject, type TextMap } from './json.ts';
import { keptBytes, mostKept } from './pod-size.ts';

export type ContainerKind = 'init' | 'sidecar' | 'app' | 'ephemeral';

export interface Container {
  readonly name: string;
  /** An init container that keeps running (`restartPolicy: Always`) is a sidecar. */
  readonly kind: ContainerKind;
  /** As written in the pod's spec: `nginx:1.29`. */
  readonly image: string;
  /** As the runtime resolved it: `docker.io/library/nginx:1.29`; '' before it has. */
  readonly statusImage: string;
  /** With the digest: `docker.io/library/nginx@sha256:…`; '' before the image is there. */
  readonly imageId: string;
  /** Without the runtime's scheme: 64 hexadecimal digits; '' before the container is made. */
  readonly containerId: string;
  readonly started: boolean;
  readonly ready: boolean;
}

export interface Owner {
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  readonly controller: boolean;
}

/** What is kept of a pod. */
export interface Pod {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly generateName: string;
  /** '' for a pod without one (static pods). */
  readonly serviceAccount: string;
  /** '' before it is bound to a node. */
  readonly nodeName: string;
  readonly hostname: string;
  readonly subdomain: string;
  readonly hostNetwork: boolean;
  readonly priorityClassName: string;
  readonly runtimeClassName: string;
  /** `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`; '' when not told. */
  readonly phase: string;
  /** When its grace period ends, in milliseconds since the Unix epoch; undefined while its deletion was not asked for. */
  readonly deletionTimestamp: number | undefined;
  readonly labels: TextMap;
  /** Undefined unless they were asked for. */
  readonly annotations: TextMap | undefined;
  readonly owners: readonly Owner[];
  /** The UID in the cgroup path of a static pod, of which this is the mirror; undefined for all other pods. */
  readonly configHash: string | undefined;
  readonly containers: readonly Container[];
  /**
   * Set for a pod that is too large to be kept (`mostKept`): how much there would have been to keep, in bytes. It has no labels,
   * annotations, owners and containers then, so nothing may be concluded from their absence.
   */
  readonly oversized?: number;
}

/** `known`: how many pods share the memory with this one. */
export type TrimPod = (raw: JsonObject, known: number) => Pod | undefined;

export interface PodTrimOptions {
  /** Keep annotations: only where a rule needs them, since they can be 256 KiB a pod. Default false. */
  readonly annotations?: boolean;
}

const CONFIG_HASH = 'kubernetes.io/config.hash';
const CONFIG_MIRROR = 'kubernetes.io/config.mirror';

/** The kubelet's MD5 of a static pod's manifest. A UID has dashes: no hash can pose as one. */
const HASH = /^[0-9a-f]{32}$/;

/** The trimming of raw pods for an informer; one without UID, name or namespace is left out. */
export function podTrim(options: PodTrimOptions = {}): (raw: JsonObject, known?: number) => Pod | undefined {
  return (raw, known = 0) => {
    const pod = trimPod(raw, options.annotations === true);
    return pod === undefined ? undefined : Object.freeze(withinBound(pod, known));
  };
}

/** Whoever may make pods decides how large they are, and the pods of a node are all in memory. */
function withinBound(pod: Pod, known: number): Pod {
  const oversized = keptBytes(pod);
  if (oversized <= mostKept(known)) return pod;
  const { uid, name, namespace, nodeName, hostNetwork, phase, deletionTimestamp, configHash } = pod;
  const [unknown, none] = ['', textsAt({}, '')];
  return {
    ...{ uid, name, namespace, nodeName, hostNetwork, phase, deletionTimestamp, configHash, oversized },
    ...{ generateName: unknown, serviceAccount: unknown, hostname: unknown, subdomain: unknown },
    ...{ priorityClassName: unknown, runtimeClassName: unknown },
    ...{ labels: none, annotations: undefined, owners: [], containers: [] },
  };
}

function trimPod(raw: JsonObject, withAnnotations: boolean): Pod | undefined {
  const [metadata, spec, status] = [objectAt(raw, 'metadata'), objectAt(raw, 'spec'), objectAt(raw, 'status')];
  const [uid, name, namespace] = [textAt(metadata, 'uid'), textAt(metadata, 'name'), textAt(metadata, 'namespace')];
  if (uid === '' || name === '' || namespace === '') return undefined;
  return {
    uid,
    name,
    namespace,
    generateName: textAt(metadata, 'generateName'),
    // The older name of the field is still written next to the newer one.
    serviceAccount: textAt(spec, 'serviceAccountName') || textAt(spec, 'serviceAccount'),
    nodeName: textAt(spec, 'nodeName'),
    hostname: textAt(spec, 'hostname'),
    subdomain: textAt(spec, 'subdomain'),
    hostNetwork: flagAt(spec, 'hostNetwork'),
    priorityClassName: textAt(spec, 'priorityClassName'),
    runtimeClassName: textAt(spec, 'runtimeClassName'),
    phase: textAt(status, 'phase'),
    deletionTimestamp: timeAt(metadata, 'deletionTimestamp'),
    labels: textsAt(metadata, 'labels'),
    annotations: withAnnotations ? textsAt(metadata, 'annotations') : undefined,
    owners: objectsAt(metadata, 'ownerReferences').map(ownerOf),
    configHash: configHashOf(metadata, textAt(spec, 'nodeName')),
    containers: containersOf(spec, status),
  };
}

function ownerOf(reference: JsonObject): Owner {
  return {
    kind: textAt(reference, 'kind'),
    name: textAt(reference, 'name'),
    uid: textAt(reference, 'uid'),
    controller: flagAt(reference, 'controller'),
  };
}

/**
 * The kubelet writes both annotations, with the same value, and its own Node as owner. Whoever may make pods can write all of
 * that too: the index refuses a hash with two claimants.
 */
function configHashOf(metadata: JsonObject, nodeName: string): string | undefined {
  const annotations = objectAt(metadata, 'annotations');
  const hash = textAt(annotations, CONFIG_HASH);
  if (!HASH.test(hash) || textAt(annotations, CONFIG_MIRROR) !== hash || nodeName === '') return undefined;
  const owners = objectsAt(metadata, 'ownerReferences');
  const isNode = (owner: JsonObject): boolean => textAt(owner, 'kind') === 'Node' && textAt(owner, 'apiVersion') === 'v1';
  return owners.some((owner) => isNode(owner) && textAt(owner, 'name') === nodeName) ? hash : undefined;
}

function containersOf(spec: JsonObject, status: JsonObject): Container[] {
  const of = (list: string, statuses: string, kindOf: (container: JsonObject) => ContainerKind): Container[] => {
    const known = new Map(objectsAt(status, statuses).map((one) => [textAt(one, 'name'), one]));
    const statusOf = (container: JsonObject): JsonObject => known.get(textAt(container, 'name')) ?? {};
    return objectsAt(spec, list).map((container) => containerOf(container, statusOf(container), kindOf(container)));
  };
  const isSidecar = (container: JsonObject): boolean => textAt(container, 'restartPolicy') === 'Always';
  const initKind = (container: JsonObject): ContainerKind => (isSidecar(container) ? 'sidecar' : 'init');
  return [
    ...of('initContainers', 'initContainerStatuses', initKind),
    ...of('containers', 'containerStatuses', () => 'app'),
    ...of('ephemeralContainers', 'ephemeralContainerStatuses', () => 'ephemeral'),
  ];
}

function containerOf(container: JsonObject, status: JsonObject, kind: ContainerKind): Container {
  return {
    name: textAt(container, 'name'),
    kind,
    image: textAt(container, 'image'),
    statusImage: textAt(status, 'image'),
    imageId: textAt(status, 'imageID'),
    containerId: withoutScheme(textAt(status, 'containerID')),
    started: flagAt(status, 'started'),
    ready: flagAt(status, 'ready'),
  };
}

/** `containerd://4f5e…` is container `4f5e…`. */
function withoutScheme(id: string): string {
  const at = id.indexOf('://');
  return at === -1 ? id : id.slice(at + 3);
}

/** The container with this ID, or undefined while no status names it. */
export function containerById(pod: Pod, containerId: string): Container | undefined {
  return containerId === '' ? undefined : pod.containers.find((container) => container.containerId === containerId);
}

/** The images of a container as the runtime names them, without duplicates: the resolved name and the one with the digest. */
export function imagesOf(container: Container): string[] {
  return [...new Set([container.statusImage, container.imageId])].filter((image) => image !== '');
}

/** The images of all app containers, for `pod-image`. */
export function podImages(pod: Pod): string[] {
  return distinctImages(pod.containers.filter(({ kind }) => kind === 'app'));
}

/** The images of all init containers, sidecars included, for `pod-init-image`. */
export function podInitImages(pod: Pod): string[] {
  return distinctImages(pod.containers.filter(({ kind }) => kind === 'init' || kind === 'sidecar'));
}

function distinctImages(containers: readonly Container[]): string[] {
  return [...new Set(containers.flatMap(imagesOf))];
}
