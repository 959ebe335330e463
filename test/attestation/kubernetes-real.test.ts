/** Attestation by pod with real cgroups, real processes and the real kernel. Only the list of pods is made by hand. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { Attestation } from '../../src/attestation/attestor.ts';
import { identifyCaller, releaseCaller, type Caller } from '../../src/attestation/caller.ts';
import { cgroupRootAt, placementOf } from '../../src/attestation/cgroup.ts';
import { KubernetesAttestor } from '../../src/attestation/kubernetes.ts';
import { stateOf } from '../../src/attestation/placement.ts';
import { UnixAttestor } from '../../src/attestation/unix.ts';
import { SystemClock } from '../../src/clock.ts';
import { SignetError, type ErrorCode } from '../../src/errors.ts';
import { PodIndex } from '../../src/kubernetes/pod-index.ts';
import { podTrim, type Pod } from '../../src/kubernetes/pod.ts';
import { descriptorOf, openKernel } from '../../src/kernel.ts';
import { testIf } from '../support/kernel-conditions.ts';
import { TestListener, TestProcess, startPeer, supportFile, temporaryDirectory, until } from '../support/kernel-processes.ts';
import { CONTAINER_ID, rawPod, running } from '../support/kubernetes-pods.ts';
import { CID, OTHER_CID, OTHER_UID, OWN_UID, UID } from './cgroup-fixtures.ts';
import { RealCgroups, hierarchies, needsCgroups, type Hierarchy } from '../support/real-cgroups.ts';

const kernel = openKernel();
const clock = new SystemClock();
const { signal } = new AbortController();
const NODE = 'node-1';

const can = (...command: [string, ...string[]]): boolean => needsCgroups[0] && spawnSync(command[0], command.slice(1)).status === 0;
const needsCgroupNamespace = [can('unshare', '--cgroup', 'true'), needsCgroups[0] ? 'needs unshare --cgroup' : needsCgroups[1]] as const;
const needsBindMounts = [can('unshare', '--user', '--map-root-user', '--mount', 'true'), needsCgroups[0] ? 'needs unshare --user --mount' : needsCgroups[1]] as const;
const usesV1 = typeof hierarchies !== 'string' && hierarchies.some(({ controllers }) => controllers === 'memory');
const needsV1 = [usesV1, needsCgroups[0] ? 'needs cgroup v1' : needsCgroups[1]] as const;

const ownFile = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

interface Scene {
  readonly cgroups: RealCgroups;
  readonly attestor: KubernetesAttestor;
  readonly listener: TestListener;
  /** `<root>/burstable/pod<uid>/<container ID>` */
  readonly container: string;
  readonly victim: string;
}

async function setUp(t: ExecutionContext): Promise<Scene> {
  const cgroups = new RealCgroups(t);
  const trim = podTrim();
  const pods = [
    trim(rawPod({ uid: UID, name: 'web-1', namespace: 'shop', spec: { nodeName: NODE }, status: running(CID) })),
    trim(rawPod({ uid: OTHER_UID, name: 'victim', namespace: 'bank', spec: { nodeName: NODE, serviceAccountName: 'vault' } })),
  ] as Pod[];
  const source = { synced: true, lastContact: 0, items: () => pods, onChange: () => () => undefined, nudge: () => undefined };
  const index = new PodIndex({ source, clock });
  const attestor = new KubernetesAttestor({ pods: index, root: cgroupRootAt(cgroups.root), nodeName: NODE, podTimeoutMs: 200 });
  t.teardown(() => (attestor.close(), index.close()));
  const listener = await TestListener.open(t);
  const container = `${cgroups.root}/burstable/pod${UID}/${CID}`;
  return { cgroups, attestor, listener, container, victim: `${cgroups.root}/burstable/pod${OTHER_UID}/${OTHER_CID}` };
}

async function identified(t: ExecutionContext, { listener, attestor }: Scene): Promise<Caller> {
  const caller = identifyCaller(kernel, descriptorOf(await listener.next()), 1, undefined, (pid) => attestor.ownerOf(pid));
  t.teardown(() => releaseCaller(kernel, caller));
  return caller;
}

