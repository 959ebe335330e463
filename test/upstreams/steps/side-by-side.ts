import { holds, shown } from '../../e2e/expect.ts';
import { pause } from '../../e2e/wait.ts';
import { SpireAgent, type SpireServer } from '../../support/spire-server.ts';
import { idOf, NodeAgent } from '../agents.ts';
import { spireOrAgentMissing } from '../missing.ts';
import type { Report } from '../report.ts';
import { spireFor, underSpire } from '../spire.ts';
import type { Step } from '../step.ts';
import { flawless, seconds, Traffic } from '../traffic-process.ts';
import { firstToken } from './outage.ts';

const RATE = 10;
const WORKLOADS = ['server', 'client'];
/** SVIDs of 60 s are renewed at half of that, on both sides. */
const ROTATED_MS = 75_000;
const HALF_LIFE_MS = 35_000;
/** SPIRE's agents look each 5 s, as Signet does. */
const SYNCED_MS = 15_000;

/** Workloads on SPIRE's agent and workloads on Signet, with the same IDs, under one SPIRE server. */
export const sideBySide: Step = {
  title: 'SPIRE agents and Signet in one trust domain: mutual TLS and tokens in both directions, rotations on each side, a node that moves',
  missing: spireOrAgentMissing,
  async run(report, started) {
    const server = await spireFor(started);
    const config = { ...(await underSpire(server, 'token')), x509: { ttl: '60s' } };
    const signet = started.use(await NodeAgent.start(WORKLOADS, config));
    const spire = started.use(await SpireAgent.start(server, WORKLOADS.map((name) => `/${name}`)));
    await firstToken(at(signet, 'client'));
    const toSignet = started.use(await Traffic.start({ server: at(signet, 'server'), client: at(spire, 'client'), rate: RATE, tokens: true }));
    const toSpire = started.use(await Traffic.start({ server: at(spire, 'server'), client: at(signet, 'client'), rate: RATE, tokens: true }));
    const both = [toSignet, toSpire] as const;
    await report.check('mutual TLS and JWT-SVIDs between the two, in both directions, while the SVIDs of both rotate', async () => {
      await pause(ROTATED_MS);
      return bothFlawless(both, 4);
    });
    await report.check("SPIRE's X.509 authority is prepared, activated, tainted and revoked", () => rotateX509(report, server, both));
    await report.check("SPIRE's JWT authority is prepared, activated, tainted and revoked", () => rotateJwt(report, server, both));
    await report.check("Signet's JWT key is prepared and activated", async () => {
      await signet.signet('authority', 'prepare', 'jwt');
      await pause(SYNCED_MS);
      await signet.signet('authority', 'activate', 'jwt', '--force');
      await pause(HALF_LIFE_MS);
      return bothFlawless(both);
    });
    await report.check('a node moves from SPIRE to Signet and back: same socket, same IDs, its workloads are not restarted', () => moveOver(report, server, spire, config));
    await report.check('nobody else has noticed any of it', () => bothFlawless(both));
  },
};

interface Place {
  readonly socket: string;
  readonly id: string;
}

function at({ socket }: { readonly socket: string }, name: string): Place {
  return { socket, id: idOf(name) };
}

function bothFlawless(both: readonly Traffic[], leaves = 0): string {
  const lines = both.map((traffic, index) => {
    const { figures } = traffic;
    holds(figures.leaves >= leaves, `only ${figures.leaves} leaves were presented`);
    holds(figures.tokens > 0 && Object.keys(figures.tokenFailures).length === 0, `tokens: ${figures.tokens} valid, failed ${shown(figures.tokenFailures)}`);
    return `${index === 0 ? 'SPIRE to Signet' : 'Signet to SPIRE'}: ${flawless(figures)}; ${figures.leaves} leaves, ${figures.tokens} tokens fetched on one side and validated on the other`;
  });
  return lines.join('\n');
}

