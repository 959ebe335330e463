import type { Alarm, Clock } from '../clock.ts';
import { messageOf, SignetError } from '../errors.ts';
import type { Random } from '../random.ts';
import { Breaker, type BreakerOptions, type BreakerState } from './breaker.ts';
import { GuardQueue, Item, type Work } from './guard-queue.ts';
import { TokenBucket } from './token-bucket.ts';

export type { Work } from './guard-queue.ts';

export interface GuardOptions extends BreakerOptions {
  /** Requests under way at most. */
  readonly concurrency: number;
  /** Requests a second, after `burst` at once. */
  readonly perSecond: number;
  readonly burst: number;
  /** Requests that wait at most; above it the one that can wait longest is refused. */
  readonly waiting: number;
  /** How long a request may wait in all, in milliseconds, when it does not say. */
  readonly waitMs: number;
  /** An attempt without an answer by then has failed, in milliseconds. */
  readonly attemptMs: number;
}

export const DEFAULT_GUARD: GuardOptions = {
  concurrency: 8,
  perSecond: 50,
  burst: 50,
  waiting: 4_096,
  waitMs: 120_000,
  attemptMs: 20_000,
  failures: 3,
  probeMs: 1_000,
  longestPauseMs: 60_000,
};

export interface GuardTools {
  readonly clock: Clock;
  readonly random: Random;
  /** What a failed attempt says about the upstream; undefined when it has answered, with a no to this one request. */
  readonly faultOf: (error: unknown) => UpstreamFault | undefined;
}

/** An attempt that may go better later. `retryAfterMs`: the upstream has said when. */
export interface UpstreamFault {
  readonly retryAfterMs: number | undefined;
}

export interface GuardState {
  readonly breaker: BreakerState;
  readonly waiting: number;
  readonly running: number;
  /** What the upstream fails with; undefined from its next answer on. */
  readonly problem: string | undefined;
}

/** Whoever has nothing yet comes after those whose time is nearly over, and before all others. */
const NEWCOMER_MS = 10_000;

/** Wait after an attempt of one request has failed while others succeed; doubled each time, at most so long. */
const FIRST_BACKOFF_MS = 500;
const LAST_BACKOFF_MS = 8_000;

const NO_HINT: UpstreamFault = { retryAfterMs: undefined };

class LateError extends SignetError {
  constructor(ms: number) {
    super('authority_unavailable', `the upstream has not answered within ${ms / 1_000} s`);
  }
}

/**
 * Stands between many who ask and one upstream: so many requests at once and a second, those first whose time is over soonest, and
 * none while it fails but one that finds out whether it is back. A failure of the upstream is waited out here, so that a slow one,
 * or one that is away for a short time, loses nobody.
 */
export class Guard {
  readonly #options: GuardOptions;
  readonly #tools: GuardTools;
  readonly #bucket: TokenBucket;
  readonly #breaker: Breaker;
  readonly #queue = new GuardQueue();
  readonly #shared = new Map<string, Item>();
  readonly #listeners = new Set<() => void>();
  readonly #closing = new AbortController();
  #running = 0;
  #alarm: Alarm | undefined;
  #problem: string | undefined;
  /** Asked again as the probe when nobody waits, so that the return of the upstream does not go unnoticed. */
  #lastFailed: Work<unknown> | undefined;

  constructor(options: Partial<GuardOptions>, tools: GuardTools) {
    this.#options = { ...DEFAULT_GUARD, ...options };
    this.#tools = tools;
    const { perSecond, burst } = this.#options;
    this.#bucket = new TokenBucket(tools.clock, perSecond, burst);
    this.#breaker = new Breaker(this.#options, tools.clock, tools.random);
  }

