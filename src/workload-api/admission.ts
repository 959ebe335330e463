import { status, type Metadata, type ServerInterceptingCallInterface, type ServerInterceptor } from '@grpc/grpc-js';
import type { Alarm, Clock } from '../clock.ts';
import type { EventBus } from '../events.ts';
import type { Connection } from '../listener/connection.ts';
import type { OwnerLimits } from '../listener/owner-limits.ts';
import { whoOf } from '../listener/who.ts';
import { RequestStream } from './request-stream.ts';
import { refusals, type Refusal } from './status.ts';

export interface AdmissionLimits {
  /** From the headers of a request to its end. */
  readonly requestTimeoutMs: number;
  /** From the headers of a unary request to the end of its answer. */
  readonly stalledTimeoutMs: number;
}

type Listener = Parameters<ServerInterceptingCallInterface['start']>[0];

/** How often calls that take too long are looked for. */
const SWEEP_MS = 1_000;

/**
 * Counts every call from its headers on, before anything is done for it, and sees to it that none lasts for ever: requests that
 * do not arrive, and answers that are not read. Streams may last; what they hold is bounded by the limits alone.
 */
export class Admission {
  readonly #owners: OwnerLimits;
  readonly #limits: AdmissionLimits;
  readonly #clock: Clock;
  readonly #events: EventBus;
  /** In the order of their arrival: the oldest are the first. */
  readonly #arriving = new Set<AdmittedCall>();
  readonly #answering = new Set<AdmittedCall>();
  readonly #all = new Set<AdmittedCall>();
  #alarm: Alarm | undefined;

  constructor(owners: OwnerLimits, limits: AdmissionLimits, clock: Clock, events: EventBus) {
    this.#owners = owners;
    this.#limits = limits;
    this.#clock = clock;
    this.#events = events;
  }

  /** Calls that are open now. */
  get open(): number {
    return this.#all.size;
  }

  /** Of the open calls, those that last: streams. */
  get streams(): number {
    return this.#all.size - this.#answering.size;
  }