/** As SPIRE's documents say. Everybody is under the new root before the former one is taken out. */
async function rotateX509(report: Report, server: SpireServer, both: readonly Traffic[]): Promise<string> {
  const former = await activeAuthority(server, 'x509');
  const issuers = both.map(({ figures }) => figures.issuers);
  const next = await prepareAuthority(server, 'x509');
  await believe(both, 2);
  report.note('the new root is everywhere');
  await server.cli('localauthority', 'x509', 'activate', '-authorityID', next);
  await server.cli('localauthority', 'x509', 'taint', '-authorityID', former);
  const tainted = performance.now();
  await Promise.all(both.map((traffic, index) => traffic.until('leaves under the new root at both ends', 90_000, (now) => now.issuers >= (issuers[index] ?? 0) + 2)));
  const replaced = performance.now() - tainted;
  report.note('leaves stand under the new root');
  await pause(2 * HALF_LIFE_MS);
  await server.cli('localauthority', 'x509', 'revoke', '-authorityID', former);
  const revoked = performance.now();
  await believe(both, 1);
  const gone = performance.now() - revoked;
  await pause(SYNCED_MS);
  return `leaves of both sides under the new root ${seconds(replaced)} after the taint, the former root out of all bundles ${seconds(gone)} after it was revoked\n${bothFlawless(both)}`;
}

async function rotateJwt(report: Report, server: SpireServer, both: readonly Traffic[]): Promise<string> {
  const former = await activeAuthority(server, 'jwt');
  const next = await prepareAuthority(server, 'jwt');
  await pause(SYNCED_MS);
  await server.cli('localauthority', 'jwt', 'activate', '-authorityID', next);
  await server.cli('localauthority', 'jwt', 'taint', '-authorityID', former);
  report.note('the former JWT authority is tainted');
  await pause(2 * HALF_LIFE_MS);
  await server.cli('localauthority', 'jwt', 'revoke', '-authorityID', former);
  await pause(SYNCED_MS);
  return bothFlawless(both);
}

/** Signet takes the place of a SPIRE agent on its socket. */
async function moveOver(report: Report, server: SpireServer, peer: SpireAgent, config: Readonly<Record<string, unknown>>): Promise<string> {
  await using started = new AsyncDisposableStack();
  const former = started.use(await SpireAgent.start(server, [], {}));
  const traffic = started.use(await Traffic.start({ server: at(former, 'server'), client: at(peer, 'client'), rate: RATE, watchers: 4 }));
  await pause(5_000);
  const { issuers, watchers } = traffic.figures;
  const { authority } = await underSpire(server, 'token-of-the-node');
  const next = started.use(await NodeAgent.start(WORKLOADS, { ...config, authority, socketPath: former.socket }));
  report.note('Signet has the socket; the SPIRE agent is stopped');
  await former.stop();
  await traffic.until('leaves of Signet at the server', 60_000, (now) => now.issuers > issuers && now.watchers.broken === 0 && now.watchers.updates > watchers.updates);
  await pause(HALF_LIFE_MS);
  const there = traffic.figures;
  report.note('Signet is stopped, the SPIRE agent started again');
  await next[Symbol.asyncDispose]();
  await former.start();
  await traffic.until('every stream goes on at the SPIRE agent', 60_000, (now) => now.watchers.broken === 0 && now.watchers.updates > there.watchers.updates);
  await pause(HALF_LIFE_MS);
  const back = await traffic.stop();
  const gap = (figures: typeof back): string => `longest from the break to the next update ${seconds(figures.watchers.longestGapMs)}`;
  return `${flawless(back)}; interruptions ${shown(back.watchers.interruptions)}; there: ${gap(there)}; there and back: ${gap(back)}`;
}

async function believe(both: readonly Traffic[], roots: number): Promise<void> {
  await Promise.all(both.map((traffic) => traffic.until(`${roots} roots at both ends`, 60_000, ({ watchers }) => watchers.roots[0] === roots && watchers.roots[1] === roots)));
}

type Kind = 'x509' | 'jwt';

async function activeAuthority(server: SpireServer, kind: Kind): Promise<string> {
  const { active } = JSON.parse(await server.cli('localauthority', kind, 'show', '-output', 'json')) as { active: { authority_id: string } };
  return active.authority_id;
}

async function prepareAuthority(server: SpireServer, kind: Kind): Promise<string> {
  const { prepared_authority: prepared } = JSON.parse(await server.cli('localauthority', kind, 'prepare', '-output', 'json')) as { prepared_authority: { authority_id: string } };
  return prepared.authority_id;
}
