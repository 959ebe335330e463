import { holds, shown } from '../../e2e/expect.ts';
import { eventually, pause } from '../../e2e/wait.ts';
import { idOf, NodeAgent } from '../agents.ts';
import { certManagerFor, certManagerMissing, underCertManager } from '../cert-manager.ts';
import type { Step } from '../step.ts';
import { flawless, seconds, Traffic } from '../traffic-process.ts';

const HALF_MS = 90_000;

/** The controller is away for three minutes; the agent is killed, and started again, in the middle. A node CA of 6 minutes is due meanwhile. */
export const certManagerOutage: Step = {
  title: 'cert-manager: the controller is stopped for 3 minutes under load, 60 s SVIDs, the agent killed and restarted in the middle',
  missing: certManagerMissing,
  async run(report, started) {
    const { manager, kubeconfig } = await certManagerFor(started);
    const config = underCertManager(kubeconfig, 'intermediate');
    const authority = { ...(config['authority'] as object), ttl: '6m' };
    const agent = started.use(await NodeAgent.start(['server', 'client'], { ...config, authority, x509: { ttl: '60s' } }));
    const born = performance.now();
    const [server, client] = ['server', 'client'].map((name) => ({ socket: agent.socket, id: idOf(name) })) as [Place, Place];
    const traffic = started.use(await Traffic.start({ server, client, rate: 20, watchers: 8, tokens: true }));
    // The node CA is renewed 2.4 to 3.6 minutes after it was made.
    await pause(120_000 - (performance.now() - born));
    report.note('the controller is stopped');
    const stopped = performance.now();
    await manager.stopController();
    await pause(HALF_MS - (performance.now() - stopped));
    const before = traffic.figures;
    const toldBefore = agent.log();
    await agent.kill();
    const killed = performance.now();
    await report.check('the agent starts again without cert-manager, and serves at once', async () => {
      await agent.start();
      return `SIGKILL to ready: ${seconds(performance.now() - killed)}`;
    });
    await report.check('all streams reconnect by themselves', async () => {
      const { watchers } = await traffic.until('every stream goes on', 30_000, ({ watchers: now }) => now.broken === 0 && now.updates > before.watchers.updates);
      return `interruptions ${JSON.stringify(watchers.interruptions)}; longest from the break to the next update ${seconds(watchers.longestGapMs)}`;
    });
    await report.check('the agent says that nobody signs, and stays ready', async () => {
      const told = await eventually('the agent tells it', 120_000, async () => {
        const { status, body } = await agent.ready();
        holds(status === 200, `not ready: ${body}`);
        return /upstream_away/.test(body) ? (await agent.logged('the line', /nobody has approved or denied/)) : undefined;
      });
      return `${/"err":"([^"]*)/.exec(told)?.[1]?.slice(0, 120)}; before the kill ${/nobody has approved/.test(toldBefore) ? 'told already' : 'not due yet'}`;
    });
    await pause(2 * HALF_MS - (performance.now() - stopped));
    const outageMs = performance.now() - stopped;
    const { issuers } = traffic.figures;
    const returned = performance.now();
    await manager.startController();
    report.note(`the controller runs again, away for ${seconds(outageMs)}`);
    await report.check('it recovers when the controller is back: the request that waits is answered', async () => {
      await eventually('nothing is away', 60_000, async () => (/upstream_away/.test((await agent.ready()).body) ? undefined : true));
      const well = performance.now() - returned;
      await traffic.until('leaves under a new node CA', 120_000, (now) => now.issuers > issuers);
      return `nothing is away ${seconds(well)}, a new node CA in use ${seconds(performance.now() - returned)} after the controller was started`;
    });
    await pause(5_000);
    const figures = await traffic.stop();
    await report.check('no handshake failed, and no expired certificate was presented or held', () => `${flawless(figures)}; away for ${seconds(outageMs)}, ${figures.leaves} different leaves under ${figures.issuers} node CAs`);
    await report.check('no stream was refused anything, and tokens were signed all the time', () => {
      const codes = Object.keys(figures.watchers.interruptions);
      holds(codes.every((code) => code === 'unavailable'), `streams: ${shown(figures.watchers.interruptions)}`);
      holds(Object.keys(figures.tokenFailures).every((code) => code === 'unavailable'), `tokens: ${shown(figures.tokenFailures)}`);
      return `${figures.tokens} tokens fetched and validated; while no agent ran ${JSON.stringify(figures.tokenFailures)}`;
    });
    await report.check('what the killed agent has left is deleted, and nothing else is there', async () => {
      await eventually('no CertificateRequest', 30_000, async () => ((await manager.requests()).length === 0 ? true : undefined));
      const line = agent.log().split('\n').find((one) => one.includes('upstream.leftovers'));
      return line === undefined ? 'it had left none' : line.slice(0, 200);
    });
  },
};

interface Place {
  readonly socket: string;
  readonly id: string;
}
