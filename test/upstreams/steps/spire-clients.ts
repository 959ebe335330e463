import { NodeAgent } from '../agents.ts';
import { spireOrAgentMissing } from '../missing.ts';
import { spireFor, underSpire } from '../spire.ts';
import type { Step } from '../step.ts';
import { byClients } from './clients.ts';

/** The published clients of test/interop, and OpenSSL, against an agent under a SPIRE server. */
export const clientsSpire: Step = {
  title: 'all methods by the published clients, under SPIRE',
  missing: spireOrAgentMissing,
  async run(report, started) {
    const server = await spireFor(started);
    const agent = started.use(await NodeAgent.start(['interop'], { ...(await underSpire(server, 'token')), x509: { ttl: '60s' } }));
    await byClients(report, 'spire', agent.socket, { hasPathLength: false });
  },
};
