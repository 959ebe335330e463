import type { Alarm, Clock } from '../clock.ts';
import type { ListPods } from './pod-lookup.ts';
import type { Pod } from './pod.ts';

export interface BesideOptions {
  readonly clock: Clock;
  /** True when a list has all pods that somebody waits for. */
  readonly isEnough: (pods: readonly Pod[]) => boolean;
  /** How long the first is asked alone. Default 1,500 ms. */
  readonly aloneMs?: number;
  /** How long the other may still take, once one has answered without all pods that are waited for. Default 750 ms. */
  readonly otherMs?: number;
}

const ALONE_MS = 1_500;
const OTHER_MS = 750;

/**
 * Asks `first`, and when that fails, or has not answered soon, `second` beside it. The first list that is enough counts; where
 * none is, all there are together. An answer that comes before the second was asked is always enough.
 */
export function besides(first: ListPods, second: ListPods, options: BesideOptions): ListPods {
  return (signal) => new Question([first, second], options, signal).ask();
}

/** One question to two, of which at least one must answer. */
class Question {
  readonly #lists: readonly [ListPods, ListPods];
  readonly #options: BesideOptions;
  readonly #signal: AbortSignal;
  readonly #over = new AbortController();
  readonly #result = Promise.withResolvers<readonly Pod[]>();
  readonly #answers: (readonly Pod[])[] = [];
  readonly #failures: unknown[] = [];
  #isSecondAsked = false;
  #alarm: Alarm | undefined;

  constructor(lists: readonly [ListPods, ListPods], options: BesideOptions, signal: AbortSignal) {
    this.#lists = lists;
    this.#options = options;
    this.#signal = AbortSignal.any([signal, this.#over.signal]);
  }

  async ask(): Promise<readonly Pod[]> {
    this.#alarm = this.#options.clock.after(this.#options.aloneMs ?? ALONE_MS, () => this.#askSecond());
    this.#begin(this.#lists[0]);
    try {
      return await this.#result.promise;
    } finally {
      this.#alarm.cancel();
      this.#over.abort(new Error('another answer was enough'));
    }
  }

  #begin(list: ListPods): void {
    list(this.#signal).then((pods) => this.#answered(pods), (error: unknown) => this.#failed(error));
  }

  #askSecond(): void {
    if (this.#isSecondAsked) return;
    this.#isSecondAsked = true;
    this.#alarm?.cancel();
    this.#begin(this.#lists[1]);
  }

  #answered(pods: readonly Pod[]): void {
    this.#answers.push(pods);
    if (!this.#isSecondAsked || this.#isOver || this.#options.isEnough(pods)) return this.#settle();
    this.#alarm = this.#options.clock.after(this.#options.otherMs ?? OTHER_MS, () => this.#settle());
  }

  #failed(error: unknown): void {
    this.#failures.push(error);
    this.#askSecond();
    if (this.#isOver) this.#settle();
  }

  get #isOver(): boolean {
    return this.#answers.length + this.#failures.length === this.#lists.length;
  }

  #settle(): void {
    if (this.#answers.length === 0) return this.#result.reject(this.#failures.at(-1));
    const byUid = new Map(this.#answers.flat().map((pod) => [pod.uid, pod]));
    this.#result.resolve([...byUid.values()]);
  }
}
