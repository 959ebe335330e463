/** From when until when something serves. `lifeMs` is the whole of it; `notAfter` in milliseconds since the Unix epoch. */
export interface Term {
  readonly lifeMs: number;
  readonly notAfter: number;
}

export interface IdentityFigures {
  /** X.509-SVIDs that are kept, with readers or without, and JWT-SVIDs. */
  readonly x509: number;
  readonly jwt: number;
  /** Of the X.509-SVIDs, those that somebody reads: the others are not renewed. */
  readonly lives: Iterable<{ readonly issuedAt: number; readonly notAfter: number }>;
}

export interface LoadFigures {
  readonly connections: number;
  readonly calls: number;
  /** Of the calls, those that last. */
  readonly streams: number;
  readonly owners: number;
}

/** `x509`: the certificate that signs leaves. `jwt`: the key that signs tokens. `root`: the anchor above the first. */
export const AUTHORITY_KINDS = ['x509', 'jwt', 'root'] as const;
export type AuthorityKind = (typeof AUTHORITY_KINDS)[number];

export interface PodFigures {
  readonly size: number;
  /** Pods that are known although the source does not list them. */
  readonly unlisted: number;
  readonly synced: boolean;
  /** Milliseconds since the Unix epoch; undefined before the first time. */
  readonly lastContact: number | undefined;
  readonly conflicts: number;
  /** Pods that are not kept, since they say more than is kept of one: their callers are refused. */
  readonly oversized: number;
  /** Why the last attempt failed; undefined while it works. */
  readonly failure?: string | undefined;
}

export interface AuditFigures {
  readonly written: number;
  /** Lines that were lost: the queue was full, or the agent has ended. */
  readonly dropped: number;
  /** Attempts to open or to write that failed. */
  readonly failures: number;
}

/**
 * What is looked at whenever somebody asks, never in between. A room that is not there, or not yet, is undefined and none of its
 * figures are shown.
 */
export interface MetricSources {
  identities(): IdentityFigures | undefined;
  load(): LoadFigures;
  /** The ones in use now; each kind at most once. */
  authorities(): Partial<Readonly<Record<AuthorityKind, Term>>>;
  bundle(): { readonly x509Authorities: number; readonly jwtAuthorities: number } | undefined;
  entries(): number | undefined;
  pods(): PodFigures | undefined;
  /** Rules that count, and those that do not because something is wrong with them. */
  rules(): { readonly loaded: number; readonly refused: number } | undefined;
  audit(): AuditFigures | undefined;
}
