import { LANGUAGE_ROWS, SPIRE_AGENT_CLI } from '../../interop/rows.ts';
import { NodeAgent } from '../agents.ts';
import { spireOrAgentMissing } from '../missing.ts';
import { spireFor, underSpire } from '../spire.ts';
import type { Step } from '../step.ts';
import { reportRow, runInterop, verifyStrictly } from './clients.ts';

/** The published clients of test/interop, and OpenSSL, against an agent under a SPIRE server. */
export const clientsSpire: Step = {
  title: 'all methods by the published clients, under SPIRE',
  missing: spireOrAgentMissing,
  async run(report, started) {
    const server = await spireFor(started);
    const agent = started.use(await NodeAgent.start(['interop'], { ...(await underSpire(server, 'token')), x509: { ttl: '60s' } }));
    await report.check('spire: openssl verify -x509_strict takes the chain', () => verifyStrictly(agent.socket));
    const proofs = await runInterop(agent.socket);
    // What fails elsewhere for a path length of 0 does not here: SPIRE gives none.
    for (const row of [...LANGUAGE_ROWS, SPIRE_AGENT_CLI]) await reportRow(report, 'spire', row.name, proofs);
  },
};
