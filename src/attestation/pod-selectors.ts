import { imagesOf, podImages, podInitImages, type Container, type Pod } from '../kubernetes/pod.ts';
import type { Selector } from '../spiffe/selector.ts';

/** What the API server says of a pod. Tags of images can be moved: only digests say which program runs. */
export function podSelectors(pod: Pod): Selector[] {
  const appContainers = pod.containers.filter(({ kind }) => kind === 'app');
  const initContainers = pod.containers.filter(({ kind }) => kind === 'init' || kind === 'sidecar');
  return [
    `k8s:ns:${pod.namespace}`,
    ...(pod.serviceAccount === '' ? [] : [`k8s:sa:${pod.serviceAccount}`]),
    `k8s:pod-name:${pod.name}`,
    `k8s:pod-uid:${pod.uid}`,
    `k8s:node-name:${pod.nodeName}`,
    ...Object.entries(pod.labels).map(([label, value]) => `k8s:pod-label:${label}:${value}`),
    ...pod.owners.flatMap(({ kind, name, uid }) => [`k8s:pod-owner:${kind}:${name}`, `k8s:pod-owner-uid:${kind}:${uid}`]),
    ...podImages(pod).map((image) => `k8s:pod-image:${image}`),
    `k8s:pod-image-count:${appContainers.length}`,
    ...podInitImages(pod).map((image) => `k8s:pod-init-image:${image}`),
    `k8s:pod-init-image-count:${initContainers.length}`,
  ];
}

/** What is known of a container once a status of its pod names it. */
export function containerSelectors(container: Container): Selector[] {
  const images = new Set([...imagesOf(container), container.image].filter((image) => image !== ''));
  return [`k8s:container-name:${container.name}`, ...[...images].map((image) => `k8s:container-image:${image}`)];
}
