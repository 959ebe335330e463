import { holds, same } from '../expect.ts';
import type { Step } from '../step.ts';
import { BLUE, RED, type World } from '../world.ts';
import { container, eventOf, type Line, type PodPlan } from '../workloads.ts';

const PORT = '8443';
const NODE = ['node', '/app/test/e2e/workload/tls.ts'];

type Language = 'Go' | 'Node.js';

/** Mutual TLS between pods of two namespaces, each side in another language. */
export const languages: Step = {
  title: 'mutual TLS between pods',
  async run(world, report) {
    for (const [server, client] of [
      ['Go', 'Node.js'],
      ['Node.js', 'Go'],
      ['Go', 'Go'],
    ] as const) {
      await report.check(`a ${client} client and a ${server} server know each other by their SPIFFE IDs`, () =>
        meet(world, server, client),
      );
    }
    await report.check('a client that expects another ID of the server does not talk to it', async () => {
      const { dialled } = await call(world, 'Go', 'Go', world.idOf(RED, 'beta'));
      holds(
        dialled.event === 'failed' && /unexpected ID/.test(dialled.error ?? ''),
        `the client says ${JSON.stringify(dialled)}`,
      );
    });
  },
};

async function meet(world: World, server: Language, client: Language): Promise<void> {
  const { dialled } = await call(world, server, client, world.idOf(RED, 'alpha'));
  same(
    { peer: dialled['peer'], seen: dialled['seen'] },
    { peer: world.idOf(RED, 'alpha'), seen: world.idOf(BLUE, 'alpha') },
    dialled.error ?? 'who saw whom',
  );
}

async function call(world: World, server: Language, client: Language, expected: string): Promise<{ dialled: Line }> {
  const serving: PodPlan = plan(world, server, { namespace: RED, name: 'tls-server', serviceAccount: 'alpha' }, ['serve', PORT]);
  await world.start(serving);
  try {
    await eventOf(world.kubectl, serving, 'serving');
    const { podIP = '' } = (await world.kubectl.pod(serving.namespace, serving.name)).status;
    const where = client === 'Go' ? [`${podIP}:${PORT}`] : [podIP, PORT];
    return {
      dialled: await world.ask(
        plan(world, client, { namespace: BLUE, name: 'tls-client', serviceAccount: 'alpha' }, ['dial', ...where, expected]),
        'dialled',
      ),
    };
  } finally {
    await world.remove(serving);
  }
}

function plan(world: World, language: Language, of: PodPlan, args: readonly string[]): PodPlan {
  const more = language === 'Go' ? {} : { command: NODE };
  return { ...of, spec: { ...of.spec, containers: [container(world.images, 'main', args, more)] } };
}
