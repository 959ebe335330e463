import type { Alarm, Clock } from '../../clock.ts';
import { messageOf } from '../../errors.ts';
import type { EventBus } from '../../events.ts';
import type { Log } from '../../log.ts';
import type { Random } from '../../random.ts';
import { isAway } from './cert-manager-error.ts';

export interface TroubleTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly events: EventBus;
  readonly log: Log;
}

/** What fails by itself: signing, and knowing the roots. */
export type Purpose = 'sign' | 'roots';

const UPSTREAM = 'cert-manager';

/** How often the API server is looked for while it is away. */
const PROBE_MS = 1_000;
const LAST_PROBE_MS = 5_000;

/** Part of each wait that is random, so that the nodes of a cluster do not come back together. */
const JITTER = 1 / 4;

/** Different texts of one trouble that are told. */
const MOST_TOLD = 16;

/** Each attempt is another request, and the same trouble. */
const REQUEST_NAME = /\bsignet-[a-z0-9.-]+-[0-9a-f]{10}\b/g;

/** What is wrong at present. Each is told once; while the API server is away it is looked for, so that its return is noticed at once. */
export class Trouble {
  readonly #tools: TroubleTools;
  readonly #probe: () => Promise<unknown>;
  readonly #listeners = new Set<() => void>();
  readonly #problems = new Map<Purpose, string>();
  readonly #told = new Set<string>();
  #isAway = false;
  #probes = 0;
  #alarm: Alarm | undefined;
  #isClosed = false;

  /** @param probe rejects with a CertManagerError while the API server is away. */
  constructor(tools: TroubleTools, probe: () => Promise<unknown>) {
    this.#tools = tools;
    this.#probe = probe;
  }

  problem(): string | undefined {
    return this.#problems.values().next().value;
  }

  /** Calls `listener` when the API server is back after it was away. Returns the way to stop. */
  onReturn(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  succeeded(purpose: Purpose, durationMs: number): void {
    const hadFailed = this.#problems.delete(purpose);
    if (this.#problems.size > 0) return;
    this.#tools.events.publish('upstreamAnswered', { upstream: UPSTREAM, durationMs });
    if (hadFailed) this.#settle();
  }

  /** Something fails, or has taken so long that it is worth telling. */
  failed(purpose: Purpose, error: unknown): void {
    if (this.#isClosed) return;
    const text = messageOf(error);
    this.#problems.set(purpose, text);
    this.#tell(text);
    if (isAway(error)) this.#lookOut();
  }

  close(): void {
    this.#isClosed = true;
    this.#alarm?.cancel();
    this.#listeners.clear();
  }

  #tell(text: string): void {
    const key = text.replaceAll(REQUEST_NAME, '');
    if (this.#told.has(key) || this.#told.size >= MOST_TOLD) return;
    this.#told.add(key);
    this.#tools.events.publish('upstreamFailed', { upstream: UPSTREAM, error: text, retryMs: PROBE_MS });
  }

  #settle(): void {
    this.#told.clear();
    this.#tools.log.info({ event: 'upstream.returned', reason: UPSTREAM }, 'the upstream does again what it is asked for');
  }

  #lookOut(): void {
    if (this.#isAway) return;
    this.#isAway = true;
    this.#probes = 0;
    this.#plan();
  }

  #plan(): void {
    const { clock, random } = this.#tools;
    const full = Math.min(PROBE_MS * 2 ** Math.min(this.#probes, 10), LAST_PROBE_MS);
    this.#probes += 1;
    this.#alarm = clock.after(full * (1 - JITTER * random.fraction()), () => void this.#look());
  }

  async #look(): Promise<void> {
    const found = await this.#probe().catch((error: unknown) => error);
    if (this.#isClosed) return;
    if (isAway(found)) {
      this.#tell(messageOf(found));
      return this.#plan();
    }
    this.#isAway = false;
    for (const listener of [...this.#listeners]) listener();
  }
}
