import type { Alarm, Clock } from '../../src/clock.ts';

interface Waiting {
  readonly due: number;
  readonly wake: () => void;
}

/** A clock that stands still until a test moves it. Wall time and monotonic time advance together; `step` moves wall time alone. */
export class FakeClock implements Clock {
  #now: number;
  #monotonic = 0;
  readonly #atWall = new Set<Waiting>();
  readonly #afterMs = new Set<Waiting>();
  readonly #listeners = new Set<(deltaMs: number) => void>();

  constructor(now = Date.UTC(2030, 0, 1)) {
    this.#now = now;
  }

  /** How many alarms have been set and have neither rung nor been cancelled. */
  get pending(): number {
    return this.#atWall.size + this.#afterMs.size;
  }

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#monotonic;
  }

  at(wallMs: number, wake: () => void): Alarm {
    return this.#wait(this.#atWall, { due: wallMs, wake });
  }

  after(ms: number, wake: () => void): Alarm {
    return this.#wait(this.#afterMs, { due: this.#monotonic + ms, wake });
  }

  onStep(listener: (deltaMs: number) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Moves both times on by `ms` and rings on the way what becomes due, in order, each at its own time. */
  advance(ms: number): void {
    const end = this.#monotonic + ms;
    for (let next = this.#next(end); next !== undefined; next = this.#next(end)) {
      this.#move(Math.max(next.inMs, 0));
      next.set.delete(next.entry);
      next.entry.wake();
    }
    this.#move(end - this.#monotonic);
  }

  /** Sets wall time forward or back by `deltaMs`, tells the listeners, and rings what has become due by it. */
  step(deltaMs: number): void {
    this.#now += deltaMs;
    for (const listener of [...this.#listeners]) listener(deltaMs);
    this.advance(0);
  }

  #wait(set: Set<Waiting>, entry: Waiting): Alarm {
    set.add(entry);
    return { cancel: () => void set.delete(entry) };
  }

  #move(ms: number): void {
    this.#now += ms;
    this.#monotonic += ms;
  }

  #next(end: number): { set: Set<Waiting>; entry: Waiting; inMs: number } | undefined {
    const waiting = [
      ...Array.from(this.#atWall, (entry) => ({ set: this.#atWall, entry, inMs: entry.due - this.#now })),
      ...Array.from(this.#afterMs, (entry) => ({ set: this.#afterMs, entry, inMs: entry.due - this.#monotonic })),
    ];
    return waiting.filter(({ inMs }) => inMs <= end - this.#monotonic).sort((a, b) => a.inMs - b.inMs)[0];
  }
}
