import type { Placement } from '../../src/attestation/cgroup.ts';

export const UID = '2c48913c-b29f-11e7-9350-020968147796';
export const UID_ = UID.replaceAll('-', '_');
export const OTHER_UID = 'ffffffff-b29f-11e7-9350-020968147796';
export const OTHER_UID_ = OTHER_UID.replaceAll('-', '_');
export const CID = '9bca8d63d5fa610783847915bcff0ecac1273e5b4bed3f6fa1b07350e0135961';
export const OTHER_CID = '0123456789abcdef'.repeat(4);
export const STATIC_UID = '4a1f8c0b2d3e4f5061728394a5b6c7d8';

/** A placement, with `unclear` by its reason. */
export type Expected = { kind: 'pod'; podUid: string; containerId: string | undefined } | { kind: 'outside' } | { kind: 'unclear'; why: RegExp };

export interface Fixture {
  readonly name: string;
  readonly root: string;
  readonly text: string;
  readonly expected: Expected;
}

export const POD: Expected = { kind: 'pod', podUid: UID, containerId: CID };
export const OUTSIDE: Expected = { kind: 'outside' };

export function unclear(why: RegExp): Expected {
  return { kind: 'unclear', why };
}

export function matches(found: Placement, expected: Expected): boolean {
  if (found.kind !== expected.kind) return false;
  if (found.kind === 'unclear') return expected.kind === 'unclear' && expected.why.test(found.why);
  if (found.kind === 'pod') return expected.kind === 'pod' && found.podUid === expected.podUid && found.containerId === expected.containerId;
  return true;
}

/** cgroup v2. */
export function v2(path: string): string {
  return `0::${path}\n`;
}

const V1 = ['name=systemd', 'pids', 'blkio', 'freezer', 'devices', 'memory', 'cpuset', 'cpu,cpuacct'];

/** cgroup v1 with the same path everywhere, but for the hierarchies named. */
export function v1(path: string, others: Record<string, string> = {}): string {
  const all = new Map([...V1.map((controllers) => [controllers, path] as const), ...Object.entries(others)]);
  const numbered = [...all].map(([controllers, its], index) => `${controllers === '' ? 0 : all.size - index}:${controllers}:${its}`);
  return `${numbered.join('\n')}\n`;
}

const SLICE = '/kubepods.slice';
const KIND = '/kubelet.slice/kubelet-kubepods.slice';
const DOCKER = `/docker/${OTHER_CID}`;
const NOT_A_CONTAINER = /no container of a known runtime/;
const NOT_A_POD = /below the kubelet's cgroup root, but not that of a pod/;
const SHOWN_NOWHERE = /at "\/" in every hierarchy of cgroup v1/;
const NOT_THE_HOSTS = /neither below the kubelet's cgroup root \S+ nor known to be the host's own/;

function row(name: string, root: string, text: string, expected: Expected): Fixture {
  return { name, root, text, expected };
}

