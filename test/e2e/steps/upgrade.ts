import type { Harness } from '../harness.ts';
import { holds, same } from '../expect.ts';
import type { Report } from '../report.ts';
import type { Step } from '../step.ts';
import { eventually } from '../wait.ts';
import { BLUE, CAST, NEEDS_HARNESS, RED, SYSTEM, type World } from '../world.ts';
import { eventOf, idsOf, linesOf, type PodPlan } from '../workloads.ts';

const RATE = '50';
const SECONDS = '40';
const LOAD_TIMEOUT_MS = 120_000;
const RECONNECT_TIMEOUT_MS = 90_000;

/** What happens to an agent, and to what it stands on, while workloads run. */
export const upgrade: Step = {
  title: 'kill, upgrade, restarts',
  async run(world, report) {
    await rollout(world, report);
    await brokenRollout(world, report);
    await killed(world, report);
    if (world.harness === undefined) return report.skip('kubelet and containerd restart', NEEDS_HARNESS);
    for (const component of ['kubelet', 'containerd'] as const) await restarted(world, world.harness, component, report);
  },
};

async function rollout(world: World, report: Report): Promise<void> {
  const load: PodPlan = { namespace: BLUE, name: 'load', serviceAccount: 'alpha', args: ['load', RATE, SECONDS] };
  const old = await world.agent();
  await world.start(load);
  try {
    await eventOf(world.kubectl, load, 'loading');
    const began = Date.now();
    const rolledOut = await report.check('a rolling update replaces the agent', async () => {
      await world.kubectl.run(['rollout', 'restart', '-n', SYSTEM, 'daemonset/signet']);
      await world.kubectl.run(['rollout', 'status', '-n', SYSTEM, 'daemonset/signet', '--timeout=90s']);
      await world.agent([old.metadata.uid]);
    });
    const took = Date.now() - began;
    const end = await eventOf(world.kubectl, load, 'loaded', LOAD_TIMEOUT_MS);
    const { t: _t, event: _event, ...counts } = end;
    report.note(
      `rollout: ${(took / 1000).toFixed(1)} s; ${RATE} connections a second for ${SECONDS} s: ${JSON.stringify(counts)}`,
    );
    if (!rolledOut) return;
    await report.check('under 50 connections a second: no missing socket and no refused connection', () => {
      holds(took < Number(SECONDS) * 1000, 'the load ended before the rollout: nothing is shown');
      same(end['unreachable'], 0, `unreachable sockets (${JSON.stringify(end['texts'])})`);
    });
    await report.check('and every one of these calls is answered', () =>
      same([end['refused'], end['answered']], [0, end['started']], `refused, answered (${JSON.stringify(end['texts'])})`),
    );
    await goOn(world, report, 'the upgrade', began);
  } finally {
    await world.remove(load);
  }
}

/** The new agent's configuration cannot be read: it never takes the socket, and the old one must not go. */
async function brokenRollout(world: World, report: Report): Promise<void> {
  const load: PodPlan = { namespace: BLUE, name: 'load', serviceAccount: 'alpha', args: ['load', RATE, '20'] };
  const old = await world.agent();
  const args = '/spec/template/spec/containers/0/args/2';
  await world.kubectl.run([
    'patch',
    'daemonset',
    '-n',
    SYSTEM,
    'signet',
    '--type=json',
    '-p',
    JSON.stringify([{ op: 'replace', path: args, value: '/etc/signet/missing.yaml' }]),
  ]);
  try {
    const end = await world.ask(load, 'loaded');
    await report.check('under an upgrade to a configuration that cannot be read the old agent goes on serving', async () => {
      same(
        [end['unreachable'], end['refused'], end['answered']],
        [0, 0, end['started']],
        `unreachable, refused, answered (${JSON.stringify(end['texts'])})`,
      );
      same((await world.agent()).metadata.uid, old.metadata.uid, 'the ready agent');
      same((await world.agents()).length, 2, 'agents, the broken one among them');
    });
  } finally {
    await world.kubectl.run(['rollout', 'undo', '-n', SYSTEM, 'daemonset/signet']);
    await world.kubectl.run(['rollout', 'status', '-n', SYSTEM, 'daemonset/signet', '--timeout=90s']);
  }
}

async function killed(world: World, report: Report): Promise<void> {
  const old = await world.agent();
  const began = Date.now();
  await world.kubectl.remove('pod', SYSTEM, old.metadata.name);
  await report.check(
    "after the agent's pod is killed another becomes ready",
    async () => void (await world.agent([old.metadata.uid])),
  );
  await goOn(world, report, 'the kill', began);
}

async function restarted(world: World, harness: Harness, component: 'kubelet' | 'containerd', report: Report): Promise<void> {
  const began = Date.now();
  const start = await harness.stop(component, 'SIGTERM');
  await start();
  await report.check(`after ${component} restarts a new pod gets its SVID`, async () => {
    await eventually('the node is ready', RECONNECT_TIMEOUT_MS, async () => {
      const text = await world.kubectl.run([
        'get',
        'node',
        world.node,
        '-o',
        'jsonpath={.status.conditions[?(@.type=="Ready")].status}',
      ]);
      return text === 'True' ? true : undefined;
    });
    const line = await world.ask(
      { namespace: RED, name: `after-${component}`, serviceAccount: 'beta', args: ['first'] },
      'first',
    );
    same(idsOf(line), [world.idOf(RED, 'beta')], line.error ?? 'the IDs');
  });
  await goOn(world, report, `the restart of ${component}`, began);
}

/** Workloads hold what they have, come back by themselves, and are told nothing else than their own IDs. */
async function goOn(world: World, report: Report, what: string, since: number): Promise<void> {
  await report.check(`after ${what} the running workloads get a renewal, by themselves and before the old one ends`, async () => {
    await world.updatesSince(since, RECONNECT_TIMEOUT_MS);
    for (const pod of CAST) {
      const updates = (await linesOf(world.kubectl, pod.namespace, pod.name)).filter((line) => line.event === 'update');
      updates.forEach((line, at) => {
        const before = updates[at - 1]?.svids?.[0]?.notAfter ?? Number.POSITIVE_INFINITY;
        holds(
          line.t < before,
          `${pod.namespace}/${pod.name} was without a valid SVID for ${((line.t - before) / 1000).toFixed(1)} s`,
        );
      });
    }
    await world.assertCastKeptItsIds();
  });
}
