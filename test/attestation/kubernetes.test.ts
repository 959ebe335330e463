import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Attestation } from '../../src/attestation/attestor.ts';
import type { Caller } from '../../src/attestation/caller.ts';
import { cgroupRootAt } from '../../src/attestation/cgroup.ts';
import { KubernetesAttestor } from '../../src/attestation/kubernetes.ts';
import { stateOf } from '../../src/attestation/placement.ts';
import { SignetError, type ErrorCode } from '../../src/errors.ts';
import type { JsonObject } from '../../src/kubernetes/json.ts';
import { PodIndex, type PodSource } from '../../src/kubernetes/pod-index.ts';
import { podTrim, type Pod } from '../../src/kubernetes/pod.ts';
import type { ChangeKind, ChangeListener } from '../../src/kubernetes/store.ts';
import type { Kernel } from '../../src/kernel.ts';
import { parseSelector } from '../../src/spiffe/selector.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { temporaryDirectory } from '../support/kernel-processes.ts';
import { CONTAINER_ID, HASH, POD_UID, rawMirror, rawPod, running, type PodShape } from '../support/kubernetes-pods.ts';
import { v1, v2 } from './cgroup-fixtures.ts';

const PID = 4242;
const { signal } = new AbortController();
const trim = podTrim();
const podOf = (shape: PodShape = {}): Pod => trim(rawPod(shape)) as Pod;
const mirrorOf = (name: string, uid: string): Pod => trim(rawMirror(name, uid)) as Pod;
const IN_POD = v2(`/kubepods/burstable/pod${POD_UID}/${CONTAINER_ID}`);
const IN_STATIC_POD = v2(`/kubepods/burstable/pod${HASH}/${CONTAINER_ID}`);

class HandSource implements PodSource {
  synced = true;
  lastContact: number | undefined = 0;
  #listener: ChangeListener<Pod> | undefined;

  items(): Iterable<Pod> {
    return [];
  }