/** A peer that is moved before it is accepted, as a container's first process is before it runs. */
async function peerIn(t: ExecutionContext, scene: Scene, path: string, uid?: number): Promise<{ peer: TestProcess; caller: Caller }> {
  const peer = await startPeer(t, { socket: scene.listener.path, ...(uid === undefined ? {} : { uid, gid: uid, groups: [] }) });
  scene.cgroups.enter(path, peer.pid);
  return { peer, caller: await identified(t, scene) };
}

function attestationOf({ attestor }: Scene): Attestation {
  return new Attestation([new UnixAttestor({ clock }), attestor], kernel);
}

async function refuses(t: ExecutionContext, scene: Scene, caller: Caller, code: ErrorCode, message: RegExp): Promise<void> {
  const error = await t.throwsAsync(attestationOf(scene).attest(caller, signal), { instanceOf: SignetError });
  t.is(error?.code, code, error?.message);
  t.regex(error?.message ?? '', message);
}

function assertOwnPod(t: ExecutionContext, selectors: readonly string[]): void {
  t.true(selectors.includes('k8s:ns:shop') && selectors.includes('k8s:sa:web') && selectors.includes('k8s:container-name:main'), selectors.join());
  t.false(selectors.some((selector) => /bank|victim|vault/.test(selector)));
}

testIf(needsCgroups, 'a process in a pod is attested as that pod and container, and uses the pod\'s share of the limits', async (t) => {
  const scene = await setUp(t);
  const { peer, caller } = await peerIn(t, scene, scene.container);
  t.is(caller.owner, `pod:${UID}`);
  const selectors = await attestationOf(scene).attest(caller, signal);
  assertOwnPod(t, selectors);
  t.true(selectors.includes('unix:uid:0'), 'a container\'s root is root to the kernel');
  const described = scene.attestor.describe(peer.pid);
  t.is(described.why, 'its cgroup names pod shop/web-1, container main');
  t.true(described.cgroup.some((line) => line.endsWith(scene.container)));
});

testIf(needsV1, 'a process at the root of all hierarchies is nobody\'s: a thread whose main thread has ended is shown there too', async (t) => {
  const scene = await setUp(t);
  const { caller } = await peerIn(t, scene, '/');
  t.is(caller.owner, 'unknown');
  await refuses(t, scene, caller, 'caller_unknown', /it is at "\/" in every hierarchy of cgroup v1/);
});

testIf(needsCgroups, 'a service of the host is outside', async (t) => {
  const scene = await setUp(t);
  const { peer, caller } = await peerIn(t, scene, `/signet-test-${scene.cgroups.root.slice(-8)}.slice/signet-test.service`);
  t.is(caller.owner, 'uid:0');
  t.false((await attestationOf(scene).attest(caller, signal)).some((selector) => selector.startsWith('k8s:')));
  t.is(scene.attestor.describe(peer.pid).placement.kind, 'outside');
});

