/** Why a connection, a call or a caller was refused. Each has a counter of its own. */
export type RefusalReason =
  | 'no_credentials'
  | 'pid_zero'
  | 'caller_gone'
  | 'caller_changed'
  | 'attestation_failed'
  | 'no_identity'
  | 'not_its_identity'
  | 'missing_header'
  | 'bad_request'
  | 'bad_token'
  | 'too_many_connections'
  | 'too_many_calls'
  | 'connection_rate'
  | 'call_rate'
  | 'prelude_timeout'
  | 'prelude_bytes'
  | 'malformed_http2'
  | 'request_timeout'
  | 'stalled_reader'
  | 'descriptors'
  | 'not_ready'
  | 'handler_failed';

/** Typed facts. Whoever learns one publishes it; metrics, audit and log subscribe. */
export interface Events {
  refused: { reason: RefusalReason; method?: string; uid?: number; pid?: number; spiffeId?: string; detail?: string };
  connected: { uid: number; pid: number };
  disconnected: { uid: number; pid: number };
  issued: { kind: 'x509' | 'jwt'; spiffeId: string; serial?: string; kid?: string; notAfter: number; renewal: boolean };
  issuanceFailed: { kind: 'x509' | 'jwt'; spiffeId: string; error: string; retryMs: number };
  authorityRotated: { kind: 'x509' | 'jwt'; step: 'prepared' | 'activated' | 'retired'; id: string; notAfter: number };
  authorityFailed: { error: string; retryMs: number };
  bundleChanged: { trustDomain: string; x509Authorities: number; jwtAuthorities: number };
  entriesChanged: { count: number };
  /** The CA above the node was asked for something, or its files were read. */
  upstreamAnswered: { upstream: string; durationMs: number };
  upstreamFailed: { upstream: string; error: string; retryMs: number };
}

export type EventName = keyof Events;

/** A bus without queue: listeners run at once, in the order in which they subscribed, and must not throw. */
export class EventBus {
  readonly #listeners = new Map<EventName, Set<(fact: never) => void>>();

  on<N extends EventName>(name: N, listener: (fact: Events[N]) => void): () => void {
    const set = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, set);
    set.add(listener as (fact: never) => void);
    return () => void set.delete(listener as (fact: never) => void);
  }

  publish<N extends EventName>(name: N, fact: Events[N]): void {
    const set = this.#listeners.get(name);
    if (set === undefined) return;
    for (const listener of set) (listener as (fact: Events[N]) => void)(fact);
  }
}
