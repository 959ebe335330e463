import { fileURLToPath } from 'node:url';
import type { CallOptions, Client } from '@grpc/grpc-js';
import type { MethodDefinition } from '@grpc/proto-loader';
import type { StreamMethod, UnaryMethod, WorkloadApi } from './messages.ts';
import { WorkloadApiError, toWorkloadApiError } from './workload-api-error.ts';

/** When a call has to end. Without `deadline` (milliseconds since the Unix epoch) it may last for ever. */
export interface CallLimits {
  readonly signal?: AbortSignal | undefined;
  readonly deadline?: number | undefined;
}

type Request<M extends keyof WorkloadApi> = WorkloadApi[M]['request'];
type Response<M extends keyof WorkloadApi> = WorkloadApi[M]['response'];

/** The calls of the Workload API on one endpoint, as messages. */
export interface Wire {
  unary<M extends UnaryMethod>(method: M, request: Request<M>, limits: CallLimits): Promise<Response<M>>;
  /** One call on a connection of its own. Ends when the server ends it with OK. */
  stream<M extends StreamMethod>(method: M, request: Request<M>, limits: CallLimits): AsyncGenerator<Response<M>>;
  /** The status that `grpc.health.v1.Health/Check` gives for the whole server, as its number: 1 is SERVING. */
  healthStatus(limits: CallLimits): Promise<number>;
  close(): void;
}

/** The same depth below src/ and below dist/. */
const PROTO = fileURLToPath(new URL('../../proto/workloadapi.proto', import.meta.url));

const CHANNEL_OPTIONS = {
  // A connection that failed must not make the next call wait, and a proxy of the environment has no business here.
  'grpc.use_local_subchannel_pool': 1,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1_000,
  'grpc.enable_http_proxy': 0,
  'grpc.service_config_disable_resolution': 1,
};

/** Opens the endpoint `target` (as `parseEndpoint` returns it). Loads grpc-js on first use; connects on the first call. */
export async function openWire(target: string): Promise<Wire> {
  const [grpc, methods] = await Promise.all([import('@grpc/grpc-js'), loadMethods()]);
  const connect = (): Client => new grpc.Client(target, grpc.credentials.createInsecure(), CHANNEL_OPTIONS);
  // Workload Endpoint §6: every request has this, exactly.
  const header = (): InstanceType<typeof grpc.Metadata> => {
    const metadata = new grpc.Metadata();
    metadata.set('workload.spiffe.io', 'true');
    return metadata;
  };
  let shared: Client | undefined;

  const unary = <Sent, Received>(
    path: string,
    encode: (request: Sent) => Buffer,
    decode: (bytes: Buffer) => Received,
    request: Sent,
    limits: CallLimits,
  ): Promise<Received> =>
    new Promise((resolve, reject) => {
      limits.signal?.throwIfAborted();
      shared ??= connect();
      const call = shared.makeUnaryRequest(path, encode, decode, request, header(), callOptions(limits), (error, response) => {
        limits.signal?.removeEventListener('abort', cancel);
        if (limits.signal?.aborted) reject(limits.signal.reason);
        else if (error !== null) reject(toWorkloadApiError(error));
        else if (response === undefined) reject(new WorkloadApiError('failed', 13, 'the answer has no message'));
        else resolve(response);
      });
      const cancel = (): void => call.cancel();
      limits.signal?.addEventListener('abort', cancel, { once: true });
    });

  return {
    unary: (method, request, limits) => {
      const { path, requestSerialize } = methods[method];
      return unary(path, requestSerialize, decoder<Response<typeof method>>(methods[method]), request, limits);
    },
    async *stream(method, request, limits) {
      limits.signal?.throwIfAborted();
      const { path, requestSerialize } = methods[method];
      const client = connect();
      const decode = decoder<Response<typeof method>>(methods[method]);
      const call = client.makeServerStreamRequest(path, requestSerialize, decode, request, header(), callOptions(limits));
      // A call that is cancelled after the last read still reports it.
      call.on('error', () => undefined);
      const cancel = (): void => call.cancel();
      limits.signal?.addEventListener('abort', cancel, { once: true });
      try {
        for await (const message of call) yield message as Response<typeof method>;
      } catch (error) {
        limits.signal?.throwIfAborted();
        throw toWorkloadApiError(error);
      } finally {
        limits.signal?.removeEventListener('abort', cancel);
        call.cancel();
        client.close();
      }
    },
    healthStatus: (limits) => unary('/grpc.health.v1.Health/Check', () => Buffer.alloc(0), decodeHealth, undefined, limits),
    close: () => {
      shared?.close();
      shared = undefined;
    },
  };
}

type Methods = Readonly<Record<StreamMethod | UnaryMethod, MethodDefinition<object, object>>>;
let loaded: Promise<Methods> | undefined;

async function loadMethods(): Promise<Methods> {
  loaded ??= readMethods();
  return loaded;
}

async function readMethods(): Promise<Methods> {
  const loader = await import('@grpc/proto-loader');
  const definition = await loader.load(PROTO, { keepCase: true, defaults: true, arrays: true, objects: true, oneofs: true });
  return definition['SpiffeWorkloadAPI'] as unknown as Methods;
}

/** The one place where the loaded definition's `object` becomes a message: proto-loader fills in every field. */
function decoder<Received>(definition: MethodDefinition<object, object>): (bytes: Buffer) => Received {
  return (bytes) => definition.responseDeserialize(bytes) as Received;
}

function callOptions(limits: CallLimits): CallOptions {
  return limits.deadline === undefined ? {} : { deadline: limits.deadline };
}

/** HealthCheckResponse has one field, number 1, an enumeration; absent means UNKNOWN (0). */
function decodeHealth(bytes: Buffer): number {
  return bytes[0] === 0x08 ? (bytes[1] ?? 0) : 0;
}
