import { messageOf } from '../../errors.ts';
import type { EventBus } from '../../events.ts';
import type { Log } from '../../log.ts';
import { isAway } from './spire-error.ts';

export interface FaultsTools {
  readonly events: EventBus;
  readonly log: Log;
}

/** What the server is asked for: a refusal stands until the same succeeds. */
export type Purpose = 'bundle' | 'join' | 'entry' | 'sign' | 'publish';

const UPSTREAM = 'spire';

/** Different texts of one outage that are told. */
const MOST_TOLD = 16;

/**
 * What is wrong with the SPIRE server at present. There are two kinds: it is away, which concerns everything; or it refuses
 * something, which concerns the one purpose. Each text is told once until nothing is wrong any more.
 */
export class Faults {
  readonly #tools: FaultsTools;
  readonly #listeners = new Set<() => void>();
  readonly #refused = new Map<Purpose, string>();
  readonly #told = new Set<string>();
  #away: string | undefined;

  constructor(tools: FaultsTools) {
    this.#tools = tools;
  }

  get isAway(): boolean {
    return this.#away !== undefined;
  }

  problem(): string | undefined {
    return this.#away ?? this.#refused.values().next().value;
  }

  /** Calls `listener` when it is worth asking again. Returns the way to stop. */
  onReturn(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  succeeded(purpose: Purpose, durationMs: number): void {
    const wasAway = this.#away !== undefined;
    this.#away = undefined;
    const wasRefused = this.#refused.delete(purpose);
    const isWell = this.problem() === undefined;
    if (isWell) this.#told.clear();
    if (isWell) this.#tools.events.publish('upstreamAnswered', { upstream: UPSTREAM, durationMs });
    if (isWell && (wasAway || wasRefused)) this.#tools.log.info({ event: 'upstream.returned', reason: UPSTREAM }, 'the upstream does again what it is asked for');
    if (wasAway || wasRefused) for (const listener of [...this.#listeners]) listener();
  }

  /** @param retryMs when it is tried again at the latest. */
  failed(purpose: Purpose, error: unknown, retryMs: number): void {
    const text = messageOf(error);
    this.#away = isAway(error) ? text : undefined;
    if (!isAway(error)) this.#refused.set(purpose, text);
    if (this.#told.has(text) || this.#told.size >= MOST_TOLD) return;
    this.#told.add(text);
    this.#tools.events.publish('upstreamFailed', { upstream: UPSTREAM, error: text, retryMs });
  }

  close(): void {
    this.#listeners.clear();
  }
}
