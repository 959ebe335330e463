import type { Alarm, Clock } from '../clock.ts';
import { messageOf } from '../errors.ts';
import type { EventBus } from '../events.ts';
import type { Random } from '../random.ts';
import { Retry } from './retry.ts';

interface Tools {
  readonly clock: Clock;
  readonly random: Random;
  readonly events: EventBus;
}

/** The work of an authority. */
export interface Work {
  /** Does what is due. Resolves with what has failed, after it has done the rest, or undefined. */
  makeWhatIsDue(): Promise<unknown>;
  /**
   * The moment of the next turn; Infinity when there is none. `since` is when the last one began: what has come meanwhile is due
   * now. Milliseconds since the Unix epoch.
   */
  nextTurn(since: number): number;
}

/** When an authority works: one turn at a time, at the moments that it names, after failures, and when it is nudged. */
export class Turns {
  readonly #tools: Tools;
  readonly #work: Work;
  readonly #retry: Retry;
  #alarms: readonly Alarm[] = [];
  #turning: Promise<void> | undefined;
  #isNudged = false;
  #isClosed = false;
  #beganAt = 0;
  #retryMs = 0;
  #failure: unknown;

  constructor(tools: Tools, work: Work) {
    this.#tools = tools;
    this.#work = work;
    this.#retry = new Retry(tools.random);
  }

  /** What the last turn has failed with, or undefined. */
  get failure(): unknown {
    return this.#failure;
  }

  /** Whether another turn follows the one under way at once. */
  get isNudged(): boolean {
    return this.#isNudged;
  }

  /** The turn under way, or a new one. What comes up while it is under way is looked at after it. */
  turn(): Promise<void> {
    this.#isNudged = this.#turning !== undefined;
    this.#beganAt = this.#isNudged ? this.#beganAt : this.#tools.clock.now();
    this.#turning ??= this.#work
      .makeWhatIsDue()
      .catch((error: unknown) => error)
      .then((error) => this.#settle(error))
      .finally(() => {
        this.#turning = undefined;
        if (this.#isNudged && !this.#isClosed) void this.turn();
        else this.#plan();
      });
    return this.#turning;
  }

  /** Something has changed that makes it worth looking at once. */
  nudge(): void {
    this.#retry.reset();
    void this.turn();
  }

  /** The turn under way, or undefined. */
  get current(): Promise<void> | undefined {
    return this.#turning;
  }

  /** Resolves when the turn under way has ended; none follows. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelAlarms();
    await this.#turning;
  }

  #settle(error: unknown): void {
    const hadFailed = this.#failure !== undefined;
    this.#failure = error;
    if (error === undefined && hadFailed && !this.#isClosed) this.#tools.events.publish('authorityRecovered', {});
    if (error === undefined || this.#isClosed) return this.#retry.reset();
    this.#retryMs = this.#retry.failed();
    this.#tools.events.publish('authorityFailed', { error: messageOf(error), retryMs: this.#retryMs });
  }

  #plan(): void {
    this.#cancelAlarms();
    if (this.#isClosed) return;
    const { clock } = this.#tools;
    const turn = (): void => void this.turn();
    // After a step back of the clock the moments since then are to come again.
    const next = this.#work.nextTurn(Math.min(this.#beganAt, clock.now()));
    const alarms = Number.isFinite(next) ? [clock.at(next, turn)] : [];
    this.#alarms = this.#failure === undefined ? alarms : [...alarms, clock.after(this.#retryMs, turn)];
  }

  #cancelAlarms(): void {
    for (const alarm of this.#alarms) alarm.cancel();
    this.#alarms = [];
  }
}
