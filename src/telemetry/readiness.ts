import type { Clock } from '../clock.ts';
import type { EventBus } from '../events.ts';
import type { PodFigures } from './sources.ts';

/** Why an agent is not ready, or ready with something away. */
export const REASON_CODES = [
  'starting',
  'stopping',
  'superseded',
  'pods_unknown',
  'pods_stale',
  'api_server_away',
  'upstream_away',
  'authority_failing',
] as const;
export type ReasonCode = (typeof REASON_CODES)[number];

export interface Reason {
  readonly code: ReasonCode;
  /** For people, whoever they are. */
  readonly message: string;
  /** What went wrong, with addresses and paths: for the operator, not for whoever can reach the port. */
  readonly detail?: string;
}

export interface ReadinessSource {
  /** True while identities can be served. */
  readonly ready: boolean;
  /** Why not; or, of one that is ready, what is away above it. Empty: all is well. */
  reasons(): readonly Reason[];
}

/** `serving` is the only one in which this agent serves identities; `superseded`: its successor does. */
export type Phase = 'starting' | 'serving' | 'superseded' | 'stopping';

export interface ReadinessOptions {
  readonly events: EventBus;
  readonly clock: Clock;
  readonly pods: () => PodFigures | undefined;
  /** A list of pods is stale when nothing was heard of it for so long. Default 180,000 ms: a quiet watch tells every minute. */
  readonly staleMs?: number;
}

const STALE_MS = 180_000;

const PHASES: Readonly<Record<Exclude<Phase, 'serving'>, string>> = {
  starting: 'the agent is starting',
  superseded: 'another agent has taken the socket over',
  stopping: 'the agent is stopping',
};

/** Follows what happens and says how the agent does. Nothing that is away above the node makes a serving agent not ready. */
export class Readiness implements ReadinessSource {
  phase: Phase = 'starting';
  readonly #options: ReadinessOptions;
  readonly #upstreamsAway = new Map<string, string>();
  readonly #stops: readonly (() => void)[];
  #authorityFailure: string | undefined;

  constructor(options: ReadinessOptions) {
    const { events } = options;
    this.#options = options;
    this.#stops = [
      events.on('upstreamFailed', ({ upstream, error }) => void this.#upstreamsAway.set(upstream, error)),
      events.on('upstreamAnswered', ({ upstream }) => void this.#upstreamsAway.delete(upstream)),
      events.on('authorityFailed', ({ error }) => {
        this.#authorityFailure = error;
      }),
      events.on('authorityRecovered', () => {
        this.#authorityFailure = undefined;
      }),
    ];
  }

  /**
   * True for an agent that waits for its successor too: a rollout deletes a pod that is not ready as soon as there is a newer one,
   * and nobody would be left to take the socket back if that one never serves.
   */
  get ready(): boolean {
    if (this.phase === 'superseded') return true;
    return this.phase === 'serving' && this.#options.pods()?.synced !== false;
  }

  reasons(): readonly Reason[] {
    if (this.phase !== 'serving') return [{ code: this.phase, message: PHASES[this.phase] }];
    return [...this.#podReasons(), ...this.#upstreamReasons()];
  }

  close(): void {
    for (const stop of this.#stops) stop();
  }

  *#podReasons(): Iterable<Reason> {
    const pods = this.#options.pods();
    if (pods === undefined) return;
    const { synced, lastContact, failure } = pods;
    if (!synced) yield { code: 'pods_unknown', message: 'the pods of this node are not known yet' };
    if (failure !== undefined) yield { code: 'api_server_away', message: 'the pods of this node are not told', detail: failure };
    const { clock, staleMs = STALE_MS } = this.#options;
    const ageMs = lastContact === undefined ? 0 : clock.now() - lastContact;
    if (synced && ageMs > staleMs) {
      yield { code: 'pods_stale', message: `nothing was heard of the pods of this node for ${Math.round(ageMs / 1000)} seconds` };
    }
  }

  *#upstreamReasons(): Iterable<Reason> {
    for (const [upstream, error] of this.#upstreamsAway) yield { code: 'upstream_away', message: `the upstream ${upstream} fails`, detail: error };
    if (this.#authorityFailure !== undefined) {
      yield { code: 'authority_failing', message: 'the signing keys could not be rotated', detail: this.#authorityFailure };
    }
  }
}
