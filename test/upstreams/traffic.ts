/**
 * Workloads that make mutual-TLS connections to each other without pause, with the newest SVIDs that their agents gave them:
 * `traffic.ts '{"server": {"socket", "id"}, "client": {"socket", "id"}, "rate": 50, "watchers": 0, "tokens": false}'`.
 *
 * Ends with SIGTERM, or when its stdin does. Prints the Figures of traffic-figures.ts.
 */
import { createHash, createPrivateKey, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { connect, createSecureContext, createServer, type SecureContextOptions, type TLSSocket } from 'node:tls';
import { WorkloadApiClient } from '../../src/client/workload-api-client.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import { Watcher } from './watcher.ts';
import type { Figures, Watched } from './traffic-figures.ts';

interface Place {
  readonly socket: string;
  readonly id: string;
}

interface Plan {
  readonly server: Place;
  readonly client: Place;
  /** Connections each second. */
  readonly rate: number;
  /** Further streams that only watch, half of them at each socket. */
  readonly watchers: number;
  /** Also a JWT-SVID each second, validated by the other side's agent. */
  readonly tokens: boolean;
}

const PATIENCE_MS = 30_000;
const TELL_MS = 1_000;
const LOOK_MS = 100;
const PACE_MS = 10;
/** Connections at one moment: those of a second when all wait. */
const MOST_OPEN = 100;

const plan = JSON.parse(process.argv[2] ?? '{}') as Plan;
const stopping = new AbortController();
for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => stopping.abort());
process.stdin.resume().once('end', () => stopping.abort());

let connections = 0;
let dialled = 0;
let open = 0;
let slowestMs = 0;
/** How long this process itself was kept from running: what is slow then says nothing of certificates. */
const stalls = monitorEventLoopDelay({ resolution: 20 });
let tokens = 0;
let leastLifeMs = Infinity;
let failedFrom: number | undefined;
let failedUntil: number | undefined;
const failures: Record<string, number> = {};
const tokenFailures: Record<string, number> = {};
const leaves = new Set<string>();
const issuers = new Set<string>();

const [server, client] = [new Watcher(plan.server, stopping.signal), new Watcher(plan.client, stopping.signal)];
const others = Array.from({ length: plan.watchers }, (_, index) => new Watcher(index % 2 === 0 ? plan.server : plan.client, stopping.signal));
const watchers = [server, client, ...others];
await Promise.all(watchers.map((watcher) => watcher.first));

// Everybody is let in as far as to be told why not: a server that only closes leaves its reason unknown.
const listener = createServer({ ...contextOf(server), requestCert: true, rejectUnauthorized: false }, (socket) => {
  socket.on('error', () => undefined);
  socket.end(judge(socket, plan.client.id) ?? 'ok');
});
listener.on('tlsClientError', () => undefined);
server.onUpdate = () => listener.setSecureContext(contextOf(server));
let clientContext = createSecureContext(contextOf(client));
client.onUpdate = () => (clientContext = createSecureContext(contextOf(client)));
listener.listen(0, '127.0.0.1');
await once(listener, 'listening');
const { port } = listener.address() as AddressInfo;

const [caller, validator] = [plan.client, plan.server].map(
  ({ socket }) => new WorkloadApiClient({ endpoint: `unix://${socket}`, timeoutMs: 5_000 }),
) as [WorkloadApiClient, WorkloadApiClient];
stalls.enable();
const began = performance.now();
const timers = [
  setInterval(() => dialWhatIsDue(), PACE_MS),
  setInterval(() => tell(), TELL_MS),
  setInterval(() => watchers.forEach((watcher) => watcher.look()), LOOK_MS),
  ...(plan.tokens ? [setInterval(() => void exchangeToken(), 1_000)] : []),
];
await once(stopping.signal, 'abort');
timers.forEach((timer) => clearInterval(timer));
tell();
process.exit(0);

/** Timers come late on a busy machine: what was missed is made up for. */
function dialWhatIsDue(): void {
  const due = ((performance.now() - began) / 1_000) * plan.rate;
  for (; dialled < due && open < MOST_OPEN; dialled += 1) void dialAndCount();
}

async function dialAndCount(): Promise<void> {
  open += 1;
  const from = performance.now();
  try {
    await dial();
    slowestMs = Math.max(slowestMs, performance.now() - from);
    connections += 1;
  } catch (error) {
    failedFrom ??= Date.now();
    failedUntil = Date.now();
    count(failures, error instanceof Error ? error.message : String(error));
  } finally {
    open -= 1;
  }
}

