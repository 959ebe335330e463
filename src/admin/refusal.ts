import { ConfigError } from '../config/problems.ts';
import { SignetError, isSignetError, messageOf } from '../errors.ts';
import type { AdminErrorCode, AdminFailure, RuleProblem } from './messages.ts';

/** The HTTP status of each code (RFC 9110 §15). */
const STATUS: Readonly<Record<AdminErrorCode, number>> = {
  bad_request: 400,
  bad_rules: 422,
  not_allowed: 403,
  unknown_path: 404,
  method_not_allowed: 405,
  no_such_process: 404,
  no_such_pod: 404,
  no_such_container: 404,
  no_kubernetes: 409,
  no_authority: 409,
  no_such_key: 404,
  order_refused: 409,
  not_kept: 500,
  too_large: 413,
  too_slow: 408,
  busy: 503,
  not_ready: 503,
  failed: 500,
};

/** A question that is not answered; `next` says what to do about it. */
export class Refusal extends Error {
  readonly code: AdminErrorCode;
  readonly next: string | undefined;
  readonly problems: readonly RuleProblem[];

  constructor(code: AdminErrorCode, message: string, next?: string, problems: readonly RuleProblem[] = []) {
    super(message);
    this.name = 'Refusal';
    this.code = code;
    this.next = next;
    this.problems = problems;
  }

  get status(): number {
    return STATUS[this.code];
  }

  toJSON(): AdminFailure {
    const { code, message, next, problems } = this;
    return { error: { code, message, ...(next === undefined ? {} : { next }), ...(problems.length === 0 ? {} : { problems }) } };
  }
}

/** How a question ends for whatever was thrown while it was answered. */
export function refusalOf(error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  if (error instanceof ConfigError) return new Refusal('bad_rules', 'the file has faults', undefined, error.problems);
  if (isSignetError(error, 'caller_gone')) return new Refusal('no_such_process', error.message);
  if (isSignetError(error, 'state_unwritable')) {
    return new Refusal('not_kept', error.message, 'make the directory of the keys writable, and see "signet authority show" for what is in force');
  }
  if (isSignetError(error, 'timed_out')) return new Refusal('too_slow', error.message, 'try again');
  if (isSignetError(error, 'unavailable', 'stopped', 'in_use')) {
    return new Refusal(
      'not_ready',
      error.message,
      'the agent starts or stops, or something that it needs is away: see "signet status"',
    );
  }
  return new Refusal(
    'failed',
    error instanceof SignetError ? error.message : `the agent could not answer: ${messageOf(error)}`,
    'see the log of the agent',
  );
}
