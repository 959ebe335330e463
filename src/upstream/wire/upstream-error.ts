import { SignetError } from '../../errors.ts';

/** Why it could not be asked at all: it passes, and nothing but waiting helps here. */
const AWAY = ['unreachable', 'tls', 'timed_out', 'sealed', 'standby', 'unavailable'] as const;

/** What went wrong. All but those of `AWAY` were about one request or one login. */
export type UpstreamFault =
  | (typeof AWAY)[number]
  | 'login'
  | 'forbidden'
  | 'not_found'
  | 'bad_request'
  | 'rate_limited'
  | 'server_error'
  | 'malformed';

interface UpstreamErrorFields {
  readonly status?: number | undefined;
  readonly words?: readonly string[];
  readonly retryAfterMs?: number | undefined;
  readonly cause?: unknown;
}

/**
 * What a CA above refused, or why it could not be asked. The code is `authority_unavailable` even where an operator has to act: that
 * happens on the other side, and an agent that goes on asking notices it without a restart.
 */
export class UpstreamError extends SignetError {
  readonly fault: UpstreamFault;
  /** HTTP status; undefined when there was no answer. */
  readonly status: number | undefined;
  /** The `errors` of the answer. */
  readonly words: readonly string[];
  /** How long the server asks us to wait. */
  readonly retryAfterMs: number | undefined;

  constructor(fault: UpstreamFault, message: string, fields: UpstreamErrorFields = {}) {
    super('authority_unavailable', message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.name = 'UpstreamError';
    this.fault = fault;
    this.status = fields.status;
    this.words = fields.words ?? [];
    this.retryAfterMs = fields.retryAfterMs;
  }
}

/** True when `fault` means that nothing can be asked of this upstream at present. */
export function isAwayFault(fault: UpstreamFault): boolean {
  return AWAY.some((one) => one === fault);
}

/** True when `error` says that nothing can be asked of this upstream at present. */
export function isAway(error: unknown): boolean {
  return error instanceof UpstreamError && isAwayFault(error.fault);
}

/** True when `error` has one of `faults`. */
export function hasFault(error: unknown, ...faults: UpstreamFault[]): error is UpstreamError {
  return error instanceof UpstreamError && faults.includes(error.fault);
}
