import { fileURLToPath } from 'node:url';
import { credentials, makeGenericClientConstructor, Metadata, type Client, type ServiceDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const PROTO_DIRECTORY = fileURLToPath(new URL('../../proto/', import.meta.url));
const load = (file: string, name: string): ServiceDefinition => loadSync(`${PROTO_DIRECTORY}${file}`, { keepCase: true, enums: String, defaults: true })[name] as unknown as ServiceDefinition;

const services = { SpiffeWorkloadAPI: load('workloadapi.proto', 'SpiffeWorkloadAPI'), 'grpc.health.v1.Health': load('health.proto', 'grpc.health.v1.Health') };

/** How a call ended that did not succeed. */
export interface Ended {
  readonly code: number;
  readonly details: string;
}

export interface Svid {
  readonly spiffe_id: string;
  readonly x509_svid: Buffer;
  readonly x509_svid_key: Buffer;
  readonly bundle: Buffer;
  readonly hint: string;
  readonly svid: string;
}

export type Headers = readonly (readonly [name: string, value: string])[];

/** What a workload sends on every call (WE-07). */
export const SECURITY: Headers = [['workload.spiffe.io', 'true']];

/** A client without habits: one connection, one call, nothing repeated, nothing checked. */
export class RawClient {
  readonly #client: Client;

  constructor(socketPath: string) {
    const options = { 'grpc.use_local_subchannel_pool': 1, 'grpc.initial_reconnect_backoff_ms': 20, 'grpc.enable_retries': 0 };
    this.#client = new (makeGenericClientConstructor({}, 'Raw'))(`unix:${socketPath}`, credentials.createInsecure(), options);
  }

  close(): void {
    this.#client.close();
  }

  unary<T>(path: string, request: object, headers: Headers = SECURITY): Promise<T> {
    const method = methodOf(path);
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(path, method.requestSerialize, method.responseDeserialize, request, metadataOf(headers), (error, answer) =>
        error === null ? resolve(answer as T) : reject(Object.assign(new Error(error.details), { code: error.code, details: error.details })),
      );
    });
  }

  stream<T>(path: string, request: object = {}, headers: Headers = SECURITY): RawStream<T> {
    const method = methodOf(path);
    const call = this.#client.makeServerStreamRequest(path, method.requestSerialize, method.responseDeserialize, request, metadataOf(headers));
    return new RawStream<T>(call);
  }
}

/** The messages of a stream, one after the other. */
export class RawStream<T> {
  readonly #call: { cancel(): void };
  readonly #messages: T[] = [];
  #end: Ended | undefined;
  #changed = Promise.withResolvers<void>();

  constructor(call: import('@grpc/grpc-js').ClientReadableStream<unknown>) {
    this.#call = call;
    call.on('data', (message: T) => this.#change(() => this.#messages.push(message)));
    call.on('error', () => undefined);
    call.on('status', ({ code, details }) => this.#change(() => (this.#end = { code, details })));
  }

  /** The next message; rejects with how the stream ended. */
  async next(): Promise<T> {
    for (;;) {
      const message = this.#messages.shift();
      if (message !== undefined) return message;
      if (this.#end !== undefined) throw Object.assign(new Error(this.#end.details), this.#end);
      await this.#changed.promise;
    }
  }

  /** How the stream ends; rejects when a message comes before. */
  async ended(): Promise<Ended> {
    for (;;) {
      if (this.#messages.length > 0) throw new Error('a message came');
      if (this.#end !== undefined) return this.#end;
      await this.#changed.promise;
    }
  }

  /** Messages that have come and were not taken. */
  get waiting(): number {
    return this.#messages.length;
  }

  cancel(): void {
    this.#call.cancel();
  }

  #change(act: () => void): void {
    act();
    const changed = this.#changed;
    this.#changed = Promise.withResolvers();
    changed.resolve();
  }
}

function metadataOf(headers: Headers): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of headers) metadata.add(name, value);
  return metadata;
}

const identity = (bytes: unknown): Buffer => (Buffer.isBuffer(bytes) ? bytes : Buffer.alloc(0));

/** A method as published, or one that sends nothing and reads bytes. */
function methodOf(path: string): { requestSerialize: (request: object) => Buffer; responseDeserialize: (bytes: Buffer) => unknown } {
  const [, service = '', name = ''] = path.split('/');
  const known = services[service as keyof typeof services] as ServiceDefinition | undefined;
  const method = Object.values(known ?? {}).find((one) => one.path === `/${service}/${name}`);
  return method ?? { requestSerialize: identity, responseDeserialize: identity };
}
