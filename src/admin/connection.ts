import type { Socket } from 'node:net';
import type { Alarm, Clock } from '../clock.ts';
import type { Refusal } from './refusal.ts';

/** One operator's connection: whether he is answered at all, and until when the present step may last. */
export class AdminConnection {
  /** Why nothing is answered; undefined for root and the agent's user. */
  readonly refusal: Refusal | undefined;
  readonly #clock: Clock;
  #alarm: Alarm | undefined;

  constructor(socket: Socket, refusal: Refusal | undefined, clock: Clock) {
    this.refusal = refusal;
    this.#clock = clock;
    socket.once('close', () => this.#alarm?.cancel());
  }

  /** Calls `late` in `ms` milliseconds unless the next step has begun by then. */
  within(ms: number, late: () => void): void {
    this.#alarm?.cancel();
    this.#alarm = this.#clock.after(ms, late);
  }
}
