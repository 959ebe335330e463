import { holds, same } from '../expect.ts';
import type { Step } from '../step.ts';
import { CAST } from '../world.ts';
import { eventOf, idsOf, type Line } from '../workloads.ts';

/** Two namespaces, three service accounts, four pods. */
export const identities: Step = {
  title: 'each pod its own identity',
  async run(world, report) {
    await world.start(...CAST.map((pod) => ({ ...pod, args: ['watch'], restart: 'Always' as const })));
    const updates = new Map<string, Line>();
    for (const pod of CAST) {
      await report.check(
        `a pod of ${pod.namespace}/${pod.serviceAccount} (${pod.name}) gets its own ID and none other`,
        async () => {
          const line = await eventOf(world.kubectl, pod, 'update');
          updates.set(`${pod.namespace}/${pod.name}`, line);
          same(idsOf(line), [world.idOf(pod.namespace, pod.serviceAccount)], 'the IDs');
        },
      );
    }
    await report.check('two pods of one service account have different keys', () => {
      const keys = [...updates.values()].map((line) => line.svids?.[0]?.key);
      holds(keys.length === CAST.length && new Set(keys).size === keys.length, `the keys are ${keys.join(', ')}`);
    });
    await report.check('every watcher is told of a renewal, and only of its own identity', async () => {
      await world.updatesSince(Math.max(...[...updates.values()].map((line) => line.t)));
      await world.assertCastKeptItsIds();
    });
  },
};
