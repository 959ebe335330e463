import test from 'ava';
import { cgroupRootAt, placementOf, type CgroupRoot } from '../../src/attestation/cgroup.ts';
import { SeededRandom } from '../support/kernel-random.ts';
import { CID, FORMS, HOSTILE, NAMESPACED, OTHERS, OTHER_CID, OTHER_UID, OTHER_UID_, OWN_UID, STATIC_UID, UID, UID_, matches, v1, v2 } from './cgroup-fixtures.ts';

const ROUNDS = 30_000;

const sets = { 'a known form': FORMS, 'another cgroup': OTHERS, 'a hostile cgroup': HOSTILE } as const;
for (const [title, fixtures] of Object.entries(sets)) {
  test(`${title} is placed as what it is`, (t) => {
    for (const { name, root, text, expected } of fixtures) {
      const found = placementOf(text, cgroupRootAt(root));
      t.true(matches(found, expected), `${name}: ${JSON.stringify(found)}`);
    }
  });
}

function namespaced(depth: number, path?: string, podUid: string | undefined = OWN_UID): CgroupRoot {
  return { path, depths: new Map([['', depth]]), podUid };
}

test('an agent in a private cgroup namespace places its neighbours by the steps between them', (t) => {
  for (const { name, depth, root, path, expected } of NAMESPACED) {
    const found = placementOf(v2(path), namespaced(depth, root));
    t.true(matches(found, expected), `${name}, root ${root ?? 'not known'}: ${JSON.stringify(found)}`);
  }
});

test('in a private cgroup namespace, outside a pod of a known UID, only paths from the top are believed', (t) => {
  const root = { ...namespaced(4, '/kubepods'), podUid: undefined };
  t.is(placementOf(v2(`/../../pod${UID}/${CID}`), root).kind, 'unclear');
  t.is(placementOf(v2(`/../../../besteffort/pod${UID}/${CID}`), root).kind, 'unclear');
  t.is(placementOf(v2('/'), root).kind, 'unclear');
  t.is(placementOf(v2('/../../../../init.scope'), root).kind, 'outside');
  t.is(placementOf(v2(`/../../../../kubepods/besteffort/pod${UID}/${CID}`), root).kind, 'pod');
});

test('on cgroup v1 each hierarchy has a depth of its own', (t) => {
  const depths = new Map([['memory', 4], ['cpu,cpuacct', 4]]);
  const root: CgroupRoot = { path: '/kubepods', depths, podUid: OWN_UID };
  const text = `3:misc:/\n2:memory:/../../pod${UID}/${CID}\n1:cpu,cpuacct:/../../pod${UID}/${CID}\n`;
  t.deepEqual(placementOf(text, root), { kind: 'pod', podUid: UID, containerId: CID });
  t.is(placementOf(text.replace('misc:/', `misc:/../../pod${UID}/${CID}`), root).kind, 'pod', 'steps up in a line that counts for nothing');
  t.is(placementOf('3:misc:/\n2:memory:/../../../../system.slice/a.service\n1:cpu,cpuacct:/../../../..\n', root).kind, 'outside');
  t.is(placementOf('3:misc:/\n2:memory:/../../../..\n1:cpu,cpuacct:/../../../..\n', root).kind, 'unclear', 'as where the main thread has ended');
});

const PIECES = [
  'kubepods', 'kubepods.slice', 'besteffort', 'burstable', 'guaranteed', 'kubepods-burstable.slice', 'kubepods-besteffort.slice', `pod${UID}`, `pod${OTHER_UID}`, `pod${STATIC_UID}`,
  `kubepods-burstable-pod${UID_}.slice`, `kubepods-pod${OTHER_UID_}.slice`, `kubepods-besteffort-pod${UID_}.slice:cri-containerd:${CID}`, `pod${UID_}`, CID, OTHER_CID, `cri-containerd-${CID}.scope`,
  `crio-${OTHER_CID}.scope`, `crio-conmon-${CID}.scope`, 'docker', 'system.slice', 'web.service', 'user.slice', 'user-1000.slice', 'init.scope', 'container', '..', '.', '', ' (deleted)', 'a:b', 'ä',
] as const;

