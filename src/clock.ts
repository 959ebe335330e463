/** Something that was scheduled and can be called off. Cancelling twice, or after it fired, does nothing. */
export interface Alarm {
  cancel(): void;
}

/** The only source of time. Tests pass a clock that they move by hand. */
export interface Clock {
  /** Wall time in milliseconds since the Unix epoch. May step in either direction. */
  now(): number;
  /** Milliseconds since an arbitrary moment; never steps. */
  monotonic(): number;
  /** Calls `wake` once, as soon as wall time has reached `wallMs` (at once when it has passed already). */
  at(wallMs: number, wake: () => void): Alarm;
  /** Calls `wake` once, `ms` milliseconds from now whatever the wall clock does. */
  after(ms: number, wake: () => void): Alarm;
  /** Calls `listener` with the size of each step of wall time, in milliseconds (negative: backwards). Returns the way to stop. */
  onStep(listener: (deltaMs: number) => void): () => void;
}

/** A timer of Node's that is longer is over at once; nobody here waits for as long as this. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * Node's timers run on a clock that stands still while the machine sleeps and that overflows after 24.8 days, so no sleep is
 * longer than this: after it the wall clock is looked at again.
 */
const LONGEST_SLEEP_MS = 2_000;

/** A smaller difference between wall time and monotonic time is drift, not a step. */
const STEP_MS = 1_500;

interface Waiting {
  readonly wallMs: number;
  readonly wake: () => void;
}

/** The machine's clock. Its timers never keep the process alive. */
export class SystemClock implements Clock {
  readonly #waiting = new Set<Waiting>();
  readonly #listeners = new Set<(deltaMs: number) => void>();
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Infinity;
  #offset = Date.now() - performance.now();

  now(): number {
    return Date.now();
  }

  monotonic(): number {
    return performance.now();
  }

  at(wallMs: number, wake: () => void): Alarm {
    const entry: Waiting = { wallMs, wake };
    this.#waiting.add(entry);
    this.#arm(wallMs);
    return { cancel: () => void this.#waiting.delete(entry) };
  }

  after(ms: number, wake: () => void): Alarm {
    const timer = setTimeout(wake, Math.min(Math.max(ms, 0), LONGEST_TIMER_MS));
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  }

  onStep(listener: (deltaMs: number) => void): () => void {
    this.#listeners.add(listener);
    this.#arm(Infinity);
    return () => void this.#listeners.delete(listener);
  }

  #arm(wallMs: number): void {
    const sleep = Math.min(Math.max(wallMs - Date.now(), 0), LONGEST_SLEEP_MS);
    const at = performance.now() + sleep;
    if (this.#timer !== undefined && at >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(() => this.#tick(), sleep);
    this.#timer.unref();
  }

  #tick(): void {
    this.#timer = undefined;
    this.#timerAt = Infinity;
    const now = Date.now();
    const offset = now - performance.now();
    const delta = offset - this.#offset;
    this.#offset = offset;
    let next = this.#listeners.size > 0 ? Infinity : undefined;
    const due: Waiting[] = [];
    for (const entry of this.#waiting) {
      if (entry.wallMs <= now) due.push(entry);
      else next = Math.min(next ?? Infinity, entry.wallMs);
    }
    if (next !== undefined) this.#arm(next);
    if (Math.abs(delta) >= STEP_MS) for (const listener of [...this.#listeners]) listener(delta);
    due.sort((a, b) => a.wallMs - b.wallMs);
    // An alarm that an earlier one has cancelled must not ring.
    for (const entry of due) if (this.#waiting.delete(entry)) entry.wake();
  }
}

/** Resolves after `ms` milliseconds, or rejects with the signal's reason as soon as it is aborted. */
export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const stop = (): void => {
      alarm.cancel();
      reject(signal?.reason);
    };
    const alarm = clock.after(ms, () => {
      signal?.removeEventListener('abort', stop);
      resolve();
    });
    signal?.addEventListener('abort', stop, { once: true });
  });
}
