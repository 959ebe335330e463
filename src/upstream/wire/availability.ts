import type { Alarm, Clock } from '../../clock.ts';
import { messageOf } from '../../errors.ts';
import type { EventBus } from '../../events.ts';
import type { Log } from '../../log.ts';
import type { Random } from '../../random.ts';
import { isAway } from './upstream-error.ts';

export interface AvailabilityTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly events: EventBus;
  readonly log: Log;
}

/** How often the upstream is looked for while it is away. */
const PROBE_MS = 1_000;

/** What it refuses may be asked again first after a second, at last after these. */
const LAST_RETRY_MS = 5_000;

/** Part of each wait that is random, so that the nodes of a cluster do not come back together. */
const JITTER = 1 / 4;

/** Different texts of one outage that are told. */
const MOST_TOLD = 16;

/**
 * What is wrong with an upstream at present. There are two kinds: it is away, which concerns everybody; or it refuses something, which
 * concerns the one purpose. Each is told once, and as long as there is one, it is tried from time to time whether it still holds.
 */
export class Availability {
  readonly #upstream: string;
  readonly #tools: AvailabilityTools;
  readonly #probe: () => Promise<void>;
  readonly #listeners = new Set<() => void>();
  readonly #refused = new Map<string, string>();
  readonly #told = new Set<string>();
  #away: string | undefined;
  #tries = 0;
  #alarm: Alarm | undefined;
  #isClosed = false;

  /**
   * @param upstream its name, for log and metrics.
   * @param probe rejects with an UpstreamError while it is away.
   */
  constructor(upstream: string, tools: AvailabilityTools, probe: () => Promise<void>) {
    this.#upstream = upstream;
    this.#tools = tools;
    this.#probe = probe;
  }

  problem(): string | undefined {
    return this.#away ?? this.#refused.values().next().value;
  }

  /** Calls `listener` when it is worth asking again. Returns the way to stop. */
  onReturn(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  succeeded(purpose: string, durationMs: number): void {
    const wasAway = this.#away !== undefined;
    const wasRefused = this.#refused.delete(purpose);
    this.#away = undefined;
    if (this.problem() === undefined) {
      this.#settle(wasAway || wasRefused);
      this.#tools.events.publish('upstreamAnswered', { upstream: this.#upstream, durationMs });
    }
    if (wasAway || wasRefused) this.#tellReturn();
  }

  failed(purpose: string, error: unknown): void {
    if (this.#isClosed) return;
    const text = messageOf(error);
    const wasAway = this.#away !== undefined;
    this.#away = isAway(error) ? text : undefined;
    if (!isAway(error)) this.#refused.set(purpose, text);
    this.#tell(text);
    this.#alarm ??= this.#plan();
    if (wasAway && this.#away === undefined) this.#tellReturn();
  }

  /** What was refused for `purpose` is not wanted any more. */
  forget(purpose: string): void {
    if (this.#refused.delete(purpose) && this.problem() === undefined) this.#settle(true);
  }

  close(): void {
    this.#isClosed = true;
    this.#alarm?.cancel();
    this.#listeners.clear();
  }

  #tell(text: string): void {
    if (this.#told.has(text) || this.#told.size >= MOST_TOLD) return;
    this.#told.add(text);
    this.#tools.events.publish('upstreamFailed', { upstream: this.#upstream, error: text, retryMs: PROBE_MS });
  }

  #settle(isNews: boolean): void {
    this.#alarm?.cancel();
    this.#alarm = undefined;
    this.#tries = 0;
    this.#told.clear();
    if (isNews) this.#tools.log.info({ event: 'upstream.returned', reason: this.#upstream }, 'the upstream does again what it is asked for');
  }

  #tellReturn(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  #plan(): Alarm {
    const { clock, random } = this.#tools;
    const full = this.#away === undefined ? Math.min(PROBE_MS * 2 ** Math.min(this.#tries, 10), LAST_RETRY_MS) : PROBE_MS;
    return clock.after(full * (1 - JITTER * random.fraction()), () => void this.#try());
  }

  async #try(): Promise<void> {
    const own = this.#alarm;
    const found = this.#away === undefined ? undefined : await this.#probe().catch((error: unknown) => error);
    if (this.#isClosed || this.#alarm !== own) return;
    if (isAway(found)) {
      this.#tries = 0;
      this.#away = messageOf(found);
      this.#tell(this.#away);
    } else {
      this.#tries += 1;
      this.#tellReturn();
    }
    // Asking may have settled it meanwhile.
    if (this.#alarm === own) this.#alarm = this.#plan();
  }
}
