import { writeFileSync } from 'node:fs';
import { holds } from '../../e2e/expect.ts';
import type { SpireServer } from '../../support/spire-server.ts';
import { spireOrAgentMissing } from '../missing.ts';
import { spireFor, underSpire } from '../spire.ts';
import type { Step } from '../step.ts';
import { rideFaults, type Fault } from './faults.ts';

/** Each fault of a SPIRE server has a log line and a metric of its own, and is over without a restart of the agent. */
export const faultsSpire: Step = {
  title: 'faults of SPIRE: each is named, and is over without a restart of the agent',
  missing: spireOrAgentMissing,
  async run(report, started) {
    const server = await spireFor(started, { agentTtl: '2m' });
    // A node CA of a minute is renewed each 30 s, so that what is wrong shows soon.
    const config = { ...(await underSpire(server, 'token', '1m')), x509: { ttl: '30s' }, jwt: { ttl: '30s' } };
    await rideFaults(report, started, { label: 'spire', upstream: 'spire', config, faults: faultsOf(server), isSigned: 'issuers' });
  },
};

function faultsOf(server: SpireServer): readonly Fault[] {
  const newToken = async (): Promise<void> => writeFileSync(server.path('token'), await server.token());
  const entry = async (): Promise<string> => /^Entry ID\s*: (\S+)/m.exec(await server.cli('entry', 'show', '-downstream'))?.[1] ?? '';
  return [
    { name: 'stopped', cause: () => server.stop(), line: /cannot be reached: .*ECONNREFUSED/, repair: () => server.start() },
    { name: 'downstream entry deleted', cause: async () => server.deleteEntry(await entry()), line: /no downstream entry for our agent/, repair: () => server.addDownstream() },
    {
      name: 'agent evicted, its join token used',
      cause: async () => evict(server, await agentOf(server)),
      line: /does not know our agent.*already been used.*token generate/,
      repair: newToken,
    },
    {
      name: 'agent banned',
      cause: async () => server.cli('agent', 'ban', '-spiffeID', await agentOf(server)),
      line: /our agent is banned.*agent evict/,
      repair: async () => {
        await evict(server, await agentOf(server));
        await newToken();
      },
    },
    {
      name: 'server made anew, with other roots',
      cause: async () => {
        await server.wipe();
        const { bundleFile } = server;
        await server.start(`${bundleFile}.new`);
      },
      line: /cannot be authenticated: .*spire-server bundle show/,
      repair: async () => {
        await server.addDownstream();
        writeFileSync(server.bundleFile, await server.cli('bundle', 'show'));
        await newToken();
      },
    },
  ];
}

/** The only one there is. */
async function agentOf(server: SpireServer): Promise<string> {
  const ids = [...(await server.cli('agent', 'list')).matchAll(/^SPIFFE ID\s*: (\S+)/gm)].map(([, id = '']) => id);
  holds(ids.length === 1, `agents: ${ids.join(', ')}`);
  return ids[0] ?? '';
}

async function evict(server: SpireServer, id: string): Promise<void> {
  await server.cli('agent', 'evict', '-spiffeID', id);
}