/** A handshake with TLS 1.3 is over for the client before the server has judged it: its answer counts. */
async function dial(): Promise<void> {
  // A SPIFFE ID is in the URI and says nothing of host names; who the peer is, is judged below.
  const socket = connect({ secureContext: clientContext, host: '127.0.0.1', port, checkServerIdentity: () => undefined });
  let late: Error | undefined;
  const bound = setTimeout(() => {
    late = new Error(`no answer within ${PATIENCE_MS / 1_000} s, ${socket.authorized ? 'after the handshake' : 'before the end of the handshake'}`);
    socket.destroy(late);
  }, PATIENCE_MS);
  try {
    await once(socket, 'secureConnect');
    const problem = judge(socket, plan.server.id);
    if (problem !== undefined) throw new Error(`the client: ${problem}`);
    let answer = '';
    for await (const chunk of socket) answer += String(chunk);
    if (answer !== 'ok') throw new Error(`the server: ${answer === '' ? 'closed' : answer}`);
  } catch (error) {
    throw late ?? error;
  } finally {
    clearTimeout(bound);
    socket.destroy();
  }
}

/** Notes what the peer presented; returns what is wrong with it. */
function judge(socket: TLSSocket, expected: string): string | undefined {
  const leaf = socket.getPeerX509Certificate();
  if (leaf === undefined) return 'no certificate';
  if (!socket.authorized) return String(socket.authorizationError);
  const lifeMs = leaf.validToDate.getTime() - Date.now();
  leastLifeMs = Math.min(leastLifeMs, lifeMs);
  leaves.add(leaf.serialNumber);
  issuers.add(createHash('sha256').update(leaf.issuerCertificate?.raw ?? leaf.issuer).digest('hex'));
  if (lifeMs <= 0) return `an expired certificate: ${lifeMs} ms`;
  const id = /URI:(spiffe:[^,\s]+)/.exec(leaf.subjectAltName ?? '')?.[1];
  return id === expected ? undefined : `it is ${id}, not ${expected}`;
}

async function exchangeToken(): Promise<void> {
  try {
    const [svid] = await caller.fetchJwtSvids({ audience: [plan.server.id], id: parseSpiffeId(plan.client.id) });
    if (svid === undefined) throw new Error('no token');
    await validator.validateJwtSvid({ audience: plan.server.id, token: svid.token });
    tokens += 1;
  } catch (error) {
    count(tokenFailures, error instanceof Error && 'code' in error ? String(error.code) : String(error));
  }
}

function contextOf(watcher: Watcher): SecureContextOptions {
  const { identity, roots } = watcher.newest;
  const key = createPrivateKey({ key: identity.privateKey, format: 'der', type: 'pkcs8' }).export({ format: 'pem', type: 'pkcs8' });
  return { key, cert: identity.chain.map(pemOf).join(''), ca: roots.map(pemOf) };
}

function pemOf(der: Buffer): string {
  return new X509Certificate(der).toString();
}

function count(counts: Record<string, number>, what: string): void {
  counts[what] = (counts[what] ?? 0) + 1;
}

function tell(): void {
  const figures: Figures = {
    ranMs: Math.round(performance.now() - began),
    connections,
    failures,
    ...(failedFrom === undefined || failedUntil === undefined ? {} : { failedFrom, failedUntil }),
    ...(Number.isFinite(leastLifeMs) ? { leastLifeMs } : {}),
    slowestMs: Math.round(slowestMs),
    longestStallMs: Math.round(stalls.max / 1e6),
    leaves: leaves.size,
    issuers: issuers.size,
    watchers: watched(),
    tokens,
    tokenFailures,
  };
  process.stdout.write(`${JSON.stringify(figures)}\n`);
}

function watched(): Watched {
  const interruptions: Record<string, number> = {};
  for (const watcher of watchers) for (const code of watcher.interruptions) count(interruptions, code);
  const roots = watchers.map(({ newest }) => newest.roots.length);
  return {
    updates: watchers.reduce((sum, { updates }) => sum + updates, 0),
    leastLifeMs: Math.min(...watchers.map((watcher) => watcher.leastLifeMs)),
    interruptions,
    longestGapMs: Math.round(Math.max(...watchers.map((watcher) => watcher.longestGapMs))),
    broken: watchers.filter(({ isBroken }) => isBroken).length,
    roots: [Math.min(...roots), Math.max(...roots)],
  };
}
