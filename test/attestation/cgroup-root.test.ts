import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { learnCgroupRoot, type CgroupRootOptions } from '../../src/attestation/cgroup-root.ts';
import { placementOf, type CgroupRoot } from '../../src/attestation/cgroup.ts';
import { SignetError, type ErrorCode } from '../../src/errors.ts';
import { temporaryDirectory } from '../support/kernel-processes.ts';
import { CID, OTHER_CID, OTHER_UID, STATIC_UID, UID, UID_, v1, v2 } from './cgroup-fixtures.ts';

interface Machine {
  readonly own: string;
  readonly init?: string;
  /** Cgroups that are there. */
  readonly cgroups?: readonly string[];
}

function learn(t: ExecutionContext, { own, init = v2('/init.scope'), cgroups = [] }: Machine, options: CgroupRootOptions = {}): CgroupRoot {
  const procRoot = temporaryDirectory(t);
  const cgroupMount = temporaryDirectory(t);
  for (const [pid, text] of [['self', own], ['1', init]] as const) {
    mkdirSync(join(procRoot, pid));
    writeFileSync(join(procRoot, pid, 'cgroup'), text);
  }
  for (const path of cgroups) mkdirSync(join(cgroupMount, path), { recursive: true });
  return learnCgroupRoot({ procRoot, cgroupMount, ...options });
}

function refuses(t: ExecutionContext, machine: Machine, options: CgroupRootOptions, message: RegExp, code: ErrorCode = 'invalid_config'): void {
  const error = t.throws(() => learn(t, machine, options), { instanceOf: SignetError });
  t.is(error?.code, code);
  t.regex(error?.message ?? '', message);
}

test('the root is learnt from the agent\'s own pod, whatever the form', (t) => {
  const forms: readonly (readonly [string, string])[] = [
    [v1(`/kubepods/burstable/pod${UID}/${CID}`), '/kubepods'],
    [v2(`/kubepods/pod${UID}/${CID}`), '/kubepods'],
    [v1(`/kubepods/kubepods/besteffort/pod${UID}/${CID}`), '/kubepods/kubepods'],
    [v1(`/docker/${OTHER_CID}/kubepods/besteffort/pod${UID}/${CID}`, { '': `/docker/${OTHER_CID}/system.slice/containerd.service` }), `/docker/${OTHER_CID}/kubepods`],
    [v2(`/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${UID_}.slice/cri-containerd-${CID}.scope`), '/kubepods.slice'],
    [v2(`/kubepods.slice/kubepods-pod${UID_}.slice/crio-${CID}.scope/container`), '/kubepods.slice'],
    [v2(`/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod${UID_}.slice/cri-containerd-${CID}.scope`), '/kubelet.slice/kubelet-kubepods.slice'],
    [v2(`/system.slice/containerd.service/kubepods-burstable-pod${UID_}.slice:cri-containerd:${CID}`), '/system.slice/containerd.service'],
    [v2(`/kubepods/pod${OTHER_UID}/${OTHER_CID}/kubepods/pod${UID}/${CID}`), `/kubepods/pod${OTHER_UID}/${OTHER_CID}/kubepods`],
  ];
  for (const [own, path] of forms) t.is(learn(t, { own }, { podUid: UID }).path, path, own);
  t.is(learn(t, { own: v1(`/kubepods/burstable/pod${STATIC_UID}/${CID}`) }, { podUid: STATIC_UID }).path, '/kubepods');
});

test('a configured root is taken, and must be true of the agent\'s own pod', (t) => {
  const own = v2(`/kubepods/burstable/pod${UID}/${CID}`);
  t.is(learn(t, { own }, { podUid: UID, configured: '/kubepods' }).path, '/kubepods');
  t.is(learn(t, { own: v2('/system.slice/signet.service') }, { configured: '/some/where' }).path, '/some/where');
  refuses(t, { own }, { podUid: UID, configured: '/kubepods.slice' }, /runs in pod .*, but its cgroup does not say so below \/kubepods\.slice: .*; set attestation\.kubernetes\.cgroupRoot/);
  refuses(t, { own }, { podUid: OTHER_UID, configured: '/kubepods' }, new RegExp(`it names pod ${UID}`));
  for (const configured of ['', '/', 'kubepods', '/kubepods/', '//kubepods', '/a/../b', '/a/./b', '/a\nb']) {
    refuses(t, { own }, { podUid: UID, configured }, /an absolute path without a slash at its end/);
  }
});

