import { X509Certificate } from 'node:crypto';
import { writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { credentials, Metadata, makeGenericClientConstructor, type ServiceDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

/**
 * A workload in a process of its own, over grpc-js alone: `node workload-client.ts SOCKET [stream|loop] [UID]`.
 *
 * stream: one FetchX509SVID; a line for each message, then one for its end. loop: opens the stream again, at once, until it is
 * killed. Each line is JSON: { serial, notAfter } or { code, details }.
 */
const [socketPath = '', mode = 'stream', uid] = process.argv.slice(2);
if (uid !== undefined) {
  process.setgroups?.([]);
  process.setgid?.(Number(uid));
  process.setuid?.(Number(uid));
}

const proto = fileURLToPath(new URL('../../proto/workloadapi.proto', import.meta.url));
const definition = loadSync(proto, { keepCase: true })['SpiffeWorkloadAPI'] as unknown as ServiceDefinition;
const client = new (makeGenericClientConstructor(definition, 'SpiffeWorkloadAPI'))(`unix:${socketPath}`, credentials.createInsecure(), {
  'grpc.initial_reconnect_backoff_ms': 20,
  'grpc.max_reconnect_backoff_ms': 200,
  'grpc.use_local_subchannel_pool': 1,
});
const metadata = new Metadata();
metadata.set('workload.spiffe.io', 'true');

interface Response {
  readonly svids: readonly { readonly x509_svid: Buffer }[];
}

open();

function open(): void {
  const call = client.makeServerStreamRequest<object, Response>(
    '/SpiffeWorkloadAPI/FetchX509SVID',
    definition['FetchX509SVID']!.requestSerialize,
    definition['FetchX509SVID']!.responseDeserialize as (bytes: Buffer) => Response,
    {},
    metadata,
  );
  call.on('data', (message: Response) => {
    const leaf = new X509Certificate(message.svids[0]!.x509_svid);
    say({ serial: leaf.serialNumber.toLowerCase(), notAfter: leaf.validToDate.getTime() });
  });
  call.on('error', (error: Error & { code?: number; details?: string }) => {
    say({ code: error.code, details: error.details });
    if (mode === 'loop') setTimeout(open, 10);
  });
  call.on('end', () => say({ end: true }));
}

function say(line: object): void {
  writeSync(1, `${JSON.stringify(line)}\n`);
}
