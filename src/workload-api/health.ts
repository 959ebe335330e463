import { fileURLToPath } from 'node:url';
import { status, type sendUnaryData, type ServerUnaryCall, type ServerWritableStream, type ServiceDefinition, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const PROTO = fileURLToPath(new URL('../../proto/health.proto', import.meta.url));

export const healthPackage = loadSync(PROTO, { keepCase: true, enums: String, defaults: true, arrays: true, objects: true });
export const healthService = healthPackage['grpc.health.v1.Health'] as unknown as ServiceDefinition;

type ServingStatus = 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN';

interface HealthRequest {
  readonly service: string;
}

/** The names that have a status: the agent as a whole and its service. */
const SERVICES = ['', 'SpiffeWorkloadAPI'] as const;

/** `grpc.health.v1`: not serving until the agent is ready, and again once it stops. Asked without the security header, as in SPIRE. */
export class Health {
  readonly #watchers = new Set<() => void>();
  #isServing = false;

  set serving(isServing: boolean) {
    if (isServing === this.#isServing) return;
    this.#isServing = isServing;
    for (const watcher of [...this.#watchers]) watcher();
  }

  readonly handlers: UntypedServiceImplementation = {
    check: (call: ServerUnaryCall<HealthRequest, object>, answer: sendUnaryData<object>) => {
      const current = this.#statusOf(call.request.service);
      if (current === 'SERVICE_UNKNOWN') answer({ code: status.NOT_FOUND, details: 'unknown service' });
      else answer(null, { status: current });
    },
    list: (_call: ServerUnaryCall<object, object>, answer: sendUnaryData<object>) => {
      answer(null, { statuses: Object.fromEntries(SERVICES.map((name) => [name, { status: this.#statusOf(name) }])) });
    },
    watch: (call: ServerWritableStream<HealthRequest, object>) => {
      const tell = (): void => void call.write({ status: this.#statusOf(call.request.service) });
      this.#watchers.add(tell);
      call.on('cancelled', () => void this.#watchers.delete(tell));
      tell();
    },
  };

  #statusOf(service: string): ServingStatus {
    if (!SERVICES.some((name) => name === service)) return 'SERVICE_UNKNOWN';
    return this.#isServing ? 'SERVING' : 'NOT_SERVING';
  }
}