const BEGINNINGS = ['', '', '/docker', '/kubepods', '/kubepods/burstable', `/kubepods/pod${UID}`, '/kubepods.slice', '/kubepods.slice/kubepods-burstable.slice', `/kubepods.slice/kubepods-pod${OTHER_UID_}.slice`] as const;

/** Written on its own, from the text alone: which pods a line can stand for, given that pods lie directly below `/kubepods*` or a class there. */
function podsUnderRoot(text: string, root: string): Set<string> {
  const pods = new Set<string>();
  for (const line of text.split('\n')) {
    const path = line.slice(line.indexOf(':', line.indexOf(':') + 1) + 1);
    if (!path.startsWith(`${root}/`)) continue;
    const rest = path.slice(root.length + 1);
    const uid = /^(?:[^/]*(?:burstable|besteffort)(?:\.slice)?\/)?(?:[^/]*-)?pod([0-9a-f_-]{32,36})(?=$|\/|\.slice)/.exec(rest)?.[1];
    if (uid !== undefined) pods.add(uid.replaceAll('_', '-'));
  }
  return pods;
}

test('no text ever yields a pod that does not lie under the root, and none with a pod is outside', (t) => {
  const random = new SeededRandom((line) => t.log(line));
  const seen = { pod: 0, outside: 0, unclear: 0 };
  const path = (): string => `${random.pick(BEGINNINGS)}/${Array.from({ length: random.below(6) }, () => random.pick(PIECES)).join('/')}`;
  for (let i = 0; i < ROUNDS; i++) {
    const root = random.pick(['/kubepods', '/kubepods.slice', '/system.slice/containerd.service']);
    const common = path();
    const plain = random.pick([v2(common), v1(common), v1(common, { [random.pick(['', 'memory', 'misc', 'name=x'])]: path() })]);
    const text = random.below(3) === 0 ? random.mutate(plain) : plain;
    const found = placementOf(text, cgroupRootAt(root));
    seen[found.kind] += 1;
    const pods = podsUnderRoot(text, root);
    if (found.kind === 'pod' && !pods.has(found.podUid)) return t.fail(`seed ${random.seed}: ${root} ${JSON.stringify(text)} gave ${found.podUid}`);
    if (found.kind === 'pod' && pods.size > 1) return t.fail(`seed ${random.seed}: ${root} ${JSON.stringify(text)} names two`);
    if (found.kind === 'outside' && /kubepods|[0-9a-f]{64}/.test(text)) return t.fail(`seed ${random.seed}: ${JSON.stringify(text)} is outside`);
  }
  t.true(seen.pod > 40 && seen.outside > 100 && seen.unclear > 300, JSON.stringify(seen));
});

test('in a private cgroup namespace no text yields a pod that its first segments do not name', (t) => {
  const random = new SeededRandom((line) => t.log(line));
  let pods = 0;
  for (let i = 0; i < ROUNDS; i++) {
    const up = random.below(6);
    const segments = Array.from({ length: random.below(5) }, () => random.pick(PIECES)).filter((piece) => piece !== '..');
    const text = v2(`/${[...Array.from({ length: up }, () => '..'), ...segments].join('/')}`);
    const depth = 2 + random.below(4);
    const root = random.pick([undefined, undefined, '/kubepods.slice', '/a/kubepods']);
    const found = placementOf(text, namespaced(depth, root));
    if (found.kind !== 'pod') continue;
    pods += 1;
    const named = segments.slice(0, 2).some((segment) => segment.replaceAll('_', '-').includes(found.podUid));
    const isOwn = found.podUid === OWN_UID && up <= 1;
    // From the top a path is judged as in the host's namespace.
    if (up === depth && root !== undefined && podsUnderRoot(text.replaceAll('/..', ''), root).has(found.podUid)) continue;
    if (up >= depth || !(named || isOwn)) return t.fail(`seed ${random.seed}: depth ${depth}: ${text} gave ${found.podUid}`);
  }
  t.true(pods > 100, String(pods));
});
