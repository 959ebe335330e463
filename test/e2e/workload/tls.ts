/**
 * A workload that uses Signet's TypeScript client and Node's TLS: `tls.ts serve PORT`, or `tls.ts dial HOST PORT ID`. It prints
 * what the Go program beside it does.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type SecureContextOptions, type TLSSocket } from 'node:tls';
import { WorkloadApiClient } from '../../../src/client/workload-api-client.ts';
import { trustDomainOf } from '../../../src/spiffe/id.ts';

interface Own {
  readonly id: string;
  readonly tls: SecureContextOptions;
}

const [command, ...args] = process.argv.slice(2);
try {
  if (command === 'serve' && args.length === 1) await serve(Number(args[0]));
  else if (command === 'dial' && args.length === 3) await dial(args[0] ?? '', Number(args[1]), args[2] ?? '');
  else throw new Error('usage: serve PORT | dial HOST PORT ID');
} catch (error) {
  print({ event: 'failed', error: String(error) });
  process.exitCode = 1;
}

async function own(): Promise<Own> {
  await using client = new WorkloadApiClient({ env: process.env, timeoutMs: 30_000 });
  const { identities, bundles } = await client.fetchX509();
  const [identity] = identities;
  if (identity === undefined) throw new Error('no identity');
  const trusted = bundles.get(trustDomainOf(identity.id)) ?? [];
  const pem = createPrivateKey({ key: identity.privateKey, format: 'der', type: 'pkcs8' }).export({
    format: 'pem',
    type: 'pkcs8',
  });
  return { id: identity.id, tls: { key: pem, cert: identity.chain.map(pemOf).join(''), ca: trusted.map(pemOf) } };
}

async function serve(port: number): Promise<void> {
  const { id, tls } = await own();
  const server = createServer({ ...tls, requestCert: true, rejectUnauthorized: true }, (socket) => {
    socket.on('error', (error) => print({ event: 'rejected', error: error.message }));
    const peer = idOf(socket);
    print({ event: 'peer', id: peer });
    socket.end(`${peer}\n`);
  });
  server.on('tlsClientError', (error) => print({ event: 'rejected', error: error.message }));
  server.listen(port, () => print({ event: 'serving', id }));
  process.once('SIGTERM', () => process.exit(0));
}

async function dial(host: string, port: number, expected: string): Promise<void> {
  const { tls } = await own();
  // A SPIFFE ID is in the URI and says nothing of host names; who the peer is, is checked below, before anything is believed.
  const socket = connect({ ...tls, host, port, checkServerIdentity: () => undefined });
  await once(socket, 'secureConnect');
  const peer = idOf(socket);
  if (peer !== expected) throw new Error(`the server is ${peer}, not ${expected}`);
  let seen = '';
  for await (const chunk of socket) seen += String(chunk);
  print({ event: 'dialled', peer, seen: seen.trim() });
}

function idOf(socket: TLSSocket): string {
  const names = socket.getPeerX509Certificate()?.subjectAltName ?? '';
  return /URI:(spiffe:[^,\s]+)/.exec(names)?.[1] ?? '';
}

function pemOf(der: Buffer): string {
  return new X509Certificate(der).toString();
}

function print(line: Readonly<Record<string, unknown>>): void {
  console.log(JSON.stringify({ ...line, t: Date.now() }));
}
