import { spireOrAgentMissing } from '../missing.ts';
import { spireFor, underSpire } from '../spire.ts';
import type { Step } from '../step.ts';
import { rideOutage } from './outage.ts';

/** As `outage`, under a SPIRE server. */
export const outageSpire: Step = {
  title: 'SPIRE is stopped for 3 minutes under load, 60 s SVIDs, the agent killed and restarted in the middle',
  missing: spireOrAgentMissing,
  async run(report, started) {
    const server = await spireFor(started);
    await rideOutage(report, started, { name: 'spire', config: await underSpire(server, 'token'), stop: () => server.stop(), start: () => server.start() });
  },
};
