import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Harness } from '../harness.ts';
import { holds, same } from '../expect.ts';
import type { KubeObject, Pod } from '../kubectl.ts';
import type { Report } from '../report.ts';
import type { Step } from '../step.ts';
import { eventually } from '../wait.ts';
import { CLUSTER_SPIFFE_IDS, clusterSpiffeId, NEEDS_HARNESS, RED, type World } from '../world.ts';
import { container, eventOf, idsOf, lineOf, podOf, type PodPlan } from '../workloads.ts';

const OWNER = 'beta';
const STATIC_LABEL = 'signet-e2e-static';

/** The places in which a container of a pod may run. */
export const kinds: Step = {
  title: 'kinds of containers and pods',
  async run(world, report) {
    const own = world.idOf(RED, OWNER);
    const kinds: PodPlan = { namespace: RED, name: 'kinds', serviceAccount: OWNER, spec: everyKind(world) };
    await world.start(kinds);
    try {
      for (const [name, sentence] of [
        ['init', 'an init container'],
        ['sidecar', 'a sidecar (an init container that stays)'],
        ['main', 'an ordinary container beside them'],
      ] as const) {
        await report.check(`${sentence} gets its pod's ID`, async () => {
          const line = await lineOf(
            world.kubectl,
            { ...kinds, container: name },
            (seen) => seen.event === 'svid' || seen.event === 'update' || seen.event === 'refused',
            'an answer',
          );
          same(idsOf(line), [own], line.error ?? 'the IDs');
        });
      }
      await report.check("an ephemeral container gets its pod's ID", async () => {
        await addEphemeral(world, kinds);
        const line = await lineOf(
          world.kubectl,
          { ...kinds, container: 'ephemeral' },
          (seen) => seen.event === 'svid' || seen.event === 'refused',
          'an answer',
        );
        same(idsOf(line), [own], line.error ?? 'the IDs');
      });
    } finally {
      await world.remove(kinds);
    }
    await report.check('a pod of the host network gets its own ID', async () => {
      const line = await world.ask(
        { namespace: RED, name: 'host-network', serviceAccount: OWNER, args: ['once'], spec: { hostNetwork: true } },
        'svid',
      );
      same(idsOf(line), [own], 'the IDs');
    });
    if (world.harness === undefined) report.skip('static pods', NEEDS_HARNESS);
    else await staticPods(world, world.harness, report);
  },
};

function everyKind({ images }: World): Readonly<Record<string, unknown>> {
  return {
    initContainers: [container(images, 'sidecar', ['watch'], { restartPolicy: 'Always' }), container(images, 'init', ['once'])],
    containers: [container(images, 'main', ['watch'])],
  };
}

async function addEphemeral(world: World, plan: PodPlan): Promise<void> {
  const pod: Pod = await world.kubectl.pod(plan.namespace, plan.name);
  const { resources: _none, ...ephemeral } = container(world.images, 'ephemeral', ['once']);
  const changed = { ...pod, spec: { ...pod.spec, ephemeralContainers: [ephemeral] } };
  await world.kubectl.run(
    ['replace', '--raw', `/api/v1/namespaces/${plan.namespace}/pods/${plan.name}/ephemeralcontainers`, '-f', '-'],
    JSON.stringify(changed),
  );
}

/** The kubelet makes them from a file; in the API there is only their mirror. They have no service account. */
async function staticPods(world: World, harness: Harness, report: Report): Promise<void> {
  const file = join(harness.staticPods, 'signet-e2e.yaml');
  const mirror = { namespace: RED, name: `static-${world.node}` };
  const rule = clusterSpiffeId('signet-e2e-static', {
    spiffeIDTemplate: 'spiffe://{{ .TrustDomain }}/static/{{ .PodMeta.Name }}',
    podSelector: { matchLabels: { [STATIC_LABEL]: 'yes' } },
  });
  writeFileSync(file, JSON.stringify(staticPod(world)));
  try {
    await report.check('a static pod has no default identity', async () => {
      const line = await eventOf(world.kubectl, mirror, 'refused');
      holds(/PermissionDenied/.test(line.error ?? ''), `it was answered ${line.error ?? idsOf(line).join()}`);
    });
    await report.check('`signet explain` says why: it has no service account', async () => {
      const text = await world.explain('--pod', `${RED}/${mirror.name}`);
      holds(/service account/i.test(text), `it says:\n${text}`);
      report.note(text.slice(text.indexOf('\nRules\n') + 1).trim());
    });
    await report.check('a rule can give a static pod an identity', async () => {
      await world.kubectl.apply(rule);
      const line = await lineOf(world.kubectl, mirror, (seen) => seen.event === 'svid', 'an SVID');
      same(idsOf(line), [`spiffe://e2e.test/static/${mirror.name}`], 'the IDs');
    });
  } finally {
    rmSync(file, { force: true });
    await world.kubectl.remove(CLUSTER_SPIFFE_IDS, undefined, rule.metadata.name);
    await eventually('the static pod is gone', 60_000, async () =>
      (await world.kubectl.pods(RED, `${STATIC_LABEL}=yes`)).length === 0 ? true : undefined,
    );
  }
}

function staticPod(world: World): KubeObject {
  const pod = podOf(world.images, {
    namespace: RED,
    name: 'static',
    args: ['again', '2'],
    restart: 'Always',
    labels: { [STATIC_LABEL]: 'yes' },
  });
  return pod;
}
