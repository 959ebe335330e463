import type { AuthorityView } from '../../../src/admin/messages.ts';
import { eventually, pause } from '../../e2e/wait.ts';
import { idOf, NodeAgent } from '../agents.ts';
import { agentMissing } from '../missing.ts';
import type { Step } from '../step.ts';
import { failuresOf, flawless, seconds, Traffic } from '../traffic-process.ts';

const RATE = 50;
/** A sixth of it is how long a prepared key has to be in the bundle: a minute. */
const TTL = '6m';

/** The root of an agent alone is replaced by hand. */
export const rotationEmbedded: Step = {
  title: 'the embedded root is replaced by hand, 50 connections a second between two workloads of the agent',
  missing: agentMissing,
  async run(report, started) {
    const agent = started.use(await NodeAgent.start(['server', 'client'], { authority: { type: 'embedded', ttl: TTL }, x509: { ttl: '60s' } }));
    const [server, client] = ['server', 'client'].map((name) => ({ socket: agent.socket, id: idOf(name) })) as [Place, Place];
    const traffic = started.use(await Traffic.start({ server, client, rate: RATE }));
    await report.check('prepare, activate, taint: not one handshake fails', async () => {
      const former = (await rootOf(agent, 'active')).id;
      await agent.signet('authority', 'prepare', 'x509');
      const prepared = await rootOf(agent, 'prepared');
      await traffic.until('both roots at both ends', 30_000, ({ watchers }) => watchers.roots[0] === 2);
      await pause(Date.parse(prepared.usable_from ?? '') - Date.now() + 1_000);
      report.note('the prepared key is activated');
      await agent.signet('authority', 'activate', 'x509');
      report.note('the former key is tainted');
      const tainted = performance.now();
      await agent.signet('authority', 'taint', former);
      await traffic.until('leaves under the new root', 60_000, ({ issuers }) => issuers >= 2);
      const replaced = performance.now() - tainted;
      await eventually('the tainted root leaves the bundle', 240_000, async () => (traffic.figures.watchers.roots[1] === 1 ? true : undefined));
      const left = performance.now() - tainted;
      await pause(10_000);
      return `${flawless(traffic.figures)}; a leaf under the new root ${seconds(replaced)}, the tainted root out of the bundle ${seconds(left)} after the taint`;
    });
    await report.check('activate --force right after prepare, and the former key revoked as soon as tainted: what fails', async () => {
      const former = (await rootOf(agent, 'active')).id;
      const before = traffic.figures;
      await agent.signet('authority', 'prepare', 'x509');
      await agent.signet('authority', 'activate', 'x509', '--force');
      await agent.signet('authority', 'taint', former);
      const tainted = performance.now();
      await agent.signet('authority', 'revoke', former);
      const revoked = performance.now() - tainted;
      const after = await traffic.until('leaves under the new root', 60_000, ({ issuers, watchers }) => issuers > before.issuers && watchers.roots[1] === 1);
      await pause(20_000);
      return `${failuresOf(traffic.figures)} (since the start; before ${failuresOf(before)}); revoked ${seconds(revoked)} after the taint, ${after.issuers} roots seen so far`;
    });
  },
};

interface Place {
  readonly socket: string;
  readonly id: string;
}

async function rootOf(agent: NodeAgent, state: string): Promise<AuthorityView['keys'][number]> {
  const { keys } = (await agent.signet('authority', 'show')) as AuthorityView;
  const key = keys.find((one) => one.kind === 'x509' && one.state === state);
  if (key === undefined) throw new Error(`there is no x509 key that is ${state}: ${JSON.stringify(keys)}`);
  return key;
}