  /** The interceptor of a server whose calls belong to the connection that `connectionOf` finds. */
  interceptor(connectionOf: (call: { getPeer(): string }) => Connection | undefined): ServerInterceptor {
    const intercept = (method: Parameters<ServerInterceptor>[0], call: ServerInterceptingCallInterface): ServerInterceptingCallInterface => {
      const stream = new RequestStream(call);
      const connection = connectionOf(call);
      if (connection === undefined) {
        call.sendStatus(statusOf(refusals.callerGone));
        stream.release();
        return call;
      }
      const { owner } = connection.caller;
      const refused = this.#owners.begin(owner, method.requestStream);
      if (refused !== undefined) {
        this.#refuse(connection, refused === 'call_rate' ? refusals.callRate : refusals.tooManyCalls, method.path);
        call.sendStatus(statusOf(refused === 'call_rate' ? refusals.callRate : refusals.tooManyCalls));
        stream.release();
        return call;
      }
      const room = {
        hold: (bytes: number) => this.#owners.hold(owner, bytes),
        giveBack: (bytes: number) => this.#owners.giveBack(owner, bytes),
      };
      stream.bound(room, (detail) => {
        this.#events.publish('refused', { reason: 'bad_request', method: method.path, detail, ...whoOf(connection.caller) });
      });
      const isUnary = !method.requestStream && !method.responseStream;
      const admitted = new AdmittedCall(call, stream, connection, method.path, this.#clock.monotonic(), {
        answers: (message) => !isUnary || this.#fits(stream, message, connection, method.path),
        requested: () => void this.#arriving.delete(admitted),
        ended: () => {
          this.#arriving.delete(admitted);
          this.#answering.delete(admitted);
          this.#all.delete(admitted);
          this.#owners.finish(owner, method.requestStream);
        },
      });
      this.#all.add(admitted);
      if (!method.requestStream) this.#arriving.add(admitted);
      if (isUnary) this.#answering.add(admitted);
      this.#alarm ??= this.#clock.after(SWEEP_MS, () => this.#sweep());
      return admitted;
    };
    // The type wants grpc-js's own class, which queues and wraps each step; its callers need no more than the interface.
    return intercept as ServerInterceptor;
  }

  /** Ends every open call: streams too, never with OK. */
  endAll(refusal: Refusal): void {
    this.#alarm?.cancel();
    for (const call of [...this.#all]) call.sendStatus(statusOf(refusal));
  }

  #sweep(): void {
    this.#alarm = undefined;
    const now = this.#clock.monotonic();
    for (const call of this.#arriving) {
      if (call.since + this.#limits.requestTimeoutMs > now) break;
      this.#refuse(call.connection, refusals.requestTimeout, call.method);
      call.sendStatus(statusOf(refusals.requestTimeout));
      this.#arriving.delete(call);
    }
    for (const call of this.#answering) {
      if (call.since + this.#limits.stalledTimeoutMs > now) break;
      this.#events.publish('refused', { reason: 'stalled_reader', method: call.method, ...whoOf(call.connection.caller) });
      this.#answering.delete(call);
      // Its answer lies in buffers that only the end of the connection frees.
      call.connection.destroy();
    }
    if (this.#all.size > 0) this.#alarm = this.#clock.after(SWEEP_MS, () => this.#sweep());
  }

  /** An answer that is not read stays in memory until the connection is closed for it. */
  #fits(stream: RequestStream, message: unknown, connection: Connection, method: string): boolean {
    if (!(message instanceof Buffer) || stream.hold(message.length)) return true;
    this.#refuse(connection, refusals.tooManyCalls, method);
    return false;
  }

  #refuse(connection: Connection, refusal: Refusal, method: string): void {
    this.#events.publish('refused', { reason: refusal.reason, method, ...whoOf(connection.caller) });
  }
}

interface CallEvents {
  /** Asked before a message is sent: false when there is no room for it. */
  answers(message: unknown): boolean;
  /** The request has arrived completely. */
  requested(): void;
  /** Nothing more happens on this call. Told once. */
  ended(): void;
}

/** A call that is counted. It passes everything on and listens for the request's end and for the call's. */
class AdmittedCall implements ServerInterceptingCallInterface {
  readonly connection: Connection;
  readonly method: string;
  /** Monotonic milliseconds. */
  readonly since: number;
  readonly #next: ServerInterceptingCallInterface;
  readonly #stream: RequestStream;
  readonly #events: CallEvents;
  #hasEnded = false;

  constructor(next: ServerInterceptingCallInterface, stream: RequestStream, connection: Connection, method: string, since: number, events: CallEvents) {
    this.#next = next;
    this.#stream = stream;
    this.connection = connection;
    this.method = method;
    this.since = since;
    this.#events = events;
  }

  start(listener: Listener): void {
    let hasStarted = false;
    this.#next.start({
      onReceiveMetadata: (metadata) => {
        hasStarted = true;
        listener.onReceiveMetadata(metadata);
      },
      onReceiveMessage: (message) => {
        this.#stream.taken();
        listener.onReceiveMessage(message);
      },
      onReceiveHalfClose: () => {
        this.#events.requested();
        listener.onReceiveHalfClose();
      },
      // grpc-js says so at the end of every call, whichever way it ended.
      onCancel: () => {
        this.#end();
        listener.onCancel();
      },
    });
    // A call that was over before it began is not listened to at all.
    if (!hasStarted) this.#end();
  }

  sendMetadata(metadata: Metadata): void {
    this.#next.sendMetadata(metadata);
  }

  sendMessage(message: unknown, callback: () => void): void {
    if (this.#events.answers(message)) this.#next.sendMessage(message, callback);
    else this.#next.sendStatus(statusOf(refusals.tooManyCalls));
  }

  sendStatus(final: Parameters<ServerInterceptingCallInterface['sendStatus']>[0]): void {
    this.#next.sendStatus(final);
  }

  startRead(): void {
    this.#next.startRead();
  }

  getPeer(): string {
    return this.#next.getPeer();
  }

  getDeadline(): ReturnType<ServerInterceptingCallInterface['getDeadline']> {
    return this.#next.getDeadline();
  }

  getHost(): string {
    return this.#next.getHost();
  }

  getAuthContext(): ReturnType<ServerInterceptingCallInterface['getAuthContext']> {
    return this.#next.getAuthContext();
  }

  getConnectionInfo(): ReturnType<ServerInterceptingCallInterface['getConnectionInfo']> {
    return this.#next.getConnectionInfo();
  }

  getMetricsRecorder(): ReturnType<ServerInterceptingCallInterface['getMetricsRecorder']> {
    return this.#next.getMetricsRecorder();
  }

  #end(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#stream.release();
    this.#events.ended();
  }
}

function statusOf(refusal: Refusal): { code: status; details: string } {
  return { code: refusal.code, details: refusal.details };
}
