import type { Alarm, Clock } from '../clock.ts';
import type { EventBus } from '../events.ts';
import type { CallWatcher, ServerCall } from '../grpc/call.ts';
import type { Connection } from '../listener/connection.ts';
import type { OwnerLimits } from '../listener/owner-limits.ts';
import { whoOf } from '../listener/who.ts';
import { refusals, type Refusal } from './status.ts';

export interface AdmissionLimits {
  /** From the headers of a request to its end. */
  readonly requestTimeoutMs: number;
  /** From the headers of a unary request to the end of its answer. */
  readonly stalledTimeoutMs: number;
}

type Call = ServerCall<Connection>;

/** How often calls that take too long are looked for. */
const SWEEP_MS = 1_000;

/**
 * Counts every call from its headers on, before anything is done for it, and sees to it that none lasts for ever: requests that
 * do not arrive, and answers that are not read. Streams may last; what they hold is bounded by the limits alone.
 */
export class Admission implements CallWatcher<Connection> {
  readonly #owners: OwnerLimits;
  readonly #limits: AdmissionLimits;
  readonly #clock: Clock;
  readonly #events: EventBus;
  /** With the time of their headers, in monotonic milliseconds; in the order of their arrival: the oldest are the first. */
  readonly #arriving = new Map<Call, number>();
  readonly #answering = new Map<Call, number>();
  readonly #all = new Set<Call>();
  #alarm: Alarm | undefined;
  #begun = 0;

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

  /** Calls that had a place so far. */
  get begun(): number {
    return this.#begun;
  }

  /** Of the open calls, those that last: streams. */
  get streams(): number {
    return this.#all.size - this.#answering.size;
  }

  /** Takes a place for `call`, which it gives back when it is over; or says how the call ends. */
  admit(call: Call): Refusal | undefined {
    const { owner } = call.connection.caller;
    const isExchange = call.kind === 'exchange';
    const now = this.#clock.monotonic();
    const refused = this.#owners.begin(owner, isExchange, now);
    if (refused !== undefined) {
      const refusal = refused === 'call_rate' ? refusals.callRate : refusals.tooManyCalls;
      this.#refuse(call, refusal);
      return refusal;
    }
    this.#begun += 1;
    this.#all.add(call);
    if (call.kind === 'unary') this.#answering.set(call, now);
    if (!isExchange) this.#arriving.set(call, now);
    call.watcher = this;
    this.#alarm ??= this.#clock.after(SWEEP_MS, () => this.#sweep());
    return undefined;
  }

  arrived(call: Call): void {
    this.#arriving.delete(call);
  }

  closed(call: Call): void {
    this.#arriving.delete(call);
    this.#answering.delete(call);
    this.#all.delete(call);
    this.#owners.finish(call.connection.caller.owner, call.kind === 'exchange');
  }

  /** Ends every open call: streams too, never with OK. */
  endAll(refusal: Refusal): void {
    this.#alarm?.cancel();
    for (const call of [...this.#all]) call.refuse(refusal);
  }

  #sweep(): void {
    this.#alarm = undefined;
    const now = this.#clock.monotonic();
    for (const [call, since] of this.#arriving) {
      if (since + this.#limits.requestTimeoutMs > now) break;
      this.#arriving.delete(call);
      this.#refuse(call, refusals.requestTimeout);
      call.refuse(refusals.requestTimeout);
    }
    for (const [call, since] of this.#answering) {
      if (since + this.#limits.stalledTimeoutMs > now) break;
      this.#events.publish('refused', { reason: 'stalled_reader', method: call.path, ...whoOf(call.connection.caller) });
      this.#answering.delete(call);
      // Its answer lies in buffers that only the end of the connection frees.
      call.connection.destroy();
    }
    if (this.#all.size > 0) this.#alarm = this.#clock.after(SWEEP_MS, () => this.#sweep());
  }

  #refuse(call: Call, refusal: Refusal): void {
    this.#events.publish('refused', { reason: refusal.reason, method: call.path, ...whoOf(call.connection.caller) });
  }
}