testIf(needsCgroups, 'a kubelet\'s whole tree in a delegated slice is no pod', async (t) => {
  const scene = await setUp(t);
  const slice = `/signet-user-${scene.cgroups.root.slice(-8)}`;
  const { caller } = await peerIn(t, scene, `${slice}${scene.victim}`);
  t.is(caller.owner, 'unknown');
  await refuses(t, scene, caller, 'caller_unknown', /neither below the kubelet's cgroup root/);
});

testIf(needsCgroups, 'sub-cgroups of a container that are called like another pod change nothing', async (t) => {
  const scene = await setUp(t);
  const below = [`/pod${OTHER_UID}/${OTHER_CID}`, `${scene.victim}`, '/burstable/x', '/init.scope'];
  for (const path of below) {
    const { caller } = await peerIn(t, scene, `${scene.container}${path}`);
    assertOwnPod(t, await attestationOf(scene).attest(caller, signal));
  }
});

testIf(needsV1, 'a process that is in another pod in one hierarchy alone is refused, whichever it is', async (t) => {
  const scene = await setUp(t);
  for (const { controllers } of hierarchies as readonly Hierarchy[]) {
    const { peer, caller } = await peerIn(t, scene, scene.container);
    scene.cgroups.enter(scene.victim, peer.pid, (one) => one.controllers === controllers);
    await refuses(t, scene, caller, 'caller_unknown', /its cgroups name two containers/);
    await peer.stop();
  }
});

testIf(needsV1, 'a process of the host that moves into a pod in one hierarchy alone is refused', async (t) => {
  const scene = await setUp(t);
  for (const { controllers } of hierarchies as readonly Hierarchy[]) {
    const { peer, caller } = await peerIn(t, scene, '/');
    scene.cgroups.enter(scene.victim, peer.pid, (one) => one.controllers === controllers);
    await refuses(t, scene, caller, 'caller_unknown', /in pod .* in some hierarchies, but not in/);
    await peer.stop();
  }
});

testIf(needsV1, 'a container that leaves its pod in one hierarchy of the kubelet is refused, in another one stays its pod', async (t) => {
  const scene = await setUp(t);
  const outcomes = new Map<string, string>();
  for (const { controllers } of hierarchies as readonly Hierarchy[]) {
    const { peer, caller } = await peerIn(t, scene, scene.container);
    scene.cgroups.enter('/', peer.pid, (one) => one.controllers === controllers);
    const outcome = await attestationOf(scene).attest(caller, signal).then((found) => (assertOwnPod(t, found), 'its pod'), (error: SignetError) => error.code);
    outcomes.set(controllers, outcome);
    await peer.stop();
  }
  const isKubelets = (controllers: string): boolean => controllers.split(',').some((one) => ['cpu', 'cpuacct', 'cpuset', 'memory', 'pids'].includes(one));
  for (const [controllers, outcome] of outcomes) t.is(outcome, isKubelets(controllers) ? 'caller_unknown' : 'its pod', `"${controllers}"`);
});

testIf(needsCgroups, 'a process that forks and exits leaves nothing to its child, wherever that one is', async (t) => {
  const scene = await setUp(t);
  const { peer, caller } = await peerIn(t, scene, scene.container);
  const [, heir = ''] = (await peer.ask('pass')).split(' ');
  scene.cgroups.enter(scene.victim, Number(heir));
  await peer.exited;
  await refuses(t, scene, caller, 'caller_gone', /has ended/);
});

testIf(needsCgroups, 'a socket that was passed to another pod is its opener\'s, and ends with the opener', async (t) => {
  const scene = await setUp(t);
  const peer = new TestProcess(t, process.execPath, [ownFile('sharing-peer.ts'), scene.listener.path]);
  const heir = Number(await peer.line());
  scene.cgroups.enter(scene.container, peer.pid);
  scene.cgroups.enter(scene.victim, heir);
  const caller = await identified(t, scene);
  assertOwnPod(t, await attestationOf(scene).attest(caller, signal));
  peer.child.kill('SIGKILL');
  await peer.exited;
  t.is(spawnSync('kill', ['-0', String(heir)]).status, 0, 'the other process still has the socket');
  await refuses(t, scene, caller, 'caller_gone', /has ended/);
});

testIf(needsCgroups, 'what was attested of a connection does not follow a process that root moves', async (t) => {
  const scene = await setUp(t);
  const { peer, caller } = await peerIn(t, scene, scene.container);
  assertOwnPod(t, await attestationOf(scene).attest(caller, signal));
  scene.cgroups.enter(scene.victim, peer.pid);
  assertOwnPod(t, scene.attestor.current(caller) ?? []);
});

testIf(needsCgroupNamespace, 'a cgroup namespace of the caller\'s own changes nothing', async (t) => {
  const scene = await setUp(t);
  const script = `read go; exec unshare --cgroup "$0" "$1" "$2"`;
  const peer = new TestProcess(t, 'sh', ['-c', script, process.execPath, supportFile('kernel-peer.ts'), JSON.stringify({ socket: scene.listener.path })]);
  scene.cgroups.enter(`${scene.container}/pod${OTHER_UID}`, peer.pid);
  t.is(await peer.ask('go'), 'connected');
  const caller = await identified(t, scene);
  t.is(caller.owner, `pod:${UID}`);
  assertOwnPod(t, await attestationOf(scene).attest(caller, signal));
});

testIf(needsBindMounts, 'cgroups that are mounted elsewhere in a namespace of the caller\'s own change nothing: mounts are never read', async (t) => {
  const scene = await setUp(t);
  const [hierarchy] = hierarchies as readonly Hierarchy[];
  const mount = hierarchy?.mount ?? '';
  const victim = scene.cgroups.make(hierarchy as Hierarchy, scene.victim);
  const script = 'read go; mount --bind "$3" "$4" && grep -q " $4 " /proc/self/mountinfo && exec "$0" "$1" "$2"';
  const target = temporaryDirectory(t);
  const inside = ['sh', '-c', script, process.execPath, supportFile('kernel-peer.ts'), JSON.stringify({ socket: scene.listener.path }), victim, target];
  const peer = new TestProcess(t, 'unshare', ['--user', '--map-root-user', '--mount', ...inside]);
  scene.cgroups.enter(scene.container, peer.pid);
  t.is(await peer.ask('go'), 'connected');
  t.true(readFileSync(`/proc/${peer.pid}/mountinfo`, 'utf8').includes(`pod${OTHER_UID}`), `the victim's cgroup is mounted from ${mount}`);
  assertOwnPod(t, await attestationOf(scene).attest(await identified(t, scene), signal));
});

testIf(needsCgroups, 'a process whose main thread has ended is refused while another thread holds the connection', async (t) => {
  const scene = await setUp(t);
  const script = ownFile('zombie-leader.ts');
  const peer = new TestProcess(t, process.execPath, [script, scene.listener.path]);
  await peer.line();
  scene.cgroups.enter(scene.container, peer.pid);
  const caller = await identified(t, scene);
  assertOwnPod(t, await attestationOf(scene).attest(caller, signal));
  peer.tell('');
  await until(() => stateOf(readFileSync(`/proc/${peer.pid}/stat`, 'latin1')) === 'Z', 'the main thread ends');
  t.false(kernel.hasExited(caller.pidfd), 'other threads go on');
  const text = readFileSync(`/proc/${peer.pid}/cgroup`, 'latin1');
  const shown = placementOf(text, cgroupRootAt(scene.cgroups.root)).kind;
  t.log(`such a process is shown as: ${shown}`);
  await refuses(t, scene, caller, 'caller_unknown', /main thread of process \d+ has ended/);
  t.is(scene.attestor.describe(peer.pid).placement.kind, 'unclear');
});

testIf(needsCgroupNamespace, 'an agent in a private cgroup namespace places its neighbours, with and without a configured root', async (t) => {
  const scene = await setUp(t);
  const { root } = scene.cgroups;
  const others = { same: scene.container, guaranteed: `${root}/pod${OTHER_UID}/${OTHER_CID}`, nested: `${scene.container}/pod${OTHER_UID}/${OTHER_CID}`, outside: `/signet-host-${root.slice(-8)}.slice/a.service`,
    delegated: `/signet-user-${root.slice(-8)}/pod${OTHER_UID}/${OTHER_CID}`, odd: `${root}/burstable/x`, other: `${root}/besteffort/pod${UID}/${CID}` };
  const pids: string[] = [];
  for (const path of Object.values(others)) {
    const child = new TestProcess(t, 'cat', []);
    scene.cgroups.enter(path, child.pid);
    pids.push(String(child.pid));
  }
  const script = ownFile('namespaced-reader.ts');
  for (const configured of ['', root]) {
    const reader = new TestProcess(t, 'sh', ['-c', 'read go; exec unshare --cgroup "$@"', 'sh', process.execPath, script, OWN_UID, configured, ...pids]);
    scene.cgroups.enter(`${root}/burstable/pod${OWN_UID}/${CONTAINER_ID}`, reader.pid);
    const answer = JSON.parse(await reader.ask('go')) as { path: string | null; depths: [string, number][]; placements: { kind: string; podUid?: string; containerId?: string }[] };
    t.is(answer.path, configured === '' ? null : root);
    t.true(answer.depths.every(([, depth]) => depth === 4), JSON.stringify(answer.depths));
    const [same, guaranteed, nested, outside, delegated, odd, other] = answer.placements;
    const own = { kind: 'pod', podUid: UID, containerId: CID };
    t.deepEqual([same, nested, other], [own, own, own]);
    t.deepEqual(guaranteed, { kind: 'pod', podUid: OTHER_UID, containerId: OTHER_CID });
    t.deepEqual([outside, delegated, odd].map((one) => one?.kind), ['outside', 'unclear', 'unclear'], JSON.stringify(answer));
  }
});
