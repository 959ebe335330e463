import { holds, same } from '../expect.ts';
import type { Step } from '../step.ts';
import { CLUSTER_SPIFFE_IDS, clusterSpiffeId, RED, TRUST_DOMAIN, type World } from '../world.ts';
import { eventOf, idsOf, lineOf, type Line, type PodPlan } from '../workloads.ts';

const APPLIES_WITHIN_MS = 1_000;
const WITHDRAWAL_DELAY_MS = 10_000;
/** How much later than the delay a withdrawal may be seen: the watch, and the way to the client. */
const WITHDRAWAL_SLACK_MS = 5_000;
const RULE = clusterSpiffeId('signet-e2e-special', {
  spiffeIDTemplate: 'spiffe://{{ .TrustDomain }}/special/{{ .PodMeta.Name }}',
  podSelector: { matchLabels: { special: 'yes' } },
  namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': RED } },
  dnsNameTemplates: ['{{ .PodMeta.Name }}.special.test'],
});
const WATCHER: PodPlan = {
  namespace: RED,
  name: 'special',
  serviceAccount: 'alpha',
  args: ['watch'],
  labels: { special: 'yes' },
};
const SPECIAL = `spiffe://${TRUST_DOMAIN}/special/special`;

/** The clocks of this machine and of the node must agree. */
export const rules: Step = {
  title: 'rules',
  async run(world, report) {
    const own = world.idOf(RED, 'alpha');
    await world.start(WATCHER);
    try {
      const first = await eventOf(world.kubectl, WATCHER, 'update');
      await report.check('before there is a rule the default one counts', () => same(idsOf(first), [own], 'the IDs'));
      await report.check('a ClusterSPIFFEID is on an open stream within a second', async () => {
        const { before, after } = await timed(() => world.kubectl.apply(RULE));
        const line = await updateWith(world, before, SPECIAL);
        report.note(`on the stream ${between(line.t, before, after)} after it was applied`);
        holds(line.t - after <= APPLIES_WITHIN_MS, `it took ${between(line.t, before, after)}`);
        same([idsOf(line)[0], line.svids?.[0]?.dnsNames], [SPECIAL, ['special.special.test']], 'the default SVID');
      });
      await report.check('a deleted ClusterSPIFFEID is withdrawn after the delay, not before', async () => {
        const { before, after } = await timed(() => world.kubectl.remove(CLUSTER_SPIFFE_IDS, undefined, RULE.metadata.name));
        const line = await lineOf(
          world.kubectl,
          WATCHER,
          (seen) => seen.t > before && seen.event === 'update' && !idsOf(seen).includes(SPECIAL),
          'an update without the ID',
        );
        report.note(`withdrawn ${between(line.t, before, after)} after it was deleted`);
        same(idsOf(line), [own], 'what is left');
        holds(line.t - before >= WITHDRAWAL_DELAY_MS, `withdrawn early, ${between(line.t, before, after)}`);
        holds(line.t - after <= WITHDRAWAL_DELAY_MS + WITHDRAWAL_SLACK_MS, `withdrawn late, ${between(line.t, before, after)}`);
      });
    } finally {
      await world.remove(WATCHER);
      await world.kubectl.remove(CLUSTER_SPIFFE_IDS, undefined, RULE.metadata.name);
    }
  },
};

async function timed(run: () => Promise<void>): Promise<{ before: number; after: number }> {
  const before = Date.now();
  await run();
  return { before, after: Date.now() };
}

/** kubectl takes a while itself, and the API server has the change somewhere in between. */
function between(moment: number, before: number, after: number): string {
  return `${(moment - after).toFixed(0)} to ${(moment - before).toFixed(0)} ms`;
}

function updateWith(world: World, since: number, id: string): Promise<Line> {
  return lineOf(
    world.kubectl,
    WATCHER,
    (line) => line.t > since && line.event === 'update' && idsOf(line).includes(id),
    `an update with ${id}`,
  );
}
