import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import * as loader from '@grpc/proto-loader';

export type StreamCall = grpc.ServerWritableStream<object, object>;
export type UnaryAnswer = (request: object) => object | grpc.ServiceError;

export interface Behaviour {
  readonly FetchX509SVID?: (call: StreamCall, attempt: number) => void;
  readonly FetchJWTSVID?: UnaryAnswer;
  readonly ValidateJWTSVID?: UnaryAnswer;
}

export interface FaultyServer {
  readonly endpoint: string;
  /** Values of the security header, one list for each call. */
  readonly headers: (readonly (string | Buffer)[])[];
  stop(): Promise<void>;
}

const PROTO = new URL('../../proto/workloadapi.proto', import.meta.url).pathname;

/** A server that does what no good agent does: it breaks off, ends with OK, or sends what is malformed. */
export async function startFaultyServer(behaviour: Behaviour): Promise<FaultyServer> {
  const definition = await loader.load(PROTO, { keepCase: true });
  const directory = await mkdtemp(join(tmpdir(), 'signet-client-'));
  const endpoint = `unix://${join(directory, 'a.sock')}`;
  const headers: FaultyServer['headers'] = [];
  let attempt = 0;
  const unary = (answer: UnaryAnswer | undefined): grpc.handleUnaryCall<object, object> => (call, callback) => {
    headers.push(call.metadata.get('workload.spiffe.io'));
    const result = answer?.(call.request) ?? refusal(grpc.status.UNIMPLEMENTED, 'not here');
    if (result instanceof Error) callback(result);
    else callback(null, result);
  };
  const server = new grpc.Server();
  server.addService(definition['SpiffeWorkloadAPI'] as grpc.ServiceDefinition, {
    FetchX509SVID: (call: StreamCall) => {
      headers.push(call.metadata.get('workload.spiffe.io'));
      attempt += 1;
      behaviour.FetchX509SVID?.(call, attempt);
    },
    FetchJWTSVID: unary(behaviour.FetchJWTSVID),
    ValidateJWTSVID: unary(behaviour.ValidateJWTSVID),
  });
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(endpoint, grpc.ServerCredentials.createInsecure(), (error) => (error ? reject(error) : resolve()));
  });
  const stop = async (): Promise<void> => {
    server.forceShutdown();
    await rm(directory, { recursive: true, force: true });
  };
  return { endpoint, headers, stop };
}

export function refusal(code: grpc.status, details: string): grpc.ServiceError {
  return Object.assign(new Error(details), { code, details, metadata: new grpc.Metadata() });
}
