import type { Socket } from 'node:net';
import type { Caller } from '../attestation/caller.ts';
import type { Alarm, Clock } from '../clock.ts';
import type { RequestHead } from '../http2/request-head.ts';
import type { RequestReader, RequestStream } from '../http2/stream.ts';
import { descriptorOf, type Kernel } from '../kernel.ts';

/** Who answers the requests of one connection. */
export type RequestHandler = (stream: RequestStream, head: RequestHead) => RequestReader;

/** While a peer does not read, it is asked again after this, doubled up to the second figure. Milliseconds. */
const FIRST_LOOK_MS = 10;
const LAST_LOOK_MS = 500;

/**
 * One connection whose caller is known. It knows whether its peer reads: what was written to a Unix
 * socket is in the kernel until the peer takes it, and the kernel says how much.
 */
export class Connection {
  readonly caller: Caller;
  readonly #socket: Socket;
  readonly #kernel: Kernel;
  readonly #clock: Clock;
  #isClosed = false;
  #onClosed: (() => void)[] = [];
  #idleWaiters = new Set<() => void>();
  #alarm: Alarm | undefined;
  #lookMs = FIRST_LOOK_MS;
  #acceptedAt: number | undefined;
  #drained: boolean | undefined;
  #exited: boolean | undefined;
  #isForgetting = false;
  readonly #forget = (): void => {
    this.#isForgetting = false;
    this.#drained = undefined;
    this.#exited = undefined;
  };

  /** @param acceptedAt in monotonic milliseconds. */
  constructor(caller: Caller, socket: Socket, kernel: Kernel, clock: Clock, acceptedAt: number) {
    this.caller = caller;
    this.#socket = socket;
    this.#kernel = kernel;
    this.#clock = clock;
    this.#acceptedAt = acceptedAt;
    socket.once('close', () => this.#end());
  }

  /** Calls `listener` once when the connection is closed, by whichever side. */
  onClosed(listener: () => void): void {
    this.#onClosed.push(listener);
  }

  /**
   * True when the peer has read all that was written. The answer holds for one turn of the event loop, so that several streams of
   * a connection, written in one turn, do not take each other's bytes for a reader that has stopped.
   */
  get isDrained(): boolean {
    this.#drained ??= this.#unread() === 0;
    this.#forgetSoon();
    return this.#drained;
  }

  /** True once the process that connected has ended. The answer holds for one turn of the event loop. */
  get hasCallerExited(): boolean {
    this.#exited ??= this.#kernel.hasExited(this.caller.pidfd);
    this.#forgetSoon();
    return this.#exited;
  }

  /** Calls `resume` once the peer has read everything. Asking for the same function twice is asking once. */
  whenDrained(resume: () => void): void {
    this.#idleWaiters.add(resume);
    this.#alarm ??= this.#clock.after(this.#lookMs, () => this.#look());
  }

  /**
   * When the connection was accepted, in monotonic milliseconds, for the first call that asks: what a later one waited for was not
   * its connection.
   */
  takeAcceptedAt(): number | undefined {
    const acceptedAt = this.#acceptedAt;
    this.#acceptedAt = undefined;
    return acceptedAt;
  }

  /** Closes at once; whatever was not read is lost. */
  destroy(): void {
    this.#socket.destroy();
  }

  #forgetSoon(): void {
    if (this.#isForgetting) return;
    this.#isForgetting = true;
    setImmediate(this.#forget);
  }

  #look(): void {
    this.#alarm = undefined;
    if (this.#isClosed) return;
    if (this.#unread() > 0) {
      this.#lookMs = Math.min(this.#lookMs * 2, LAST_LOOK_MS);
      this.#alarm = this.#clock.after(this.#lookMs, () => this.#look());
      return;
    }
    this.#lookMs = FIRST_LOOK_MS;
    this.#drained = undefined;
    const waiters = this.#idleWaiters;
    this.#idleWaiters = new Set();
    for (const resume of waiters) resume();
  }

  #unread(): number {
    return this.#socket.destroyed ? 0 : this.#kernel.unreadBytes(descriptorOf(this.#socket)) + this.#socket.writableLength;
  }

  #end(): void {
    this.#alarm?.cancel();
    this.#idleWaiters.clear();
    this.#isClosed = true;
    for (const listener of this.#onClosed) listener();
    this.#onClosed = [];
  }
}