  onChange(listener: ChangeListener<Pod>): () => void {
    this.#listener = listener;
    return () => void (this.#listener = undefined);
  }

  nudge(): void {}

  tell(kind: ChangeKind, pod: Pod): void {
    this.#listener?.(kind, pod, undefined);
  }
}

interface Scene {
  readonly source: HandSource;
  readonly clock: FakeClock;
  readonly index: PodIndex;
  readonly attestor: KubernetesAttestor;
  readonly caller: Caller;
  /** Callers that were told of as changed. */
  readonly changed: Caller[];
  readonly write: (name: 'cgroup' | 'stat', text: string) => void;
}

function callerOf(pid = PID): Caller {
  return { connection: 1, pid, uid: 0, gid: 0, groups: [], pidfd: -1, owner: 'uid:0', startTime: undefined };
}

function setUp(t: ExecutionContext, cgroup: string, lookup?: () => Promise<readonly Pod[]>): Scene {
  const procRoot = temporaryDirectory(t);
  mkdirSync(join(procRoot, String(PID)));
  const write = (name: string, text: string): void => writeFileSync(join(procRoot, String(PID), name), text);
  write('cgroup', cgroup);
  write('stat', `${PID} (a b) S 1 2 3`);
  const source = new HandSource();
  const clock = new FakeClock();
  const index = new PodIndex({ source, clock, ...(lookup === undefined ? {} : { lookup }) });
  const attestor = new KubernetesAttestor({ pods: index, root: cgroupRootAt('/kubepods'), nodeName: 'node-1', podTimeoutMs: 5_000, procRoot });
  const changed: Caller[] = [];
  attestor.onChange((callers) => changed.push(...callers));
  t.teardown(() => (attestor.close(), index.close()));
  return { source, clock, index, attestor, caller: callerOf(), changed, write };
}

async function refuses(t: ExecutionContext, attesting: Promise<unknown>, code: ErrorCode, message: RegExp): Promise<void> {
  const error = await t.throwsAsync(attesting, { instanceOf: SignetError });
  t.is(error?.code, code, error?.message);
  t.regex(error?.message ?? '', message);
}

const OWNER: JsonObject = { kind: 'ReplicaSet', name: 'web-7f', uid: 'r-1', controller: true };

test('a caller in a pod has the selectors of the pod and of its container, each of a form that an entry may have', async (t) => {
  const { source, attestor, caller } = setUp(t, IN_POD);
  const init = { name: 'init', image: 'init:1' };
  const spec = { initContainers: [init], containers: [{ name: 'main', image: 'nginx:1.29' }, { name: 'side', image: 'side:2' }] };
  source.tell('added', podOf({ owners: [OWNER], spec, status: { ...running(), initContainerStatuses: [{ name: 'init', image: 'docker.io/library/init:1' }] } }));
  const selectors = await attestor.attest(caller, signal);
  t.deepEqual([...selectors].sort(), [
    'k8s:container-image:docker.io/library/nginx:1.29',
    'k8s:container-image:docker.io/library/nginx@sha256:abc',
    'k8s:container-image:nginx:1.29',
    'k8s:container-name:main',
    'k8s:node-name:node-1',
    'k8s:ns:shop',
    'k8s:pod-image-count:2',
    'k8s:pod-image:docker.io/library/nginx:1.29',
    'k8s:pod-image:docker.io/library/nginx@sha256:abc',
    'k8s:pod-init-image-count:1',
    'k8s:pod-init-image:docker.io/library/init:1',
    'k8s:pod-label:app:web',
    'k8s:pod-name:web-1',
    'k8s:pod-owner-uid:ReplicaSet:r-1',
    'k8s:pod-owner:ReplicaSet:web-7f',
    `k8s:pod-uid:${POD_UID}`,
    'k8s:sa:web',
  ]);
  for (const selector of selectors) t.is(parseSelector(selector), selector);
});

test('a pod without a service account has no selector of one, and a pod that has ended is attested while its processes live', async (t) => {
  const { source, attestor, caller } = setUp(t, IN_POD);
  source.tell('added', podOf({ spec: { serviceAccountName: undefined }, status: { phase: 'Succeeded' } }));
  const selectors = await attestor.attest(caller, signal);
  t.true(selectors.includes('k8s:ns:shop'));
  t.false(selectors.some((selector) => selector.startsWith('k8s:sa:')));
});

test('a caller outside any container has no selectors, and is not asked about elsewhere', async (t) => {
  const { attestor, caller, clock } = setUp(t, v1('/system.slice/sshd.service'));
  t.deepEqual(await attestor.attest(caller, signal), []);
  t.deepEqual(attestor.current(caller), []);
  t.is(clock.pending, 0);
  attestor.forget(caller);
  t.is(attestor.current(caller), undefined);
});

test('a caller of unclear place is refused, never outside', async (t) => {
  for (const text of [v2(`/docker/${CONTAINER_ID}`), v1('/', { memory: '/x' }), v2(`/x/kubepods/pod${POD_UID}/${CONTAINER_ID}`), '']) {
    const { attestor, caller, source } = setUp(t, text);
    source.tell('added', podOf());
    await refuses(t, attestor.attest(caller, signal), 'caller_unknown', /^process 4242: /);
    t.is(attestor.current(caller), undefined);
  }
});

test('a first call waits for the pod and is answered by the event; container selectors come with the status', async (t) => {
  const { source, attestor, caller, clock, changed } = setUp(t, IN_POD);
  const attesting = attestor.attest(caller, signal);
  t.is(clock.pending, 1);
  source.tell('added', podOf());
  const selectors = await attesting;
  t.true(selectors.includes('k8s:sa:web'));
  t.false(selectors.some((selector) => selector.startsWith('k8s:container-')));
  source.tell('changed', podOf({ status: running() }));
  t.deepEqual(changed, [caller]);
  t.true(attestor.current(caller)?.includes('k8s:container-name:main'));
});

test('only what changes the selectors is told, once, and only of attested callers of that pod', async (t) => {
  const { source, attestor, caller, changed } = setUp(t, IN_POD);
  source.tell('added', podOf());
  await attestor.attest(caller, signal);
  source.tell('changed', podOf({ version: '8' }));
  source.tell('added', podOf({ uid: 'other', name: 'other' }));
  t.deepEqual(changed, []);
  source.tell('changed', podOf({ labels: { app: 'web', tier: 'front' } }));
  t.deepEqual(changed, [caller]);
  t.true(attestor.current(caller)?.includes('k8s:pod-label:tier:front'));
  source.tell('changed', podOf({ labels: { app: 'web', tier: 'front' } }));
  t.is(changed.length, 1);
  attestor.forget(caller);
  source.tell('changed', podOf());
  t.is(changed.length, 1);
  t.is(attestor.current(caller), undefined);
  t.is(attestor.size, 0);
});

test('the callers of a pod that is gone keep their selectors, even when the index has forgotten it', async (t) => {
  const { source, attestor, caller, changed, index } = setUp(t, IN_POD);
  source.tell('added', podOf());
  const before = await attestor.attest(caller, signal);
  source.tell('removed', podOf());
  t.deepEqual(attestor.current(caller), before);
  index.release(POD_UID);
  t.is(index.find(POD_UID), undefined);
  t.deepEqual(attestor.current(caller), before);
  t.deepEqual(changed, []);
});

test('forgetting the last caller of a departed pod does not release it: its processes may connect again', async (t) => {
  const { source, attestor, caller, index } = setUp(t, IN_POD);
  source.tell('added', podOf());
  await attestor.attest(caller, signal);
  source.tell('removed', podOf());
  attestor.forget(caller);
  t.is(index.find(POD_UID)?.name, 'web-1');
  t.true((await attestor.attest(callerOf(), signal)).includes('k8s:ns:shop'));
});

test('a pod is kept while a caller is attested from it, and an hour longer', async (t) => {
  const { source, attestor, caller, index, clock } = setUp(t, IN_POD);
  source.tell('added', podOf());
  const other = callerOf();
  await attestor.attest(caller, signal);
  await attestor.attest(other, signal);
  source.tell('removed', podOf());
  clock.advance(10 * 3_600_000);
  attestor.forget(caller);
  clock.advance(10 * 3_600_000);
  t.is(index.find(POD_UID)?.name, 'web-1');
  attestor.forget(other);
  attestor.forget(other);
  clock.advance(3_599_999);
  t.is(index.find(POD_UID)?.name, 'web-1');
  clock.advance(1);
  t.is(index.find(POD_UID), undefined);
});

test('a caller that is attested again is one, and an attestor that is closed keeps no pod', async (t) => {
  const { source, attestor, caller, index, clock } = setUp(t, IN_POD);
  source.tell('added', podOf());
  await attestor.attest(caller, signal);
  await attestor.attest(caller, signal);
  source.tell('removed', podOf());
  clock.advance(7_200_000);
  t.is(index.find(POD_UID)?.name, 'web-1');
  attestor.close();
  clock.advance(3_600_000);
  t.is(index.find(POD_UID), undefined);
});

test('a caller that is forgotten while it is attested is not followed', async (t) => {
  const { source, attestor, caller } = setUp(t, IN_POD);
  const attesting = attestor.attest(caller, signal);
  attestor.forget(caller);
  source.tell('added', podOf());
  await attesting;
  t.is(attestor.size, 0);
  t.is(attestor.current(caller), undefined);
});

test('a pod that nobody knows is refused once that is sure', async (t) => {
  const { attestor, caller, clock } = setUp(t, IN_POD, async () => []);
  const attesting = attestor.attest(caller, signal);
  clock.advance(5_000);
  await refuses(t, attesting, 'caller_unknown', new RegExp(`its cgroup names pod ${POD_UID}, which nobody tells of among the pods of this node`));
});

test('a pod that nobody can tell of is not refused but unavailable', async (t) => {
  const { attestor, caller, clock, source } = setUp(t, IN_POD);
  source.synced = false;
  const attesting = attestor.attest(caller, signal);
  clock.advance(5_000);
  await refuses(t, attesting, 'unavailable', /not complete yet/);
});

test('a pod that is bound to another node, or to none, is refused', async (t) => {
  for (const nodeName of ['node-2', undefined]) {
    const { attestor, caller, source } = setUp(t, IN_POD);
    source.tell('added', podOf({ spec: { nodeName } }));
    await refuses(t, attestor.attest(caller, signal), 'caller_unknown', /is bound to node ".*" and not to node-1/);
  }
});

test('a caller that is moved while its pod is waited for has changed', async (t) => {
  const moves = [v2(`/kubepods/burstable/pod${POD_UID}/${CONTAINER_ID.replace('c', 'd')}`), v2('/'), v2(`/docker/${CONTAINER_ID}`)];
  for (const text of moves) {
    const { attestor, caller, source, write } = setUp(t, IN_POD);
    const attesting = attestor.attest(caller, signal);
    write('cgroup', text);
    source.tell('added', podOf());
    await refuses(t, attesting, 'caller_changed', /was moved out of its container/);
  }
});

test('a caller whose main thread has ended is refused, before and after the pod is known', async (t) => {
  for (const state of ['Z', 'X']) {
    const { attestor, caller, write } = setUp(t, v1('/'));
    write('stat', `${PID} (a) R b) ${state} 1 2 3`);
    await refuses(t, attestor.attest(caller, signal), 'caller_unknown', /main thread of process 4242 has ended/);
  }
  const { attestor, caller, source, write } = setUp(t, IN_POD);
  const attesting = attestor.attest(caller, signal);
  write('stat', `${PID} (a) Z 1 2 3`);
  source.tell('added', podOf());
  await refuses(t, attesting, 'caller_unknown', /main thread of process 4242 has ended/);
});

test('the state of a process is read whatever its command is called', (t) => {
  t.is(stateOf('1 (a) S 1 2'), 'S');
  t.is(stateOf('1 (a) Z 1) R 1 2'), 'R');
  t.is(stateOf('1 () Z 1'), 'Z');
  for (const text of ['', '1 a S', '1 (a)', '1 (a)S 1', '1 (a) SS 1', '1 (a) S']) t.is(stateOf(text), undefined, text);
});

test('a caller that is gone is gone, and an aborted attestation ends with the reason', async (t) => {
  const { attestor } = setUp(t, IN_POD);
  await refuses(t, attestor.attest(callerOf(PID + 1), signal), 'caller_gone', /has ended/);
  const scene = setUp(t, IN_POD);
  const abort = new AbortController();
  const attesting = scene.attestor.attest(scene.caller, abort.signal);
  const reason = new Error('enough');
  abort.abort(reason);
  t.is(await t.throwsAsync(attesting), reason);
});

test('a static pod is its mirror, with the mirror\'s UID and no service account', async (t) => {
  const { source, attestor, caller } = setUp(t, IN_STATIC_POD);
  source.tell('added', mirrorOf('etcd-node-1', 'm-1'));
  const selectors = await attestor.attest(caller, signal);
  t.true(selectors.includes('k8s:pod-uid:m-1'));
  t.true(selectors.includes('k8s:pod-owner:Node:node-1'));
  t.false(selectors.some((selector) => selector.startsWith('k8s:sa:')));
});

test('a static pod with two claimants is refused', async (t) => {
  const { source, attestor, caller, clock } = setUp(t, IN_STATIC_POD);
  source.tell('added', mirrorOf('etcd-node-1', 'm-1'));
  source.tell('added', mirrorOf('forged', 'f-1'));
  const attesting = attestor.attest(caller, signal);
  clock.advance(5_000);
  await refuses(t, attesting, 'caller_unknown', /two pods claim to be the mirror/);
});

test('a second claimant takes all that was attested from the first, until one of them is gone', async (t) => {
  const { source, attestor, caller, changed, index } = setUp(t, IN_STATIC_POD);
  source.tell('added', mirrorOf('forged', 'f-1'));
  await attestor.attest(caller, signal);
  source.tell('added', mirrorOf('etcd-node-1', 'm-1'));
  t.deepEqual(changed, [caller]);
  t.deepEqual(attestor.current(caller), ['k8s:node-name:node-1', `k8s:pod-uid:${HASH}`]);
  source.tell('removed', mirrorOf('forged', 'f-1'));
  t.is(changed.length, 2);
  t.true(attestor.current(caller)?.includes('k8s:pod-name:etcd-node-1'));
  t.is(index.find(HASH)?.uid, 'm-1');
});

test('a claim that is taken back ends the conflict', async (t) => {
  const { source, attestor, caller } = setUp(t, IN_STATIC_POD);
  source.tell('added', mirrorOf('etcd-node-1', 'm-1'));
  await attestor.attest(caller, signal);
  source.tell('added', mirrorOf('forged', 'f-1'));
  source.tell('changed', podOf({ name: 'forged', uid: 'f-1' }));
  t.true(attestor.current(caller)?.includes('k8s:pod-name:etcd-node-1'));
});

test('a mirror that is made again is the new one', async (t) => {
  const { source, attestor, caller, changed } = setUp(t, IN_STATIC_POD);
  source.tell('added', mirrorOf('etcd-node-1', 'm-1'));
  await attestor.attest(caller, signal);
  source.tell('removed', mirrorOf('etcd-node-1', 'm-1'));
  t.deepEqual(changed, []);
  source.tell('added', mirrorOf('etcd-node-1', 'm-2'));
  t.deepEqual(changed, [caller]);
  t.true(attestor.current(caller)?.includes('k8s:pod-uid:m-2'));
});

test('whose share of the limits a process uses is its pod, its user\'s outside containers, and one for all else', (t) => {
  t.is(setUp(t, IN_POD).attestor.ownerOf(PID), `pod:${POD_UID}`);
  t.is(setUp(t, IN_STATIC_POD).attestor.ownerOf(PID), `pod:${HASH}`);
  t.is(setUp(t, v2('/')).attestor.ownerOf(PID), undefined);
  for (const text of [v2(`/docker/${CONTAINER_ID}`), '2:memory:/\n1:name=systemd:/\n', '']) t.is(setUp(t, text).attestor.ownerOf(PID), 'unknown');
  t.is(setUp(t, IN_POD).attestor.ownerOf(PID + 1), 'unknown');
});

test('a process can be described without a connection, whatever it is', (t) => {
  const { source, attestor, write } = setUp(t, IN_POD);
  t.like(attestor.describe(PID), { placement: { kind: 'pod', podUid: POD_UID }, cgroup: [IN_POD.trimEnd()], selectors: [] });
  t.regex(attestor.describe(PID).why, /nobody tells of among the pods of this node/);
  source.tell('added', podOf());
  t.is(attestor.describe(PID).why, 'its cgroup names pod shop/web-1; no status names its container yet');
  source.tell('changed', podOf({ status: running() }));
  const described = attestor.describe(PID);
  t.is(described.why, 'its cgroup names pod shop/web-1, container main');
  t.is(described.container?.name, 'main');
  t.true(described.selectors.includes('k8s:container-name:main'));
  write('cgroup', v2('/init.scope'));
  t.is(attestor.describe(PID).why, 'it is a process of the host, outside any container');
  write('cgroup', v2(`/docker/${CONTAINER_ID}`));
  t.regex(attestor.describe(PID).why, /^it may be in a container: its cgroup "\/docker/);
  write('stat', `${PID} (a) Z 1 2`);
  t.like(attestor.describe(PID), { placement: { kind: 'unclear' }, cgroup: [`0::/docker/${CONTAINER_ID}`] });
  t.regex(attestor.describe(PID).why, /main thread/);
  t.like(attestor.describe(PID + 1), { placement: { kind: 'unclear' }, why: `process ${PID + 1} has ended`, cgroup: [] });
});

test('the whole attestation follows those attestors that change, and lets go of a caller', async (t) => {
  const { source, attestor } = setUp(t, IN_POD);
  const kernel = { hasExited: () => false, effectiveUid: () => undefined } as unknown as Kernel;
  // Its own pid for the check of the process, the scene's for the cgroup.
  const caller = { ...callerOf(process.pid), uid: process.geteuid?.() ?? 0 };
  const inScene = callerOf();
  const followed = {
    name: 'k8s',
    attest: (_: Caller, at: AbortSignal) => attestor.attest(inScene, at),
    current: () => attestor.current(inScene),
    onChange: (listener: (callers: readonly Caller[]) => void) => attestor.onChange(() => listener([caller])),
    forget: () => attestor.forget(inScene),
  };
  const attestation = new Attestation([{ name: 'unix', attest: async () => ['unix:uid:0'] }, followed], kernel);
  const heard: Caller[] = [];
  const stop = attestation.onChange((callers) => heard.push(...callers));
  t.is(attestation.current(caller), undefined);
  source.tell('added', podOf());
  t.deepEqual(await attestation.attest(caller, signal), attestation.current(caller));
  source.tell('changed', podOf({ labels: { a: 'b' } }));
  t.deepEqual(heard, [caller]);
  const now = attestation.current(caller);
  t.true(now?.includes('unix:uid:0') === true && now.includes('k8s:pod-label:a:b'));
  stop();
  source.tell('changed', podOf());
  t.is(heard.length, 1);
  attestation.forget(caller);
  t.is(attestation.current(caller), undefined);
  t.is(attestor.size, 0);
});
