import test from 'ava';
import { containerById, imagesOf, podImages, podInitImages, podTrim, type Pod } from '../../src/kubernetes/pod.ts';
import { trimNamespace, trimNode } from '../../src/kubernetes/objects.ts';
import type { JsonObject } from '../../src/kubernetes/json.ts';
import { CONTAINER_ID, HASH, POD_UID, rawMirror, rawPod, running } from '../support/kubernetes-pods.ts';

const trim = podTrim();

function trimmed(raw: JsonObject): Pod {
  const pod = trim(raw);
  if (pod === undefined) throw new Error('the pod was left out');
  return pod;
}

test('a pod is trimmed to what is needed', (t) => {
  const owners = [{ apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'web', uid: 'rs-1', controller: true, blockOwnerDeletion: true }];
  const spec = { hostname: 'h', subdomain: 's', hostNetwork: true, priorityClassName: 'p', runtimeClassName: 'kata' };
  const pod = trimmed(rawPod({ owners, spec, status: running() }));
  t.like(pod, { uid: POD_UID, name: 'web-1', namespace: 'shop', serviceAccount: 'web', nodeName: 'node-1', phase: 'Running', generateName: '', ...spec });
  t.deepEqual({ ...pod.labels }, { app: 'web' });
  t.deepEqual(pod.owners, [{ kind: 'ReplicaSet', name: 'web', uid: 'rs-1', controller: true }]);
  t.is(pod.annotations, undefined);
  t.is(pod.configHash, undefined);
  t.is(pod.deletionTimestamp, undefined);
  t.deepEqual(pod.containers, [
    {
      name: 'main',
      kind: 'app',
      image: 'nginx:1.29',
      statusImage: 'docker.io/library/nginx:1.29',
      imageId: 'docker.io/library/nginx@sha256:abc',
      containerId: CONTAINER_ID,
      started: true,
      ready: true,
    },
  ]);
  t.false(JSON.stringify(pod).includes('managedFields'));
});

test('annotations are kept only where asked for', (t) => {
  const raw = rawPod({ annotations: { a: 'b' } });
  t.deepEqual({ ...podTrim({ annotations: true })(raw)?.annotations }, { a: 'b' });
  t.is(trimmed(raw).annotations, undefined);
});

test('the older name of the service account counts where the newer is not; without both it is empty', (t) => {
  t.is(trimmed(rawPod({ spec: { serviceAccountName: undefined, serviceAccount: 'old' } })).serviceAccount, 'old');
  t.is(trimmed(rawPod({ spec: { serviceAccountName: undefined } })).serviceAccount, '');
});

test('a pod that is to end has the time of its end', (t) => {
  const raw = rawPod();
  const metadata = { ...(raw['metadata'] as JsonObject), deletionTimestamp: '2030-01-01T00:00:00Z' };
  t.is(trimmed({ ...raw, metadata }).deletionTimestamp, Date.UTC(2030, 0, 1));
});

test('all kinds of containers are told apart, each with its own status', (t) => {
  const of = (name: string): JsonObject => ({ name, image: `${name}:1` });
  const statusOf = (name: string): JsonObject => ({ name, image: `r/${name}:1`, imageID: `r/${name}@x`, containerID: `cri-o://${name}-id`, ready: true });
  const spec = {
    initContainers: [of('init'), { ...of('proxy'), restartPolicy: 'Always' }],
    containers: [of('main'), of('late')],
    ephemeralContainers: [of('debug')],
  };
  const status = {
    initContainerStatuses: [statusOf('proxy'), statusOf('init')],
    containerStatuses: [statusOf('main'), { name: 'late', image: '', imageID: '' }],
    ephemeralContainerStatuses: [statusOf('debug')],
  };
  const pod = trimmed(rawPod({ spec, status }));
  const rows = pod.containers.map(({ name, kind, containerId, ready }) => [name, kind, containerId, ready]);
  t.deepEqual(rows, [
    ['init', 'init', 'init-id', true],
    ['proxy', 'sidecar', 'proxy-id', true],
    ['main', 'app', 'main-id', true],
    ['late', 'app', '', false],
    ['debug', 'ephemeral', 'debug-id', true],
  ]);
  t.deepEqual(podImages(pod), ['r/main:1', 'r/main@x']);
  t.deepEqual(podInitImages(pod), ['r/init:1', 'r/init@x', 'r/proxy:1', 'r/proxy@x']);
  t.is(containerById(pod, 'debug-id')?.name, 'debug');
  t.is(containerById(pod, ''), undefined, 'a container without an ID yet is nobody\'s');
  t.deepEqual(imagesOf(pod.containers[3] ?? t.fail('no container')), []);
});

