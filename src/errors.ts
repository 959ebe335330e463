/**
 * Every way in which Signet itself says no. A code is stable and may be matched; a message is for people and says what was
 * wrong, where, and what is allowed.
 */
export type ErrorCode =
  | 'invalid_spiffe_id'
  | 'invalid_selector'
  | 'invalid_config'
  | 'invalid_endpoint'
  | 'invalid_svid'
  | 'invalid_token'
  | 'expired_token'
  | 'caller_gone'
  | 'caller_changed'
  | 'caller_unknown'
  | 'limit_exceeded'
  | 'malformed_http2'
  | 'timed_out'
  | 'authority_unavailable'
  | 'profile_violation'
  | 'state_refused'
  | 'state_unwritable'
  | 'in_use'
  | 'kernel'
  | 'unavailable'
  | 'stopped';

export class SignetError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'SignetError';
    this.code = code;
  }
}

/** True when `error` is Signet's own and has one of `codes` (any code when none is named). */
export function isSignetError(error: unknown, ...codes: ErrorCode[]): error is SignetError {
  return error instanceof SignetError && (codes.length === 0 || codes.includes(error.code));
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` of a Node system error (`ENOENT`, `EACCES`), or undefined. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}