  /**
   * Does `work` when it is its turn, again after a failure of the upstream, until its time is over.
   *
   * @throws what `work.do` has thrown last; `authority_unavailable` when it was not tried at all; the signal's reason.
   */
  async run<T>(work: Work<T>, signal: AbortSignal): Promise<T> {
    signal.throwIfAborted();
    this.#closing.signal.throwIfAborted();
    const item = (work.key === undefined ? undefined : this.#shared.get(work.key)) ?? this.#enter(work);
    const outcome = item.join(signal, () => this.#giveUp(item));
    this.#pump();
    // The key stands for the work: whoever shares it gets what it would have got itself.
    return (await outcome) as T;
  }

  /** There is a sign that the upstream is back: it is asked now rather than at the next probe. */
  wake(): void {
    this.#breaker.wake();
    this.#pump();
  }

  /** Calls `listener` when the upstream answers again after it has failed. Returns the way to stop. */
  onRecover(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  state(): GuardState {
    return { breaker: this.#breaker.state, waiting: this.#queue.size, running: this.#running, problem: this.#problem };
  }

  close(): void {
    const stopped = new SignetError('stopped', 'the agent stops');
    this.#closing.abort(stopped);
    this.#alarm?.cancel();
    this.#listeners.clear();
    for (const item of this.#queue.drain()) item.reject(stopped);
  }

  #enter(work: Work<unknown>): Item {
    const { clock } = this.#tools;
    const waitMs = work.waitMs ?? this.#options.waitMs;
    // It would have no better chance than those that have waited so long in vain.
    if (this.#breaker.waitMs() > 0 && this.#breaker.openForMs >= waitMs) throw this.#unavailable();
    const item = new Item(work, work.heldUntil ?? clock.now() + NEWCOMER_MS, clock, waitMs, (late) => this.#late(late));
    this.#queue.add(item);
    if (work.key !== undefined) this.#shared.set(work.key, item);
    const last = this.#queue.size > this.#options.waiting ? this.#queue.last() : undefined;
    if (last !== undefined) this.#refuse(last, new SignetError('authority_unavailable', `${this.#options.waiting} requests wait for the upstream already`));
    return item;
  }

  #late(item: Item): void {
    if (!this.#queue.delete(item)) return;
    this.#giveUp(item);
    this.#refuse(item, item.failure ?? this.#unavailable());
  }

  /** Nobody may be left whose next attempt would find out that the upstream is back: then the probes do. */
  #giveUp(item: Item): void {
    this.#forget(item);
    if (item.failure === undefined || this.#problem === undefined || this.#closing.signal.aborted) return;
    this.#breaker.trip();
    this.#pump();
  }

  #unavailable(): SignetError {
    return new SignetError('authority_unavailable', this.#problem ?? 'the upstream is slower than it is asked: the request has waited for too long');
  }

  #refuse(item: Item, error: unknown): void {
    this.#forget(item);
    // Whoever enters is told after it has joined.
    queueMicrotask(() => item.reject(error));
  }

  #forget(item: Item): void {
    this.#queue.delete(item);
    const { key } = item.work;
    if (key !== undefined && this.#shared.get(key) === item) this.#shared.delete(key);
  }

  /** Starts whatever may be started now, and plans when to look again. */
  #pump(): void {
    this.#alarm?.cancel();
    while (!this.#closing.signal.aborted && this.#running < this.#options.concurrency) {
      const next = this.#next();
      if (typeof next === 'number') return this.#lookAgain(next);
      this.#queue.delete(next);
      this.#bucket.take();
      void this.#attempt(next);
    }
  }

  /** What is to be asked now, or the milliseconds until something may be. */
  #next(): Item | number {
    const { clock } = this.#tools;
    const waitMs = Math.max(this.#breaker.waitMs(), this.#bucket.waitMs());
    if (waitMs > 0) return waitMs;
    const isOpen = this.#breaker.state === 'open';
    // What one request has to wait after its failure does not hold back the probe.
    const next = this.#queue.next(isOpen ? Infinity : clock.monotonic());
    if (typeof next !== 'number') return next;
    if (!isOpen || this.#lastFailed === undefined) return next - clock.monotonic();
    return new Item(this.#lastFailed, 0, clock, this.#options.attemptMs, () => undefined);
  }

  #lookAgain(ms: number): void {
    if (Number.isFinite(ms)) this.#alarm = this.#tools.clock.after(ms, () => this.#pump());
  }

  async #attempt(item: Item): Promise<void> {
    const isProbe = this.#breaker.begin();
    this.#running += 1;
    try {
      const value = await this.#ask(item);
      this.#forget(item);
      item.resolve(value);
      this.#answered(isProbe);
    } catch (error) {
      this.#failed(item, error, isProbe);
    }
    this.#running -= 1;
    this.#pump();
  }

  /** Ends at the deadline, or when nobody waits any more, even if `work.do` does not obey its signal. */
  async #ask(item: Item): Promise<unknown> {
    const { attemptMs } = this.#options;
    const deadline = new AbortController();
    const alarm = this.#tools.clock.after(attemptMs, () => deadline.abort(new LateError(attemptMs)));
    const signal = AbortSignal.any([item.abandoned.signal, deadline.signal, this.#closing.signal]);
    try {
      signal.throwIfAborted();
      const aborted = new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
      return await Promise.race([item.work.do(signal), aborted]);
    } finally {
      alarm.cancel();
    }
  }

  #answered(isProbe: boolean): void {
    const { state } = this.#breaker;
    const closes = this.#breaker.answered(isProbe);
    if (state !== 'closed' && !closes) return;
    this.#problem = undefined;
    this.#lastFailed = undefined;
    if (!closes) return;
    this.#queue.forgive();
    for (const listener of [...this.#listeners]) listener();
  }

  #failed(item: Item, error: unknown, isProbe: boolean): void {
    if (item.abandoned.signal.aborted || this.#closing.signal.aborted) {
      this.#breaker.gaveUp(isProbe);
      return this.#end(item, error);
    }
    const fault = error instanceof LateError ? NO_HINT : this.#tools.faultOf(error);
    if (fault === undefined) {
      this.#end(item, error);
      return this.#answered(isProbe);
    }
    this.#problem = messageOf(error);
    this.#lastFailed = item.work;
    item.failure = error;
    this.#breaker.failed(isProbe, fault.retryAfterMs);
    if (item.isWanted && !item.isLate) return this.#tryLater(item);
    this.#giveUp(item);
    item.reject(error);
  }

  #end(item: Item, error: unknown): void {
    this.#forget(item);
    item.reject(error);
  }

  #tryLater(item: Item): void {
    const { clock, random } = this.#tools;
    const full = Math.min(FIRST_BACKOFF_MS * 2 ** item.attempts, LAST_BACKOFF_MS);
    item.attempts += 1;
    item.readyAt = clock.monotonic() + full * (0.75 + 0.25 * random.fraction());
    this.#queue.add(item);
  }
}
