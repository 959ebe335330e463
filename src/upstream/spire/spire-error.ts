import { SignetError } from '../../errors.ts';

/** Why the SPIRE server could not be asked at all: it passes, or the way to it has to be mended. */
const AWAY = ['unreachable', 'tls', 'timed_out', 'unavailable'] as const;

/** Why it does not take our agent's SVID, so that only joining anew helps. */
const LOST = ['banned', 'evicted', 'inactive', 'expired', 'reattest', 'unbelieved'] as const;

/** What went wrong. */
export type SpireFault =
  | (typeof AWAY)[number]
  | (typeof LOST)[number]
  | 'join'
  | 'no_entry'
  | 'denied'
  | 'not_found'
  | 'rate_limited'
  | 'refused'
  | 'server_error'
  | 'malformed'
  | 'foreign';

/**
 * What the SPIRE server refused, or why it could not be asked. The code is `authority_unavailable` even where an operator has to act:
 * that happens on the other side, and an agent that goes on asking notices it without a restart.
 */
export class SpireError extends SignetError {
  readonly fault: SpireFault;

  constructor(fault: SpireFault, message: string, cause?: unknown) {
    super('authority_unavailable', message, cause === undefined ? undefined : { cause });
    this.name = 'SpireError';
    this.fault = fault;
  }
}

/** True when `error` says that nothing can be asked of this server at present. */
export function isAway(error: unknown): boolean {
  return error instanceof SpireError && AWAY.some((one) => one === error.fault);
}

/** True when `error` says that the server does not take our agent's SVID any more. */
export function isLost(error: unknown): error is SpireError {
  return error instanceof SpireError && LOST.some((one) => one === error.fault);
}

/** True when `error` has one of `faults`. */
export function hasFault(error: unknown, ...faults: SpireFault[]): error is SpireError {
  return error instanceof SpireError && faults.includes(error.fault);
}