test('in a private cgroup namespace the depth is that of process 1, and the path stays unknown unless configured', (t) => {
  const burstable = learn(t, { own: v2('/'), init: v2('/../../../../init.scope') }, { podUid: UID });
  t.deepEqual(burstable, { path: undefined, depths: new Map([['', 4]]), podUid: UID });
  t.deepEqual(placementOf(v2(`/../../kubepods-burstable-pod${OTHER_UID.replaceAll('-', '_')}.slice/crio-${CID}.scope`), burstable), { kind: 'pod', podUid: OTHER_UID, containerId: CID });
  const configured = learn(t, { own: v2('/'), init: v2('/../../..') }, { podUid: UID, configured: '/kubepods' });
  t.deepEqual(configured, { path: '/kubepods', depths: new Map([['', 3]]), podUid: UID });
  const both = learn(t, { own: v1('/', { misc: '/' }), init: v1('/../../../..', { misc: '/' }) }, { podUid: UID });
  t.is(both.depths.get('memory'), 4);
  t.is(both.depths.get('misc'), 0);
  refuses(t, { own: v2('/'), init: v2('/../..') }, { podUid: UID, configured: '/a/b' }, /its cgroup does not say so below \/a\/b/);
});

test('a pod without hostPID, or without its UID, is told what it lacks', (t) => {
  const hostPid = /hostPID: true, and POD_UID from metadata\.uid/;
  refuses(t, { own: v2('/'), init: v2('/') }, { podUid: UID }, hostPid);
  refuses(t, { own: v2('/'), init: v2(`/../${CID}`) }, { podUid: UID }, hostPid);
  refuses(t, { own: v2('/'), init: v2(`/../cri-containerd-${CID}.scope`) }, { podUid: UID }, hostPid);
  refuses(t, { own: v2(`/kubepods/pod${UID}/${CID}`), init: v2(`/kubepods/pod${UID}/${OTHER_CID}`) }, { podUid: UID }, hostPid);
  refuses(t, { own: v2('/'), init: v2('/../../../../init.scope') }, {}, hostPid);
  refuses(t, { own: v2('/'), init: v2('/../../../../init.scope') }, { configured: '/kubepods.slice' }, hostPid);
  refuses(t, { own: v2(`/kubepods/pod${UID}/${CID}`) }, { podUid: OTHER_UID }, /does not name its pod/);
  refuses(t, { own: v1(`/a/pod${UID}/${CID}`, { memory: `/b/pod${UID}/${CID}` }) }, { podUid: UID }, /names its pod below \/a and \/b/);
});

test('a process of the host looks in the usual places, and asks for the root unless there is exactly one', (t) => {
  const own = v2('/system.slice/signet.service');
  for (const path of ['/kubepods', '/kubepods.slice', '/kubelet/kubepods', '/kubelet.slice/kubelet-kubepods.slice']) {
    t.is(learn(t, { own, cgroups: [path] }).path, path);
    t.is(learn(t, { own, cgroups: [`memory${path}`, `pids${path}`, `elsewhere/kubepods`] }).path, path);
  }
  refuses(t, { own }, {}, /none of \/kubepods\.slice, .* is there; set attestation\.kubernetes\.cgroupRoot/);
  refuses(t, { own, cgroups: ['kubepods', 'kubepods.slice'] }, {}, /\/kubepods\.slice and \/kubepods are there/);
});

test('a /proc that cannot be read, or says something else, is told', (t) => {
  refuses(t, { own: 'x' }, {}, /self\/cgroup is not of the known form: "x"/, 'unavailable');
  t.is(t.throws(() => learnCgroupRoot({ procRoot: temporaryDirectory(t) }), { instanceOf: SignetError })?.code, 'unavailable');
});