/** Every form that kubelets and runtimes are known to write. */
export const FORMS: readonly Fixture[] = [
  row('cgroupfs, guaranteed, v1', '/kubepods', v1(`/kubepods/pod${UID}/${CID}`), POD),
  row('cgroupfs, burstable, v1', '/kubepods', v1(`/kubepods/burstable/pod${UID}/${CID}`), POD),
  row('cgroupfs, best effort, v2', '/kubepods', v2(`/kubepods/besteffort/pod${UID}/${CID}`), POD),
  row('cgroupfs, a sub-cgroup of the container', '/kubepods', v2(`/kubepods/pod${UID}/${CID}/init.scope`), POD),
  row('cgroupfs, CRI-O', '/kubepods', v2(`/kubepods/burstable/pod${UID}/crio-${CID}`), POD),
  row('cgroupfs, static pod', '/kubepods', v1(`/kubepods/burstable/pod${STATIC_UID}/${CID}`), { kind: 'pod', podUid: STATIC_UID, containerId: CID }),
  row('the pod itself', '/kubepods', v2(`/kubepods/pod${UID}`), { kind: 'pod', podUid: UID, containerId: undefined }),
  row('systemd and Docker', SLICE, v1(`${SLICE}/kubepods-besteffort.slice/kubepods-besteffort-pod${UID_}.slice/docker-${CID}.scope`), POD),
  row('systemd and containerd, colon form', SLICE, v1(`${SLICE}/kubepods-burstable.slice/kubepods-burstable-pod${UID_}.slice:cri-containerd:${CID}`), POD),
  row('systemd and containerd, colon form, guaranteed', SLICE, v2(`${SLICE}/kubepods-pod${UID_}.slice:cri-containerd:${CID}`), POD),
  row('systemd and containerd, scope', SLICE, v2(`${SLICE}/kubepods-burstable.slice/kubepods-burstable-pod${UID_}.slice/cri-containerd-${CID}.scope`), POD),
  row('systemd and containerd, scope, guaranteed', SLICE, v2(`${SLICE}/kubepods-pod${UID_}.slice/cri-containerd-${CID}.scope`), POD),
  row('systemd kubelet, cgroupfs runtime', '/system.slice/containerd.service', v2(`/system.slice/containerd.service/kubepods-burstable-pod${UID_}.slice:cri-containerd:${CID}`), POD),
  row('systemd, static pod', SLICE, v2(`${SLICE}/kubepods-burstable.slice/kubepods-burstable-pod${STATIC_UID}.slice/cri-containerd-${CID}.scope`), { kind: 'pod', podUid: STATIC_UID, containerId: CID }),
  row('CRI-O', SLICE, v2(`${SLICE}/kubepods-besteffort.slice/kubepods-besteffort-pod${UID_}.slice/crio-${CID}.scope`), POD),
  row('CRI-O with crun', SLICE, v2(`${SLICE}/kubepods-besteffort.slice/kubepods-besteffort-pod${UID_}.slice/crio-${CID}.scope/container`), POD),
  row('CRI-O monitor', SLICE, v2(`${SLICE}/kubepods-besteffort.slice/kubepods-besteffort-pod${UID_}.slice/crio-conmon-${CID}.scope`), unclear(/a container's monitor/)),
  row('CRI-O monitor, cgroupfs', '/kubepods', v2(`/kubepods/pod${UID}/crio-conmon-${CID}`), unclear(/a container's monitor/)),
  row('CRI-O and KubeEdge, no UID', SLICE, v2(`/system.slice/crio-${CID}`), unclear(NOT_THE_HOSTS)),
  row('CRI-O and KubeEdge, no UID, scope', SLICE, v2(`/system.slice/crio-${CID}.scope`), unclear(NOT_THE_HOSTS)),
  row('kind, systemd', KIND, v2(`${KIND}/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod${UID_}.slice/cri-containerd-${CID}.scope`), POD),
  row('kind, systemd, guaranteed', KIND, v2(`${KIND}/kubelet-kubepods-pod${UID_}.slice/cri-containerd-${CID}.scope`), POD),
  row('kind, cgroupfs', '/kubelet/kubepods', v1(`/kubelet/kubepods/besteffort/pod${UID}/${CID}`), POD),
  row('kind in Docker without a namespace', `${DOCKER}/kubepods`, v1(`${DOCKER}/kubepods/besteffort/pod${UID}/${CID}`), POD),
  row('kind in Docker, the noise of v2', `${DOCKER}/kubepods`, v1(`${DOCKER}/kubepods/besteffort/pod${UID}/${CID}`, { '': `${DOCKER}/system.slice/containerd.service` }), POD),
  row('kind in Docker, for the agent of the host', '/kubepods', v1(`${DOCKER}/kubepods/besteffort/pod${UID}/${CID}`), unclear(NOT_THE_HOSTS)),
  row('Docker Desktop', '/kubepods/kubepods', v1(`/kubepods/kubepods/besteffort/pod${UID}/${CID}`), POD),
  row('Docker Desktop, with the wrong root', '/kubepods', v1(`/kubepods/kubepods/besteffort/pod${UID}/${CID}`), unclear(NOT_A_POD)),
  row('hybrid, v2 managed too', '/kubepods', v1(`/kubepods/burstable/pod${UID}/${CID}`, { '': `/kubepods/burstable/pod${UID}/${CID}` }), POD),
  row('hybrid, v2 not managed', '/kubepods', v1(`/kubepods/burstable/pod${UID}/${CID}`, { '': '/system.slice/containerd.service' }), POD),
  row('v1 with hierarchies that the runtime does not know', '/kubepods', v1(`/kubepods/pod${UID}/${CID}`, { misc: '/', rdma: '/', 'name=openrc': '/' }), POD),
  row('v2 next to net_cls of v1', '/kubepods', `1:net_cls:/\n${v2(`/kubepods/pod${UID}/${CID}`)}`, POD),
  row('Kata', '/kubepods', v2(`/kubepods/burstable/pod${UID}/kata_${CID}`), unclear(NOT_A_CONTAINER)),
  row('gVisor, in the cgroup of its sandbox', SLICE, v2(`${SLICE}/kubepods-burstable.slice/kubepods-burstable-pod${UID_}.slice/cri-containerd-${CID}.scope`), POD),
];

/** Where a host has its processes, and where other runtimes have theirs. */
export const OTHERS: readonly Fixture[] = [
  ...['/', '/init.scope', '/system.slice/sshd.service', '/system.slice/docker.service', '/system.slice/system-getty.slice/getty@tty1.service',
    '/runtime.slice/containerd.service', '/user.slice', '/user.slice/user-1000.slice/session-3.scope', '/user.slice/user-0.slice/user@0.service/init.scope',
    '/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-terminal-42.scope'].flatMap((path) => [
    row(`the host's ${path}, v2`, SLICE, v2(path), OUTSIDE),
    row(`the host's ${path}, v1`, '/kubepods', v1(path, { '': path, misc: '/', memory: '/' }), path === '/' ? unclear(SHOWN_NOWHERE) : OUTSIDE),
  ]),
  ...[`/docker/${CID}`, `/system.slice/docker-${CID}.scope`, `/machine.slice/libpod-${CID}.scope/container`, '/machine.slice/systemd-nspawn@debian.service/payload',
    '/lxc/web', '/lxc.payload.web/system.slice/sshd.service', `/garden/${UID}`, `/ecs/4a1f8c0b2d3e4f5061728394a5b6c7d8/${CID}`, `/ecstasks.slice/docker-${CID}.scope`,
    `/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-${CID}.scope/container`, '/user.slice/user-1000.slice/user@1000.service/user.slice/podman-42.scope',
    '/system.slice/docker.service/buildkit/x', '/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service/x', `/system.slice/web.service/libpod-payload-${CID}`, '/default/web', '/process_api/web', '/init.scope/web',
    '/system.slice', '/system.slice/web.scope', '/web.service', '/web.slice', '/user.slice/web.service/x', '/kubepods', '/kubepods.slice', `/x/kubepods/pod${UID}/${CID}`, `/system.slice/crio-conmon-${CID}.scope`,
    `/user.slice/user-1000.slice/user@1000.service/kubepods/pod${UID}/${CID}`,
    `/user.slice/user-1000.slice/user@1000.service/kubepods.slice/kubepods-pod${UID_}.slice/cri-containerd-${CID}.scope`,
    `/system.slice/containerd.service/kubepods-burstable-pod${UID_}.slice:cri-containerd:${CID}`].map((path) =>
    row(`no host's ${path}`, '/nowhere', v2(path), unclear(NOT_THE_HOSTS))),
];

/** What an attacker, or an unlucky configuration, may show. */
export const HOSTILE: readonly Fixture[] = [
  row('the victim\'s pod below the own container: the outermost counts', '/kubepods', v1(`/kubepods/burstable/pod${UID}/${CID}/pod${OTHER_UID}/${OTHER_CID}`), POD),
  row('a whole kubelet\'s tree below the own container', '/kubepods', v2(`/kubepods/pod${UID}/${CID}/kubepods/besteffort/pod${OTHER_UID}/${OTHER_CID}`), POD),
  row('slices below the own container', SLICE, v2(`${SLICE}/kubepods-pod${UID_}.slice/cri-containerd-${CID}.scope/kubepods-pod${OTHER_UID_}.slice/cri-containerd-${OTHER_CID}.scope`), POD),
  row('two pods', '/kubepods', v1(`/kubepods/pod${UID}/${CID}`, { memory: `/kubepods/pod${OTHER_UID}/${CID}` }), unclear(/name two containers/)),
  row('two pods, the other in a named hierarchy', '/kubepods', v1(`/kubepods/pod${UID}/${CID}`, { 'name=evil': `/kubepods/pod${OTHER_UID}/${CID}` }), unclear(/name two containers/)),
  row('two containers of a pod', '/kubepods', v1(`/kubepods/pod${UID}/${CID}`, { cpuset: `/kubepods/pod${UID}/${OTHER_CID}` }), unclear(/name two containers/)),
  row('a pod with and without a container', '/kubepods', v1(`/kubepods/pod${UID}/${CID}`, { '': `/kubepods/pod${UID}` }), unclear(/name two containers/)),
  row('one hierarchy of the kubelet at the root', '/kubepods', v1(`/kubepods/pod${UID}/${CID}`, { memory: '/' }), unclear(/but not in "memory"/)),
  row('a pod in one named hierarchy only', '/kubepods', v1('/', { 'name=evil': `/kubepods/pod${UID}/${CID}` }), unclear(/but not in "pids"/)),
  row('a pod in v2 only, on a hybrid machine', '/kubepods', v1('/', { '': `/kubepods/pod${UID}/${CID}` }), unclear(/but not in "pids"/)),
  row('a pod in named hierarchies, and no other', '/kubepods', `1:name=evil:/kubepods/pod${UID}/${CID}\n`, unclear(/only in hierarchies that the kubelet does not use/)),
  row('a container elsewhere in one hierarchy', '/kubepods', v1('/', { pids: `/docker/${CID}` }), unclear(NOT_THE_HOSTS)),
  row('a pod, and a monitor in v2', '/kubepods', v1(`/kubepods/pod${UID}/${CID}`, { '': `/kubepods/pod${UID}/crio-conmon-${CID}` }), unclear(/monitor/)),
  ...[`/kubepods/evil/pod${UID}/${CID}`, `/kubepods/burstable/burstable/pod${UID}/${CID}`, `/kubepods/pod${UID_}/${CID}`, `/kubepods/pod${UID.toUpperCase()}/${CID}`, `/kubepods/xpod${UID}/${CID}`,
    `/kubepods/pod${UID}x/${CID}`, '/kubepods', '/kubepods/burstable', `/kubepods/${CID}`, `/kubepods/guaranteed/pod${UID}/${CID}`, `/kubepods/kubepods-burstable.slice/pod${UID}/${CID}`].map((path) =>
    row(`no pod's ${path}`, '/kubepods', v2(path), unclear(NOT_A_POD))),
  ...[`${SLICE}/kubepods-burstable.slice/kubepods-besteffort-pod${UID_}.slice/crio-${CID}.scope`, `${SLICE}/kubepods-burstable.slice/kubepods-pod${UID_}.slice/crio-${CID}.scope`,
    `${SLICE}/kubepods-burstable-pod${UID_}.slice/crio-${CID}.scope`].map((path) => row(`no pod's ${path}`, SLICE, v2(path), unclear(NOT_A_POD))),
  row('another kubelet\'s slice', SLICE, v2(`${SLICE}/x-kubepods-pod${UID_}.slice/crio-${CID}.scope`), unclear(/in another form/)),
  row('cgroupfs below slices', SLICE, v2(`${SLICE}/burstable/pod${UID}/${CID}`), unclear(/in another form/)),
  ...[CID.slice(1), `${CID}0`, CID.toUpperCase(), `crio-${CID}.scope.scope`, `libpod-${CID}.scope`, 'system.slice'].map((next) =>
    row(`no container's ${next}`, '/kubepods', v2(`/kubepods/pod${UID}/${next}`), unclear(NOT_A_CONTAINER))),
  row('a root that only begins alike', '/kubepods', v2(`/kubepods2/pod${UID}/${CID}`), unclear(NOT_THE_HOSTS)),
  row('a cgroup that was removed', '/kubepods', v2(`/kubepods/pod${UID}/${CID} (deleted)`), unclear(/living cgroup/)),
  row('steps up in the host\'s namespace', '/kubepods', v2(`/../kubepods/pod${UID}/${CID}`), unclear(/leads out of the known hierarchy/)),
  ...[`/kubepods/../kubepods/pod${UID}/${CID}`, `//kubepods/pod${UID}/${CID}`, `/kubepods/./pod${UID}/${CID}`, '/system.slice/../x.service', '/system.slice/x.service/'].map((path) =>
    row(`nobody's ${path}`, '/kubepods', v2(path), unclear(/living cgroup/))),
  ...['', '\n', 'x', '0::', '0::kubepods\n', `:/kubepods/pod${UID}/${CID}\n`, `0::/kubepods/pod${UID}/${CID}\n\n`, `x::/kubepods/pod${UID}/${CID}\n`].map((text) =>
    row(`no cgroup file: ${JSON.stringify(text)}`, '/kubepods', text, unclear(/not of the known form/))),
  row('a colon in a name', '/kubepods', v2(`/kubepods/pod${UID}/${CID}/a:b`), POD),
  row('a colon before the root', '/kubepods', v2(`/x:/kubepods/pod${UID}/${CID}`), unclear(NOT_THE_HOSTS)),
];

export interface NamespaceFixture {
  readonly name: string;
  /** How deep the agent's own container is. */
  readonly depth: number;
  /** As configured. */
  readonly root?: string;
  readonly path: string;
  readonly expected: Expected;
}

export const OWN_UID = '11111111-2222-4333-8444-555555555555';
const OWN: Expected = { kind: 'pod', podUid: OWN_UID, containerId: undefined };
const NOR_THE_HOSTS = /nor known to be the host's own/;
const BESIDE = /beside this agent's own cgroup/;
const NO_PODS_PLACE = /names a pod where the kubelet makes none/;

/** What an agent in a pod with a private cgroup namespace reads. Its own container is `/kubepods.slice/[QoS class/]pod/container`. */
export const NAMESPACED: readonly NamespaceFixture[] = [
  ...[undefined, SLICE].flatMap((root) => {
    const at = (name: string, depth: number, path: string, expected: Expected): NamespaceFixture => ({ name, depth, path, expected, ...(root === undefined ? {} : { root }) });
    return [
      at('the agent itself', 4, '/', OWN),
      at('a sub-cgroup of the agent', 4, `/pod${UID}/${CID}`, OWN),
      at('another container of the agent\'s pod', 4, `/../cri-containerd-${CID}.scope`, { ...OWN, containerId: CID }),
      at('hostile: a pod in another container of the agent\'s pod', 4, `/../cri-containerd-${CID}.scope/kubepods-pod${UID_}.slice/cri-containerd-${CID}.scope`, { ...OWN, containerId: CID }),
      at('a pod of the same class', 4, `/../../kubepods-burstable-pod${UID_}.slice/cri-containerd-${CID}.scope`, POD),
      at('a pod of the same class, hostile below', 4, `/../../kubepods-burstable-pod${UID_}.slice/cri-containerd-${CID}.scope/kubepods-pod${OTHER_UID_}.slice`, POD),
      at('a pod of another class', 4, `/../../../kubepods-besteffort.slice/kubepods-besteffort-pod${UID_}.slice/cri-containerd-${CID}.scope`, POD),
      at('a guaranteed pod', 4, `/../../../kubepods-pod${UID_}.slice/cri-containerd-${CID}.scope`, POD),
      at('a guaranteed pod from a guaranteed one', 3, `/../../kubepods-pod${UID_}.slice/crio-${CID}.scope`, POD),
      at('a burstable pod from a guaranteed one', 3, `/../../kubepods-burstable.slice/kubepods-burstable-pod${UID_}.slice/crio-${CID}.scope`, POD),
      at('a service of the host', 4, '/../../../../system.slice/sshd.service', OUTSIDE),
      at('the root of the host', 4, '/../../../..', OUTSIDE),
      at('hostile: a delegated slice with a kubelet\'s tree', 4, `/../../../../user.slice/user-1000.slice/user@1000.service/kubepods.slice/kubepods-pod${UID_}.slice/crio-${CID}.scope`, unclear(NOR_THE_HOSTS)),
      at('hostile: a pod at the top', 4, `/../../../../kubepods-pod${UID_}.slice/crio-${CID}.scope`, unclear(NOR_THE_HOSTS)),
      at('a container at the top', 4, `/../../../../docker/${CID}`, unclear(NOR_THE_HOSTS)),
      at('more steps than there are', 4, '/../../../../../system.slice/sshd.service', unclear(/leads out/)),
      at('hostile: a pod in the agent\'s own pod', 4, `/../kubepods-burstable-pod${UID_}.slice/cri-containerd-${CID}.scope`, unclear(NO_PODS_PLACE)),
      at('a monitor in the agent\'s own pod', 4, `/../crio-conmon-${CID}.scope`, unclear(BESIDE)),
      at('an unknown thing in the QoS class', 4, '/../../web.service', unclear(BESIDE)),
      at('the QoS class itself', 4, '/../..', unclear(BESIDE)),
    ];
  }),
  { name: 'kind: a pod of the same class', depth: 5, path: `/../../kubelet-kubepods-besteffort-pod${UID_}.slice/cri-containerd-${CID}.scope`, expected: POD },
  { name: 'kind: a pod of another class', depth: 5, path: `/../../../kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod${UID_}.slice/cri-containerd-${CID}.scope`, expected: POD },
  { name: 'kind: its kubelet', depth: 5, path: '/../../../../kubelet.service', expected: unclear(BESIDE) },
  { name: 'kind: its kubelet, root configured', depth: 5, root: KIND, path: '/../../../../kubelet.service', expected: OUTSIDE },
  { name: 'cgroupfs: a pod of the same class', depth: 4, path: `/../../pod${UID}/${CID}`, expected: POD },
  { name: 'cgroupfs: a pod of another class', depth: 4, path: `/../../../besteffort/pod${UID}/${CID}`, expected: POD },
  { name: 'cgroupfs: a container of the own pod', depth: 4, path: `/../${CID}`, expected: { ...OWN, containerId: CID } as Expected },
  { name: 'colon form: a pod of the same class', depth: 3, path: `/../kubepods-burstable-pod${UID_}.slice:cri-containerd:${CID}`, expected: POD },
  { name: 'an agent in a sub-cgroup of its container (crun)', depth: 5, path: `/../../../../kubepods-pod${UID_}.slice/crio-${CID}.scope/container`, expected: POD },
  { name: 'a class that is not the pod\'s', depth: 4, path: `/../../../kubepods-besteffort.slice/kubepods-burstable-pod${UID_}.slice/crio-${CID}.scope`, expected: unclear(BESIDE) },
];
