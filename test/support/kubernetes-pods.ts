import type { JsonObject } from '../../src/kubernetes/json.ts';

export interface PodShape {
  readonly name?: string;
  readonly namespace?: string;
  readonly uid?: string;
  readonly version?: string;
  readonly labels?: Record<string, string>;
  readonly annotations?: Record<string, string>;
  readonly owners?: readonly JsonObject[];
  readonly spec?: JsonObject;
  readonly status?: JsonObject;
}

export const POD_UID = '0f6f2c1e-63c2-4d5c-9b8e-1a2b3c4d5e6f';
export const HASH = '4a1f8c0b2d3e4f5061728394a5b6c7d8';
export const CONTAINER_ID = 'c0ffee'.repeat(11).slice(0, 64);

/** A pod as the API server tells it. */
export function rawPod(shape: PodShape = {}): JsonObject {
  const { name = 'web-1', namespace = 'shop', uid = POD_UID, version = '7', labels = { app: 'web' }, annotations = {}, owners = [] } = shape;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, uid, resourceVersion: version, labels, annotations, ownerReferences: owners, managedFields: [{ manager: 'kubectl' }] },
    spec: { serviceAccountName: 'web', nodeName: 'node-1', containers: [{ name: 'main', image: 'nginx:1.29' }], ...shape.spec },
    status: { phase: 'Running', ...shape.status },
  };
}

/** The mirror that the kubelet of node-1 makes of a static pod. */
export function rawMirror(name: string, uid: string, hash: string = HASH): JsonObject {
  return rawPod({
    name,
    uid,
    annotations: { 'kubernetes.io/config.hash': hash, 'kubernetes.io/config.mirror': hash, 'kubernetes.io/config.source': 'file' },
    owners: [{ apiVersion: 'v1', kind: 'Node', name: 'node-1', uid: 'n-1', controller: true }],
    spec: { serviceAccountName: undefined },
  });
}

/** A pod status with one running container called `main`. */
export function running(containerId: string = CONTAINER_ID): JsonObject {
  return {
    phase: 'Running',
    containerStatuses: [
      {
        name: 'main',
        image: 'docker.io/library/nginx:1.29',
        imageID: 'docker.io/library/nginx@sha256:abc',
        containerID: `containerd://${containerId}`,
        started: true,
        ready: true,
      },
    ],
  };
}
