import type { Socket } from 'node:net';
import type { Alarm, Clock } from '../clock.ts';
import type { Operator } from './authority.ts';
import type { Refusal } from './refusal.ts';

/** Whether an operator is answered, and who he is. */
export type Judgement = Refusal | Operator;

/** One operator's connection: whether he is answered at all, and until when the present step may last. */
export class AdminConnection {
  /** Who asks, root or the agent's user; or why nothing is answered. */
  readonly judgement: Judgement;
  readonly #clock: Clock;
  #alarm: Alarm | undefined;

  constructor(socket: Socket, judgement: Judgement, clock: Clock) {
    this.judgement = judgement;
    this.#clock = clock;
    socket.once('close', () => this.#alarm?.cancel());
  }

  /** Calls `late` in `ms` milliseconds unless the next step has begun by then. */
  within(ms: number, late: () => void): void {
    this.#alarm?.cancel();
    this.#alarm = this.#clock.after(ms, late);
  }
}
