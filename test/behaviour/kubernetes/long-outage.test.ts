import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Caller } from '../../../src/attestation/caller.ts';
import { cgroupRootAt } from '../../../src/attestation/cgroup.ts';
import { KubernetesAttestor } from '../../../src/attestation/kubernetes.ts';
import { EventBus } from '../../../src/events.ts';
import { Entitlements } from '../../../src/identity/entitlements.ts';
import { PodIndex, type PodSource } from '../../../src/kubernetes/pod-index.ts';
import { podTrim, type Pod } from '../../../src/kubernetes/pod.ts';
import type { ChangeListener } from '../../../src/kubernetes/store.ts';
import { PodRegistry } from '../../../src/registration/pod-registry.ts';
import { parseTrustDomain } from '../../../src/spiffe/id.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { temporaryDirectory } from '../../support/kernel-processes.ts';
import { CONTAINER_ID, POD_UID, rawPod } from '../../support/kubernetes-pods.ts';
import { settle, testEntry } from '../../support/signers.ts';

const WEB = 'spiffe://example.org/ns/shop/sa/web';
const HOUR_MS = 3_600_000;
const POD = podTrim()(rawPod()) as Pod;

/** Everything between the list of pods and what a stream is told, by a clock that is moved by hand. */
function setUp(t: ExecutionContext) {
  const procRoot = temporaryDirectory(t);
  mkdirSync(join(procRoot, '7'));
  writeFileSync(join(procRoot, '7', 'stat'), '7 (x) S 1 1 1');
  writeFileSync(join(procRoot, '7', 'cgroup'), `0::/kubepods/burstable/pod${POD_UID}/${CONTAINER_ID}\n`);
  const clock = new FakeClock();
  let tell: ChangeListener<Pod> = () => undefined;
  // Synced once, which stays true in an outage.
  const source: PodSource = {
    synced: true,
    lastContact: 0,
    items: () => [],
    onChange: (listener) => ((tell = listener), () => undefined),
    nudge: () => undefined,
  };
  const pods = new PodIndex({ source, clock, lookup: async () => [POD] });
  const none = { synced: true, items: () => [] };
  const view = {
    pods,
    spiffeIds: none,
    staticEntries: none,
    node: undefined,
    knowsRules: true,
    isSynced: true,
    namespaceLabels: () => undefined,
    need: () => undefined,
    onChange: () => () => undefined,
  };
  const template = '/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}';
  const options = {
    trustDomain: parseTrustDomain('example.org'),
    clusterName: 'c',
    clusterDomain: 'cluster.local',
    withdrawalDelayMs: 10_000,
    excludeNamespaces: [],
    className: '',
    watchClassless: true,
    defaultRule: { enabled: true, template, namespaces: [] },
  };
  const registry = new PodRegistry([], options, view, clock, new EventBus());
  const attestor = new KubernetesAttestor({ pods, root: cgroupRootAt('/kubepods'), nodeName: 'node-1', procRoot });
  const entitlements = new Entitlements<Caller>(attestor, registry, clock, { timeoutMs: 20_000 });
  t.teardown(() => (entitlements.close(), registry.close(), attestor.close(), pods.close()));
  const caller: Caller = { connection: 1, pid: 7, uid: 0, gid: 0, groups: [], pidfd: -1, owner: 'uid:0', startTime: undefined };
  const ids = (): string[] | undefined => entitlements.known(caller)?.map(({ id }) => id);
  return { clock, pods, registry, entitlements, caller, ids, source: (...event: Parameters<typeof tell>) => tell(...event) };
}

for (const isDeparted of [false, true]) {
  const which = isDeparted ? 'that was deleted' : 'that only the kubelet has told of';
  test(`a pod ${which} keeps its identity while it is connected, however long nobody tells of it`, async (t) => {
    const { clock, entitlements, registry, caller, ids, source } = setUp(t);
    if (isDeparted) {
      source('added', POD, undefined);
      source('removed', POD, POD);
    }
    const first = entitlements.of(caller);
    clock.advance(5_000);
    await settle();
    t.deepEqual((await first).map(({ id }) => id as string), [WEB]);
    const told: (string[] | undefined)[] = [];
    entitlements.follow(caller, () => told.push(ids()));
    clock.advance(5 * HOUR_MS);
    registry.replace([testEntry('other')]);
    clock.advance(10_000);
    t.deepEqual(ids(), [WEB]);
    source('added', POD, undefined);
    t.deepEqual(ids(), [WEB]);
    t.deepEqual(told, []);
  });
}

test('an open stream is told when its pod is forgotten, and when it is known again', async (t) => {
  const { entitlements, pods, caller, ids, source } = setUp(t);
  source('added', POD, undefined);
  await entitlements.of(caller);
  const told: [string[] | undefined, boolean][] = [];
  entitlements.follow(caller, () => told.push([ids(), entitlements.isComplete(caller)]));
  source('removed', POD, POD);
  pods.release(POD_UID);
  await t.throwsAsync(entitlements.of(caller), { message: /not complete yet/ });
  source('added', POD, undefined);
  t.deepEqual(told, [[[], false], [[WEB], true]]);
});
