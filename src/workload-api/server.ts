import type { Clock } from '../clock.ts';
import type { EventBus } from '../events.ts';
import { GrpcServer } from '../grpc/server.ts';
import type { Connection, RequestHandler } from '../listener/connection.ts';
import type { OwnerLimits } from '../listener/owner-limits.ts';
import { whoOf } from '../listener/who.ts';
import { Admission, type AdmissionLimits } from './admission.ts';
import { Health } from './health.ts';
import { Reflection } from './reflection.ts';
import type { WorkloadApi } from './service.ts';
import { refusals } from './status.ts';

export interface ServerLimits extends AdmissionLimits {
  readonly messageBytes: number;
}

export interface ServerTools {
  readonly clock: Clock;
  readonly events: EventBus;
  /** Told of what was thrown in a call and is no fault of its caller. */
  readonly onMistake: (error: unknown) => void;
}

/** The gRPC services on the socket. */
export class WorkloadApiServer {
  readonly health = new Health();
  readonly admission: Admission;
  readonly #grpc: GrpcServer<Connection>;

  constructor(api: WorkloadApi, owners: OwnerLimits, limits: ServerLimits, { clock, events, onMistake }: ServerTools) {
    this.admission = new Admission(owners, limits, clock, events);
    this.#grpc = new GrpcServer<Connection>({
      methods: new Map([...api.methods(), ...this.health.methods<Connection>(), ...new Reflection().methods<Connection>()]),
      messageBytes: limits.messageBytes,
      clock,
      admit: (call) => this.admission.admit(call),
      admitNext: (connection, method) => this.admission.admitNext(connection, method),
      onRefused: ({ caller }, method, detail) => events.publish('refused', { reason: 'bad_request', method, detail, ...whoOf(caller) }),
      noRoom: refusals.tooManyCalls,
      onNoRoom: ({ caller }, method) => events.publish('refused', { reason: 'too_many_calls', method, ...whoOf(caller) }),
      onMistake,
    });
  }

  /** Who answers the requests of `connection`. */
  serve(connection: Connection): RequestHandler {
    return (stream, head) => this.#grpc.request(connection, stream, head);
  }

  /** Ends all calls with Unavailable, streams too: a client that is told OK would not come back. */
  endCalls(): void {
    this.health.serving = false;
    this.admission.endAll(refusals.stopping);
  }
}
