import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { profileProblem, readCa } from '../../src/authority/ca-certificate.ts';
import { createCsr } from '../../src/authority/certificate.ts';
import { jwtAuthority, newKeyPair } from '../../src/authority/keys.ts';
import { readPrivateFile, writePrivateFile } from '../../src/authority/state-file.ts';
import { SystemClock } from '../../src/clock.ts';
import { EventBus } from '../../src/events.ts';
import type { Log, LogFields } from '../../src/log.ts';
import { systemRandom } from '../../src/random.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import type { UpstreamRequest } from '../../src/upstream/upstream.ts';
import type { NewKey } from '../../src/upstream/spire/agent-keeper.ts';
import type { Store } from '../../src/upstream/spire/agent-state.ts';
import { SpireSession, type SessionOptions, type SessionTools } from '../../src/upstream/spire/session.ts';
import type { SpireServer } from '../support/spire-server.ts';

export const trustDomain = parseTrustDomain('example.org');
export const patience = (): AbortSignal => AbortSignal.timeout(25_000);
const WAIT_MS = 25_000;

export const newKey: NewKey = async () => {
  const keys = await newKeyPair('ec-p256');
  return { privateKey: keys.privateKey, csr: await createCsr(keys, trustDomain, systemRandom) };
};

export function storeIn(directory: string, name: string): Store {
  const path = join(directory, name);
  return { path, read: () => readPrivateFile(path), write: (text) => writePrivateFile(path, text) };
}

export function scratch(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'signet-spire-state-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export interface Told {
  /** `event: reason`, and `failed: error` of upstreamFailed. */
  readonly lines: string[];
  readonly tools: Pick<SessionTools, 'clock' | 'random' | 'events' | 'log'>;
}

export function listen(): Told {
  const lines: string[] = [];
  const events = new EventBus();
  events.on('upstreamFailed', ({ error }) => void lines.push(`failed: ${error}`));
  const note = ({ event, reason = '' }: LogFields): void => void lines.push(`${event}: ${reason}`);
  const log: Log = { debug: note, info: note, warn: note, error: note };
  return { lines, tools: { clock: new SystemClock(), random: systemRandom, events, log } };
}

export interface OpenedSession extends Told {
  readonly session: SpireSession;
  readonly directory: string;
  readonly tokenFile: string;
}

/** A session with a server, which looks each 300 ms. `directory`: that of an earlier one, which is closed. */
export async function openSession(t: ExecutionContext, server: SpireServer, options: Partial<SessionOptions> & { directory?: string; token?: string } = {}): Promise<OpenedSession> {
  const { directory = scratch(t), token, ...more } = options;
  const tokenFile = join(directory, 'token');
  if (options.directory === undefined || token !== undefined) writeFileSync(tokenFile, token ?? (await server.token()));
  const told = listen();
  const session = new SpireSession(
    { host: '127.0.0.1', port: server.port, trustDomain, bundleFile: server.bundleFile, attestation: { method: 'join_token', tokenFile }, syncMs: 300, callMs: 5_000, ...more },
    { ...told.tools, newKey, jwtAuthority, judgeRoot: (root) => profileProblem(readCa(root), trustDomain)?.what, agentStore: storeIn(directory, 'spire-agent.json'), bundleStore: storeIn(directory, 'spire-bundle.json') },
  );
  t.teardown(() => session.close());
  await session.look();
  return { ...told, session, directory, tokenFile };
}

export async function asking(ttlMs = 3_600_000): Promise<UpstreamRequest> {
  const keys = await newKeyPair('ec-p256');
  return { trustDomain, publicKey: keys.publicKey, ttlMs, nameConstraint: 'none', csr: () => createCsr(keys, trustDomain, systemRandom) };
}

/** Resolves when `isSo` is true; looks each 50 ms, for 25 s at most. */
export async function until(what: string, isSo: () => boolean, lines: readonly string[] = []): Promise<void> {
  const end = performance.now() + WAIT_MS;
  while (!isSo()) {
    if (performance.now() > end) throw new Error(`${what}: not within ${WAIT_MS / 1_000} s\n${lines.join('\n')}`);
    await new Promise<void>((resolve) => void setTimeout(resolve, 50));
  }
}

/** Paths of a CA's certificate, and of a certificate `CN=node` under it with its key, as x509pop wants it. */
export function popMaterial(directory: string, type: 'ec' | 'rsa'): { readonly ca: string; readonly certificate: string; readonly key: string } {
  const path = (name: string): string => join(directory, name);
  const openssl = (...words: string[]): void => void execFileSync('openssl', words, { stdio: 'pipe' });
  const [ca, certificate, key] = [path('pop-ca.pem'), path('pop.pem'), path('pop.key')];
  const kind = type === 'ec' ? ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'] : ['-newkey', 'rsa:2048'];
  openssl('req', '-x509', ...kind, '-nodes', '-keyout', path('pop-ca.key'), '-out', ca, '-subj', '/CN=pop', '-days', '2', '-addext', 'keyUsage=critical,keyCertSign,cRLSign');
  openssl('req', ...kind, '-nodes', '-keyout', key, '-out', path('pop.csr'), '-subj', '/CN=node');
  writeFileSync(path('pop.ext'), 'keyUsage=critical,digitalSignature\n');
  openssl('x509', '-req', '-in', path('pop.csr'), '-CA', ca, '-CAkey', path('pop-ca.key'), '-set_serial', '7', '-days', '1', '-extfile', path('pop.ext'), '-out', certificate);
  return { ca, certificate, key };
}

/** What the k8s_psat attestor asks an API server: one token, its pod, and the node of that. */
export async function fakeApi(t: ExecutionContext): Promise<{ readonly url: string; readonly token: string }> {
  const token = 'a-token-of-signet';
  const extra = { 'authentication.kubernetes.io/pod-name': ['signet-1'], 'authentication.kubernetes.io/pod-uid': ['uid-of-the-pod'] };
  const answerTo = (url: string, body: string): object | undefined => {
    if (url.endsWith('/tokenreviews')) {
      const isGood = body.includes(token);
      const status = isGood ? { authenticated: true, audiences: ['spire-server'], user: { username: 'system:serviceaccount:signet-system:signet', extra } } : { authenticated: false };
      return { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', status };
    }
    if (url.includes('/pods/signet-1')) return { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'signet-1', uid: 'uid-of-the-pod' }, spec: { nodeName: 'node-1' } };
    if (url.includes('/nodes/node-1')) return { apiVersion: 'v1', kind: 'Node', metadata: { name: 'node-1', uid: 'uid-of-the-node' } };
    return undefined;
  };
  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (piece: string) => (body += piece));
    request.on('end', () => {
      const answer = answerTo(request.url ?? '', body);
      response.writeHead(answer === undefined ? 404 : request.method === 'POST' ? 201 : 200, { 'content-type': 'application/json' }).end(JSON.stringify(answer ?? {}));
    });
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => void server.close());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, token };
}
