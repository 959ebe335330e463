import { certManagerFor, certManagerMissing, rootNow, underCertManager } from '../cert-manager.ts';
import { holds } from '../../e2e/expect.ts';
import { eventually, pause } from '../../e2e/wait.ts';
import { announced, Pair } from '../rotation.ts';
import type { Step } from '../step.ts';
import { flawless, seconds } from '../traffic-process.ts';

/** Agents hear of a changed ConfigMap by a watch; so long they wait, for others whose watch has just broken off. */
const OVERLAP_MS = 60_000;

/** The root in the ConfigMap first, then the Secret of the issuer, then the former root goes; then an issuer under a root that nobody knows. */
export const certManagerRotation: Step = {
  title: 'cert-manager: the root is replaced, 50 connections a second between two agents',
  missing: certManagerMissing,
  async run(report, started) {
    const { manager, root, kubeconfig } = await certManagerFor(started);
    const config = underCertManager(kubeconfig, 'intermediate');
    // A node CA of 2 minutes follows the issuer within one.
    const authority = { ...(config['authority'] as object), ttl: '2m' };
    const pair = await Pair.start({ ...config, authority }, started);
    const second = await rootNow('second root');
    await announced(report, pair, {
      publish: () => manager.believe(root.certificate, second.certificate),
      swap: () => manager.sign(second),
      remove: () => manager.believe(second.certificate),
      roots: 2,
      waitMs: OVERLAP_MS,
    });
    const [agent] = pair.agents;
    await report.check('an issuer under a root that was not announced: nothing under it is used, and the reason is told', async () => {
      const since = agent.log().length;
      const { issuers } = pair.traffic.figures;
      await manager.sign(await rootNow('third root'));
      const told = await eventually('the line', 120_000, async () => agent.log().slice(since).split('\n').find((line) => /no root of authority\.certManager verifies it/.test(line)));
      holds(pair.traffic.figures.issuers <= issuers + 2, 'something else signs');
      await manager.sign(second);
      const repaired = performance.now();
      const before = pair.traffic.figures.issuers;
      await pair.isReplaced(before, 180_000);
      await pause(5_000);
      return `"${/"err":"((?:[^"\\]|\\.)*)/.exec(told)?.[1]?.slice(0, 160)}"; both ends under new node CAs ${seconds(performance.now() - repaired)} after the repair; ${flawless(pair.traffic.figures)}`;
    });
  },
};
