import { holds, same } from '../expect.ts';
import { ROOT } from '../images.ts';
import type { Report } from '../report.ts';
import { runProgram } from '../run-program.ts';
import type { Step } from '../step.ts';
import { BLUE, RED, SYSTEM, TRUST_DOMAIN, type World } from '../world.ts';
import { eventOf, linesOf, type PodPlan } from '../workloads.ts';

const SECRET = 'signet-ca';
const NEXT = 'signet-e2e-ca-next';
const PORT = '8443';
/** The kubelet brings a changed Secret into a pod with its next look at it, by default within 90 s. */
const SECRET_TIMEOUT_MS = 240_000;
const SERVER: PodPlan = { namespace: RED, name: 'rotation-server', serviceAccount: 'alpha', args: ['serve', PORT] };

interface Ca {
  readonly certificate: string;
  readonly key: string;
  readonly roots: string;
}

/** The operator replaces the CA above: first its root becomes known, then it signs. */
export const caRotation: Step = {
  title: 'the CA is replaced',
  async run(world, report) {
    const began = Date.now();
    await world.start(SERVER);
    try {
      await eventOf(world.kubectl, SERVER, 'serving');
      const old = await readCa(world, SECRET);
      const next = await createNext(world);
      await report.check('a second root in the Secret reaches every open stream', async () => {
        await patch(world, { ...old, roots: old.roots + next.roots });
        await world.updatesSince(began, SECRET_TIMEOUT_MS, (line) => line.authorities?.[TRUST_DOMAIN] === 2);
      });
      await handshake(world, report, 'with both roots known');
      await report.check('then the new CA signs, and every watcher is told of an SVID under it', async () => {
        const [first] = await linesOf(world.kubectl, SERVER.namespace, 'alpha-1');
        const before = first?.svids?.[0]?.root;
        holds(before !== undefined, 'the old root is not known');
        await patch(world, { ...next, roots: old.roots + next.roots });
        await world.updatesSince(began, SECRET_TIMEOUT_MS, (line) => line.svids?.[0]?.root !== before);
      });
      await handshake(world, report, 'under the new CA');
      await report.check('nobody was given anything that its bundle does not verify', () => world.assertCastKeptItsIds());
    } finally {
      await world.remove(SERVER);
      await world.kubectl.remove('secret', SYSTEM, NEXT);
    }
  },
};

async function handshake(world: World, report: Report, when: string): Promise<void> {
  await report.check(`mutual TLS with a server that runs throughout, ${when}`, async () => {
    const { podIP = '' } = (await world.kubectl.pod(SERVER.namespace, SERVER.name)).status;
    const own = world.idOf(RED, 'alpha');
    const dialled = await world.ask(
      { namespace: BLUE, name: 'rotation-client', serviceAccount: 'alpha', args: ['dial', `${podIP}:${PORT}`, own] },
      'dialled',
    );
    same([dialled['peer'], dialled['seen']], [own, world.idOf(BLUE, 'alpha')], dialled.error ?? 'who saw whom');
  });
}

async function createNext(world: World): Promise<Ca> {
  await runProgram(['sh', `${ROOT}/deploy/kubernetes/create-ca.sh`, TRUST_DOMAIN], {
    env: { ...world.kubectl.environment, SECRET: NEXT },
  });
  return readCa(world, NEXT);
}

async function readCa(world: World, secret: string): Promise<Ca> {
  const { data } = await world.kubectl.json<{ data: Readonly<Record<string, string>> }>(['get', 'secret', '-n', SYSTEM, secret]);
  const text = (key: string): string => Buffer.from(data[key] ?? '', 'base64').toString();
  return { certificate: text('tls.crt'), key: text('tls.key'), roots: text('ca.crt') };
}

async function patch(world: World, { certificate, key, roots }: Ca): Promise<void> {
  const change = JSON.stringify({ stringData: { 'tls.crt': certificate, 'tls.key': key, 'ca.crt': roots } });
  await world.kubectl.run(['patch', 'secret', '-n', SYSTEM, SECRET, '--type=merge', '-p', change]);
}
