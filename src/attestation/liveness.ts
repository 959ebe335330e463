import type { Alarm, Clock } from '../clock.ts';
import { SignetError } from '../errors.ts';
import type { ExitWatch, Kernel } from '../kernel.ts';
import type { Caller } from './caller.ts';

interface Watched {
  readonly caller: Caller;
  readonly token: number;
  readonly listeners: Set<{ readonly onExit: () => void }>;
}

/**
 * Says when callers end. Every pidfd is in one epoll instance that is asked on a timer, without waiting: a native call that waits
 * would hold a pool thread, and process.exit with it.
 */
export class LivenessWatch {
  readonly #clock: Clock;
  readonly #intervalMs: number;
  readonly #exits: ExitWatch;
  readonly #byToken = new Map<number, Watched>();
  readonly #byCaller = new Map<Caller, Watched>();
  #alarm: Alarm | undefined;
  #lastToken = 0;
  #closed = false;

  /** @param intervalMs milliseconds between two questions while someone is watched; an exit is reported at most that late. */
  constructor(kernel: Kernel, clock: Clock, intervalMs = 250) {
    this.#exits = kernel.openExitWatch();
    this.#clock = clock;
    this.#intervalMs = intervalMs;
  }

  /**
   * Calls `onExit` once when the process of `caller` ends, or has ended already; never from within this call. It must not throw.
   * The function returned stops the watch; call it before the caller is released.
   *
   * @throws SignetError `stopped` after `close`.
   */
  watch(caller: Caller, onExit: () => void): () => void {
    if (this.#closed) throw new SignetError('stopped', 'the liveness watch is closed');
    const watched = this.#byCaller.get(caller) ?? this.#begin(caller);
    const listener = { onExit };
    watched.listeners.add(listener);
    this.#arm();
    return () => this.#unwatch(watched, listener);
  }

  close(): void {
    this.#closed = true;
    this.#byToken.clear();
    this.#byCaller.clear();
    this.#disarm();
    this.#exits.close();
  }

  #begin(caller: Caller): Watched {
    const watched: Watched = { caller, token: ++this.#lastToken, listeners: new Set() };
    this.#exits.add(caller.pidfd, watched.token);
    this.#byToken.set(watched.token, watched);
    this.#byCaller.set(caller, watched);
    return watched;
  }

  #unwatch(watched: Watched, listener: { readonly onExit: () => void }): void {
    watched.listeners.delete(listener);
    if (watched.listeners.size > 0 || this.#byToken.get(watched.token) !== watched) return;
    this.#end(watched);
    if (this.#byToken.size === 0) this.#disarm();
  }

  #end(watched: Watched): void {
    this.#byToken.delete(watched.token);
    this.#byCaller.delete(watched.caller);
    this.#exits.remove(watched.caller.pidfd);
  }

  #arm(): void {
    this.#alarm ??= this.#clock.after(this.#intervalMs, () => this.#ask());
  }

  #disarm(): void {
    this.#alarm?.cancel();
    this.#alarm = undefined;
  }

  #ask(): void {
    this.#alarm = undefined;
    const exited = this.#exits.poll().flatMap((token) => this.#byToken.get(token) ?? []);
    for (const watched of exited) this.#end(watched);
    if (this.#byToken.size > 0) this.#arm();
    for (const { listeners } of exited) {
      // A listener that an earlier one has stopped must not be called.
      for (const listener of [...listeners]) if (listeners.delete(listener)) listener.onExit();
    }
  }
}