test('a mirror pod carries the hash that is in its cgroup path', (t) => {
  const pod = trimmed(rawMirror('etcd-node-1', 'm-1'));
  t.like(pod, { uid: 'm-1', configHash: HASH, serviceAccount: '' });
});

const MIRROR = { 'kubernetes.io/config.hash': HASH, 'kubernetes.io/config.mirror': HASH };
const NODE_OWNER = { apiVersion: 'v1', kind: 'Node', name: 'node-1', uid: 'n-1' };
for (const [what, annotations, owners] of [
  ['the hash alone', { 'kubernetes.io/config.hash': HASH }, [NODE_OWNER]],
  ['another mirror value', { ...MIRROR, 'kubernetes.io/config.mirror': 'x' }, [NODE_OWNER]],
  ['no owner', MIRROR, []],
  ['an owner that is no node', MIRROR, [{ ...NODE_OWNER, kind: 'ReplicaSet' }]],
  ['a Node of another group as owner', MIRROR, [{ ...NODE_OWNER, apiVersion: 'example.org/v1' }]],
  ['another node as owner', MIRROR, [{ ...NODE_OWNER, name: 'node-2' }]],
  ['the UID of another pod as hash', { 'kubernetes.io/config.hash': POD_UID, 'kubernetes.io/config.mirror': POD_UID }, [NODE_OWNER]],
] as const) {
  test(`a pod is no mirror with ${what}`, (t) => {
    t.is(trimmed(rawPod({ annotations, owners })).configHash, undefined);
  });
}

test('labels called like members of every object are labels only when they are there', (t) => {
  const labels = JSON.parse('{"__proto__":"a","ok":"b","number":3}') as Record<string, string>;
  const pod = trimmed(rawPod({ labels }));
  t.is(pod.labels['__proto__'], 'a');
  t.is(pod.labels['constructor'], undefined);
  t.deepEqual(Object.keys(pod.labels), ['__proto__', 'ok']);
});

for (const raw of [{}, { metadata: null }, { metadata: { uid: 'u', name: 'n' } }, { metadata: { uid: 7, name: 'n', namespace: 's' } }]) {
  test(`what is no pod is left out: ${JSON.stringify(raw)}`, (t) => {
    t.is(trim(raw), undefined);
  });
}

test('members of a wrong type are taken as missing', (t) => {
  const raw = { metadata: { uid: 'u', name: 'n', namespace: 's', labels: [], ownerReferences: {} }, spec: { containers: [null, 'x', { name: 'c' }] }, status: 'x' };
  const pod = trimmed(raw);
  t.deepEqual(pod.containers.map(({ name }) => name), ['c']);
  t.deepEqual(pod.owners, []);
});

test('namespaces and nodes are trimmed too', (t) => {
  const metadata = { uid: 'u', name: 'n', labels: { a: 'b' }, annotations: { c: 'd' } };
  t.like(trimNamespace({ metadata }), { uid: 'u', name: 'n', labels: { a: 'b' } });
  t.like(trimNode({ metadata, spec: { providerID: 'aws:///x', podCIDR: '10.0.0.0/24' } }), { name: 'n', annotations: { c: 'd' }, providerId: 'aws:///x', podCidr: '10.0.0.0/24' });
  t.is(trimNamespace({}), undefined);
  t.is(trimNode({ metadata: { name: 'n' } }), undefined);
});
