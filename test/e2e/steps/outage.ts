import type { Harness } from '../harness.ts';
import { holds, same } from '../expect.ts';
import type { Step } from '../step.ts';
import { eventually, pause } from '../wait.ts';
import { CAST, NEEDS_HARNESS, RED, type World } from '../world.ts';
import { eventOf, idsOf, linesOf, type Line, type PodPlan } from '../workloads.ts';

const OUTAGE_MS = 120_000;
const RESTART_AFTER_MS = 15_000;
const RESTART_TIMEOUT_MS = 60_000;
const API_TIMEOUT_MS = 90_000;
/** Starts a process every two seconds that fetches: each is attested anew. */
const KNOWN: PodPlan = { namespace: RED, name: 'known', serviceAccount: 'alpha', args: ['again', '2'] };

/** Two minutes without the API server, longer than any SVID lives, with a restart of the agent in the middle. */
export const outage: Step = {
  title: 'the API server is away for two minutes',
  async run(world, report) {
    const { harness } = world;
    if (harness === undefined) return report.skip('an outage of the API server', NEEDS_HARNESS);
    await world.start(KNOWN);
    try {
      await eventOf(world.kubectl, KNOWN, 'svid');
      const { began, restarted, ended } = await withoutApi(world, harness);
      report.note(`outage: ${seconds(ended - began)} s; the agent was killed ${seconds(restarted - began)} s after its begin`);
      const during = (line: Line): boolean => line.t > restarted && line.t < ended;
      await report.check('running workloads are given renewals by an agent that was restarted in the outage', async () => {
        for (const pod of CAST) {
          const updates = (await linesOf(world.kubectl, pod.namespace, pod.name)).filter(
            (line) => line.event === 'update' && during(line),
          );
          report.note(
            `${pod.namespace}/${pod.name}: ${updates.length} updates; the first ${delay(updates[0], restarted)} s after the kill`,
          );
          holds(updates.length >= 2, `${pod.namespace}/${pod.name} had ${updates.length} updates`);
        }
        await world.assertCastKeptItsIds();
      });
      await report.check('new processes of a known pod are attested in the outage, after the restart too', async () => {
        const lines = (await linesOf(world.kubectl, KNOWN.namespace, KNOWN.name)).filter(during);
        const answered = lines.filter((line) => line.event === 'svid');
        const first = lines.indexOf(answered[0] ?? { event: '', t: 0 });
        report.note(`new processes: ${answered.length} answered, the first ${delay(answered[0], restarted)} s after the kill`);
        holds(answered.length >= 10, `only ${answered.length} were answered; the last line is ${JSON.stringify(lines.at(-1))}`);
        same(
          lines.slice(first).filter((line) => line.event !== 'svid'),
          [],
          'refused, once the agent was back',
        );
        same(
          answered.filter((line) => idsOf(line).join() !== world.idOf(RED, 'alpha')),
          [],
          'other IDs',
        );
      });
      await report.check('after the outage a new pod gets its SVID', async () => {
        const line = await world.ask({ namespace: RED, name: 'after-outage', serviceAccount: 'beta', args: ['first'] }, 'first');
        // How long the kubelet takes to hear of the pod is its own affair.
        report.note(`a new pod: ${Number(line['fromFirstInstructionMs'])} ms from its first instruction`);
        same(idsOf(line), [world.idOf(RED, 'beta')], line.error ?? 'the IDs');
      });
    } finally {
      await world.remove(KNOWN);
    }
  },
};

function seconds(ms: number): string {
  return (ms / 1000).toFixed(1);
}

function delay(line: Line | undefined, since: number): string {
  return line === undefined ? '(none)' : seconds(line.t - since);
}

async function withoutApi(world: World, harness: Harness): Promise<{ began: number; restarted: number; ended: number }> {
  const agent = await world.agent();
  // kubectl cannot ask for them now.
  const processes = (): readonly number[] => harness.processesOf(agent.metadata.uid, 'main.js');
  const start = await harness.stop('apiserver', 'SIGKILL');
  const began = Date.now();
  let restarted = began;
  try {
    await pause(RESTART_AFTER_MS);
    const old = processes();
    restarted = Date.now();
    for (const pid of old) process.kill(pid, 'SIGKILL');
    await eventually('the kubelet starts the agent again', RESTART_TIMEOUT_MS, async () =>
      processes().some((pid) => !old.includes(pid)) ? true : undefined,
    );
    await pause(began + OUTAGE_MS - Date.now());
  } finally {
    await start();
  }
  const ended = Date.now();
  await eventually('the API server is ready', API_TIMEOUT_MS, async () =>
    (await world.kubectl.run(['get', '--raw', '/readyz'])) === 'ok' ? true : undefined,
  );
  return { began, restarted, ended };
}
