import { Message } from '../grpc/message.ts';
import { bytesField, messageField, readFields, textOf, varintField } from '../grpc/protobuf.ts';
import type { Method, ServerCall } from '../grpc/call.ts';
import { CallFault, Status } from '../grpc/status.ts';

/** `HealthCheckResponse.ServingStatus`. */
const ServingStatus = { serving: 1, notServing: 2, serviceUnknown: 3 } as const;

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

  /** The methods by path. */
  methods<C>(): [path: string, method: Method<C>][] {
    return [
      ['/grpc.health.v1.Health/Check', { kind: 'unary', handle: (call, request) => this.#check(call, request) }],
      ['/grpc.health.v1.Health/List', { kind: 'unary', handle: (call) => this.#list(call) }],
      ['/grpc.health.v1.Health/Watch', { kind: 'server-stream', handle: (call, request) => this.#watch(call, request) }],
    ];
  }

  #check<C>(call: ServerCall<C>, request: Buffer): void {
    const status = this.#statusOf(serviceOf(request));
    if (status === ServingStatus.serviceUnknown) throw new CallFault(Status.notFound, 'unknown service');
    call.answer(new Message(statusMessage(status)));
  }

  #list<C>(call: ServerCall<C>): void {
    const entries = SERVICES.map((name) => messageField(1, Buffer.concat([bytesField(1, name), messageField(2, statusMessage(this.#statusOf(name)))])));
    call.answer(new Message(Buffer.concat(entries)));
  }

  #watch<C>(call: ServerCall<C>, request: Buffer): void {
    const service = serviceOf(request);
    let said = 0;
    let isSending = false;
    const tell = (): void => {
      const status = this.#statusOf(service);
      // Whoever does not read gets what is true when it reads.
      if (isSending || status === said) return;
      said = status;
      isSending = true;
      call.send(new Message(statusMessage(status)), () => {
        isSending = false;
        tell();
      });
    };
    this.#watchers.add(tell);
    call.onClosed(() => void this.#watchers.delete(tell));
    tell();
  }

  #statusOf(service: string): number {
    if (!SERVICES.some((name) => name === service)) return ServingStatus.serviceUnknown;
    return this.#isServing ? ServingStatus.serving : ServingStatus.notServing;
  }
}

function statusMessage(status: number): Buffer {
  return varintField(1, status);
}

/** `HealthCheckRequest`. */
function serviceOf(request: Buffer): string {
  let service = '';
  for (const field of readFields(request)) if (field.number === 1) service = textOf(field);
  return service;
}
