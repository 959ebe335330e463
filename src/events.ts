/** Why a connection, a call or a caller was refused. Each has a counter of its own. */
export const REFUSAL_REASONS = [
  'no_credentials',
  'pid_zero',
  'caller_gone',
  'caller_changed',
  'attestation_failed',
  'no_identity',
  'not_its_identity',
  'missing_header',
  'bad_request',
  'bad_token',
  'too_many_connections',
  'too_many_calls',
  'connection_rate',
  'call_rate',
  'prelude_timeout',
  'prelude_bytes',
  'malformed_http2',
  'request_timeout',
  'stalled_reader',
  'descriptors',
  'not_ready',
  'handler_failed',
] as const;
export type RefusalReason = (typeof REFUSAL_REASONS)[number];

export type SvidKind = 'x509' | 'jwt';
export type AttestationOutcome = 'pod' | 'process' | 'refused';

/** Whom the kernel named at the other end. `podUid`: the UID in its cgroup path (a static pod's hash), where it is in a pod. */
export interface Who {
  readonly uid: number;
  readonly pid: number;
  readonly podUid?: string;
}

/** An SVID as it may be told: never its key, never the token. `notAfter` is in milliseconds since the Unix epoch. */
export interface ServedSvid {
  readonly spiffeId: string;
  readonly serial?: string;
  readonly notAfter: number;
}

/** Typed facts. Whoever learns one publishes it; metrics, audit and log subscribe. */
export interface Events {
  refused: { reason: RefusalReason; method?: string; uid?: number; pid?: number; podUid?: string; spiffeId?: string; detail?: string };
  connected: { uid: number; pid: number };
  disconnected: { uid: number; pid: number };
  /** A caller was recognised, or could not be: `pod` is in a pod of this node, `process` is outside any container. */
  attested: { outcome: AttestationOutcome; durationMs: number } & Who;
  /** `durationMs`: for the key pair, if one was made, and the signature. `podUid`: of the pod that the entry is bound to. */
  issued: IssuedFact;
  issuanceFailed: { kind: SvidKind; spiffeId: string; error: string; retryMs: number };
  /** SVIDs went to a caller, as one message of a stream or as one answer. */
  served: { kind: SvidKind; method: string; svids: readonly ServedSvid[] } & Who;
  /** A connection's first SVID was written: milliseconds since it was accepted. */
  firstSvid: { kind: SvidKind; durationMs: number };
  /** A token was asked for. `hit`: a valid one was there. */
  jwtAnswered: { hit: boolean };
  authorityRotated: { kind: SvidKind; step: 'prepared' | 'activated' | 'retired'; id: string; notAfter: number };
  /** An operator has given an order about the signing keys. `id`: the key that it is about; absent where none was found or made. */
  authorityCommanded: CommandedFact;
  authorityFailed: { error: string; retryMs: number };
  /** What had failed last has been done. */
  authorityRecovered: object;
  bundleChanged: { trustDomain: string; x509Authorities: number; jwtAuthorities: number };
  entriesChanged: { count: number };
  /** A rule does not count: it cannot be read, or asks for what is not supported. */
  ruleRefused: { kind: string; name: string; problem: string };
  /** Two pods claim to be one static pod; neither is believed. */
  podHashConflict: { hash: string };
  /** The CA above the node was asked for something, or its files were read. */
  upstreamAnswered: { upstream: string; durationMs: number };
  upstreamFailed: { upstream: string; error: string; retryMs: number };
}

export interface IssuedFact {
  kind: SvidKind;
  spiffeId: string;
  serial?: string;
  kid?: string;
  notAfter: number;
  renewal: boolean;
  durationMs: number;
  podUid?: string;
}

export const AUTHORITY_COMMANDS = ['prepare', 'activate', 'taint', 'revoke'] as const;
export type AuthorityCommand = (typeof AUTHORITY_COMMANDS)[number];

export interface CommandedFact {
  command: AuthorityCommand;
  kind?: SvidKind;
  id?: string;
  /** Of the operator, as the kernel has named it. */
  uid: number;
  pid: number;
  outcome: 'done' | 'refused' | 'failed';
  /** Why it was refused, or has failed. */
  detail?: string;
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

  /** True when somebody listens: what is dear to tell need not be told to nobody. */
  isHeard(name: EventName): boolean {
    return (this.#listeners.get(name)?.size ?? 0) > 0;
  }

  publish<N extends EventName>(name: N, fact: Events[N]): void {
    const set = this.#listeners.get(name);
    if (set === undefined) return;
    for (const listener of set) (listener as (fact: Events[N]) => void)(fact);
  }
}
