import { holds, same } from '../expect.ts';
import type { KubeObject } from '../kubectl.ts';
import type { Step } from '../step.ts';
import { BLUE, RED, SYSTEM, type World } from '../world.ts';
import { eventOf, type PodPlan } from '../workloads.ts';

const SECOND = 'signet-e2e-second';
/** In its containers too: the place of an agent's keys is part of the name under which it publishes them. */
const DIRECTORY = '/run/signet-e2e-second';
const LABELS = { 'app.kubernetes.io/name': SECOND };
const PORT = '8443';
const AUDIENCE = 'e2e';
const CONFIG = 'signet.yaml';

interface DaemonSet extends KubeObject {
  readonly spec: { readonly selector: unknown; readonly template: Template; readonly [key: string]: unknown };
}

interface Template {
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly spec: {
    readonly volumes: readonly { name: string; configMap?: { name: string } }[];
    readonly [key: string]: unknown;
  };
}

/** A second agent on the node stands for a second node: its own directories, its own node CA, the same CA above. */
export const twoAgents: Step = {
  title: 'two agents with separate data, one CA',
  async run(world, report) {
    try {
      await deploySecond(world);
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
      await report.check("a JWT-SVID of either agent is valid at the other, and with the other's bundle", async () => {
        await exchange(world, {}, ELSEWHERE);
        await exchange(world, ELSEWHERE, {});
      });
    } finally {
      await world.kubectl.remove('daemonset', SYSTEM, SECOND);
      await world.kubectl.remove('configmap', SYSTEM, SECOND);
    }
  },
};

const ELSEWHERE = { socketDirectory: `${DIRECTORY}/public` };

/** The first one again, with other names and directories. */
async function deploySecond({ kubectl }: World): Promise<void> {
  const first = await kubectl.json<DaemonSet>(['get', 'daemonset', '-n', SYSTEM, 'signet']);
  const name = first.spec.template.spec.volumes.find((volume) => volume.name === 'config')?.configMap?.name ?? '';
  const { data } = await kubectl.json<{ data: Readonly<Record<string, string>> }>(['get', 'configmap', '-n', SYSTEM, name]);
  const config = `socketPath: /run/signet/public/api.sock\nprivateDir: /run/signet/private\n${data[CONFIG] ?? ''}`;
  const text = JSON.stringify(first.spec.template).replaceAll(`"${name}"`, `"${SECOND}"`);
  const template = JSON.parse(moved(text)) as Template;
  const metadata = { name: SECOND, namespace: SYSTEM };
  const spec = { selector: { matchLabels: LABELS }, template: { ...template, metadata: { labels: LABELS } } };
  await kubectl.apply(
    { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { [CONFIG]: moved(config) } },
    { apiVersion: first.apiVersion, kind: first.kind, metadata, spec },
  );
}

function moved(text: string): string {
  return text.replaceAll('/run/signet', DIRECTORY);
}

type Where = Partial<typeof ELSEWHERE>;

async function exchange(world: World, from: Where, to: Where): Promise<void> {
  const owner = { namespace: RED, serviceAccount: 'alpha' };
  const given = await world.ask({ ...owner, name: 'token', args: ['token', AUDIENCE], ...from }, 'token');
  const verified = await world.ask(
    { ...owner, name: 'verify', args: ['verify', AUDIENCE, String(given['token'])], ...to },
    'verified',
  );
  const own = world.idOf(RED, 'alpha');
  same([verified['remote'], verified['local']], [own, own], verified.error ?? 'whose token it is');
}

async function meet(world: World, second: 'server' | 'client'): Promise<void> {
  const server: PodPlan = {
    namespace: RED,
    name: 'first-server',
    serviceAccount: 'alpha',
    args: ['serve', PORT],
    ...(second === 'server' ? ELSEWHERE : {}),
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
    const dialled = await world.ask({ ...client, ...(second === 'client' ? ELSEWHERE : {}) }, 'dialled');
    holds(dialled.event === 'dialled', `the client failed: ${dialled.error ?? ''}`);
    same(dialled['seen'], world.idOf(BLUE, 'alpha'), 'the client as the server saw it');
  } finally {
    await world.remove(server);
  }
}
