import { holds, same } from '../expect.ts';
import type { Images } from '../images.ts';
import type { Step } from '../step.ts';
import { BLUE, CAST, RED } from '../world.ts';
import { container, eventOf, idsOf, SOCKET_DIRECTORY, type PodPlan } from '../workloads.ts';

const SOCKET = { name: 'spiffe', mountPath: SOCKET_DIRECTORY, readOnly: true };
const SOCKET_VOLUME = { name: 'spiffe', hostPath: { path: SOCKET_DIRECTORY, type: 'Directory' } };
/** A directory that pods of two accounts share. */
const shared = { volumes: [SOCKET_VOLUME, { name: 'shared', hostPath: { path: '/run/signet-e2e', type: 'DirectoryOrCreate' } }] };

/** What tricks with processes, sockets and cgroups give to a process: no more than its own, and no longer than it lives. */
export const misuse: Step = {
  title: 'misuse',
  async run(world, report) {
    const { images } = world;
    await report.check('the child of a process that had a stream and exited reads nothing more from it', async () => {
      const [lines = []] = await world.runToEnd({ namespace: RED, name: 'heir', serviceAccount: 'alpha', args: ['heir'] });
      const end = lines.find((line) => line.event === 'heir');
      same(
        { end: end?.['end'], dataBytes: end?.['dataBytes'] },
        { end: 'closed', dataBytes: 0 },
        `the inherited connection (${JSON.stringify(lines)})`,
      );
    });
    await report.check('the child of a process that only connected and exited gets no SVID', async () => {
      const [lines = []] = await world.runToEnd({ namespace: RED, name: 'late', serviceAccount: 'alpha', args: ['late'] });
      const end = lines.find((line) => line.event === 'late');
      holds(end?.error !== undefined && end.svids === undefined, `it got ${JSON.stringify(lines)}`);
    });
    await report.check('a connection that was passed to a pod of another account ends with its owner', async () => {
      const main = (...args: readonly string[]): unknown =>
        container(images, 'main', args, { volumeMounts: [SOCKET, { name: 'shared', mountPath: '/shared' }] });
      const receiver: PodPlan = {
        namespace: BLUE,
        name: 'receiver',
        serviceAccount: 'alpha',
        spec: { ...shared, containers: [main('receive', '/shared/pass.sock')] },
      };
      const sender: PodPlan = {
        namespace: RED,
        name: 'sender',
        serviceAccount: 'beta',
        spec: { ...shared, containers: [main('pass', '/shared/pass.sock')] },
      };
      const [received = [], passed = []] = await world.runToEnd(receiver, sender);
      holds(
        passed.some((line) => line.event === 'passed'),
        `nothing was passed: ${JSON.stringify(passed)}`,
      );
      const end = received.find((line) => line.event === 'received');
      same(
        { end: end?.['end'], dataBytes: end?.['dataBytes'] },
        { end: 'closed', dataBytes: 0 },
        `the passed connection (${JSON.stringify(received)})`,
      );
    });
    await report.check('a process in a made-up cgroup that names another pod gets nothing of that pod', async () => {
      const [victim] = CAST;
      const { uid } = (await world.kubectl.pod(victim?.namespace ?? '', victim?.name ?? '')).metadata;
      const plan: PodPlan = { namespace: BLUE, name: 'forger', serviceAccount: 'alpha', spec: forger(images, uid) };
      const [lines = []] = await world.runToEnd(plan);
      const moved = lines.find((line) => line.event === 'moved');
      holds(Number(moved?.['entered']) > 0, `it could not make a cgroup: ${JSON.stringify(lines)}`);
      const answer = lines.find((line) => line.event === 'svid' || line.event === 'refused');
      holds(answer !== undefined, `no answer: ${JSON.stringify(lines)}`);
      const foreign = answer === undefined ? [] : idsOf(answer).filter((id) => id !== world.idOf(BLUE, 'alpha'));
      same(foreign, [], 'foreign IDs');
      report.note(
        `in ${Number(moved?.['entered'])} made-up cgroups it is answered ` +
          `${JSON.stringify(answer?.error ?? (answer === undefined ? [] : idsOf(answer)))}`,
      );
    });
    await report.check('a pod goes on having its identity while others play', async () => {
      for (const pod of CAST) await eventOf(world.kubectl, pod, 'update');
      await world.assertCastKeptItsIds();
    });
  },
};

function forger(images: Images, victim: string): Readonly<Record<string, unknown>> {
  const more = { securityContext: { privileged: true }, volumeMounts: [SOCKET, { name: 'cgroup', mountPath: '/cgroup' }] };
  return {
    containers: [container(images, 'main', ['cgroup', victim], more)],
    volumes: [SOCKET_VOLUME, { name: 'cgroup', hostPath: { path: '/sys/fs/cgroup', type: 'Directory' } }],
  };
}
