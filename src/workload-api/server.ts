import type { Socket } from 'node:net';
import { Server, ServerCredentials, type ConnectionInjector } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import type { EventBus } from '../events.ts';
import type { Connection } from '../listener/connection.ts';
import type { OwnerLimits } from '../listener/owner-limits.ts';
import { Admission, type AdmissionLimits } from './admission.ts';
import { Health, healthPackage, healthService } from './health.ts';
import { packageDefinition, workloadApi } from './messages.ts';
import { Reflection } from './reflection.ts';
import type { WorkloadApi } from './service.ts';
import { refusals } from './status.ts';

export interface ServerLimits extends AdmissionLimits {
  readonly callsPerConnection: number;
  readonly messageBytes: number;
}

type ConnectionOf = (call: { getPeer(): string }) => Connection | undefined;

/**
 * The gRPC services on the socket. grpc-js does not tell a handler which connection a call came over, so each raw socket is given
 * a `remoteAddress` of its own, which `getPeer()` returns. A stream around a socket cannot carry one: such a connection gets a
 * server of its own, whose handlers know it.
 */
export class WorkloadApiServer {
  readonly health = new Health();
  readonly admission: Admission;
  readonly #limits: ServerLimits;
  readonly #api: WorkloadApi;
  readonly #reflection = new Reflection({ ...packageDefinition, ...healthPackage });
  readonly #connections = new Map<string, Connection>();
  readonly #injector: ConnectionInjector;

  constructor(api: WorkloadApi, owners: OwnerLimits, limits: ServerLimits, clock: Clock, events: EventBus) {
    this.#api = api;
    this.#limits = limits;
    this.admission = new Admission(owners, limits, clock, events);
    this.#injector = this.#createInjector((call) => this.#connections.get(call.getPeer()));
  }

  /** Serves a connection whose first request has come. */
  serve(connection: Connection): void {
    const peer = `caller-${connection.caller.connection}`;
    this.#connections.set(peer, connection);
    connection.closed.addEventListener('abort', () => void this.#connections.delete(peer), { once: true });
    if (connection.rewritten) {
      this.#createInjector(() => connection).injectConnection(connection.stream);
    } else {
      nameOf(connection.stream as Socket, peer);
      this.#injector.injectConnection(connection.stream);
    }
  }

  /** Ends all calls with Unavailable, streams too: a client that is told OK would not come back. */
  endCalls(): void {
    this.health.serving = false;
    this.admission.endAll(refusals.stopping);
  }

  #createInjector(connectionOf: ConnectionOf): ConnectionInjector {
    const server = new Server({
      interceptors: [this.admission.interceptor(connectionOf)],
      'grpc.max_concurrent_streams': this.#limits.callsPerConnection,
      'grpc.max_receive_message_length': this.#limits.messageBytes,
      'grpc.enable_channelz': 0,
    });
    server.addService(workloadApi, this.#api.handlers(connectionOf));
    server.addService(healthService, this.health.handlers);
    this.#reflection.addToServer(server);
    return server.createConnectionInjector(ServerCredentials.createInsecure());
  }
}

/** What `getPeer()` returns for calls over this socket. */
function nameOf(socket: Socket, peer: string): void {
  Object.defineProperty(socket, 'remoteAddress', { value: peer });
}
