import { holds, same } from '../expect.ts';
import type { KubeObject } from '../kubectl.ts';
import type { Step } from '../step.ts';
import { BLUE, RED, SYSTEM, type World } from '../world.ts';
import { eventOf, type PodPlan } from '../workloads.ts';

const SECOND = 'signet-e2e-second';
const HOST_DIRECTORY = '/run/signet-e2e-second';
const LABELS = { 'app.kubernetes.io/name': SECOND };
const PORT = '8443';

interface DaemonSet extends KubeObject {
  readonly spec: {
    readonly selector: unknown;
    readonly template: {
      readonly metadata: Readonly<Record<string, unknown>>;
      readonly spec: {
        readonly volumes: readonly { name: string; hostPath?: { path: string } }[];
        readonly [key: string]: unknown;
      };
    };
    readonly [key: string]: unknown;
  };
}

/** A second agent on the node stands for a second node: its own directories, its own node CA, the same CA above. */
export const twoAgents: Step = {
  title: 'two agents with separate data, one CA',
  async run(world, report) {
    await world.kubectl.apply(second(await world.kubectl.json<DaemonSet>(['get', 'daemonset', '-n', SYSTEM, 'signet'])));
    try {
      const selector = `app.kubernetes.io/name=${SECOND}`;
      if (
        !(await report.check('a second agent becomes ready beside the first', async () => void (await world.agent([], selector))))
      )
        return;
      for (const side of ['server', 'client'] as const) {
        await report.check(`a pod of one agent and a pod of the other talk mutual TLS (the second agent's is the ${side})`, () =>
          meet(world, side),
        );
      }
    } finally {
      await world.kubectl.remove('daemonset', SYSTEM, SECOND);
    }
  },
};

function second(first: DaemonSet): KubeObject {
  const { template } = first.spec;
  const volumes = template.spec.volumes.map((volume) =>
    volume.hostPath === undefined ? volume : { ...volume, hostPath: { ...volume.hostPath, path: HOST_DIRECTORY } },
  );
  return {
    apiVersion: first.apiVersion,
    kind: first.kind,
    metadata: { name: SECOND, namespace: SYSTEM },
    spec: {
      selector: { matchLabels: LABELS },
      template: { ...template, metadata: { labels: LABELS }, spec: { ...template.spec, volumes } },
    },
  };
}

async function meet(world: World, second: 'server' | 'client'): Promise<void> {
  const elsewhere = { socketDirectory: `${HOST_DIRECTORY}/public` };
  const server: PodPlan = {
    namespace: RED,
    name: 'first-server',
    serviceAccount: 'alpha',
    args: ['serve', PORT],
    ...(second === 'server' ? elsewhere : {}),
  };
  await world.start(server);
  try {
    const serving = await eventOf(world.kubectl, server, 'serving');
    same(serving['id'], world.idOf(RED, 'alpha'), 'the server');
    const { podIP = '' } = (await world.kubectl.pod(server.namespace, server.name)).status;
    const client: PodPlan = {
      namespace: BLUE,
      name: 'second-client',
      serviceAccount: 'alpha',
      args: ['dial', `${podIP}:${PORT}`, world.idOf(RED, 'alpha')],
    };
    const dialled = await world.ask({ ...client, ...(second === 'client' ? elsewhere : {}) }, 'dialled');
    holds(dialled.event === 'dialled', `the client failed: ${dialled.error ?? ''}`);
    same(dialled['seen'], world.idOf(BLUE, 'alpha'), 'the client as the server saw it');
  } finally {
    await world.remove(server);
  }
}
