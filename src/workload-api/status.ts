import { status } from '@grpc/grpc-js';
import { isSignetError } from '../errors.ts';
import type { RefusalReason } from '../events.ts';

/** How a call ends when it does not succeed. The text is all that the caller learns, so it tells a stranger nothing. */
export interface Refusal {
  readonly code: status;
  readonly details: string;
  readonly reason: RefusalReason;
}

/** Codes and texts that clients match are those of SPIRE (SPIFFE Workload Endpoint §6, Workload API §5, §6). */
export const refusals = {
  missingHeader: { code: status.INVALID_ARGUMENT, details: 'security header missing from request', reason: 'missing_header' },
  noIdentity: { code: status.PERMISSION_DENIED, details: 'no identity issued', reason: 'no_identity' },
  notItsIdentity: { code: status.PERMISSION_DENIED, details: 'no identity issued', reason: 'not_its_identity' },
  noAudience: { code: status.INVALID_ARGUMENT, details: 'audience must be specified', reason: 'bad_request' },
  noSvid: { code: status.INVALID_ARGUMENT, details: 'svid must be specified', reason: 'bad_request' },
  badSpiffeId: { code: status.INVALID_ARGUMENT, details: 'spiffe_id is not a SPIFFE ID', reason: 'bad_request' },
  tooManyAudiences: { code: status.INVALID_ARGUMENT, details: 'too many audiences', reason: 'bad_request' },
  longAudience: { code: status.INVALID_ARGUMENT, details: 'an audience is too long', reason: 'bad_request' },
  longToken: { code: status.INVALID_ARGUMENT, details: 'svid is too long', reason: 'bad_request' },
  expiredToken: { code: status.INVALID_ARGUMENT, details: 'token has expired', reason: 'bad_token' },
  badToken: { code: status.INVALID_ARGUMENT, details: 'svid is not valid', reason: 'bad_token' },
  witUnimplemented: { code: status.UNIMPLEMENTED, details: 'the WIT-SVID profile is not supported', reason: 'bad_request' },
  notReady: { code: status.UNAVAILABLE, details: 'the agent is not ready', reason: 'not_ready' },
  notIssued: { code: status.UNAVAILABLE, details: 'no SVID could be issued in time', reason: 'not_ready' },
  attestationFailed: { code: status.UNAVAILABLE, details: 'workload attestation failed', reason: 'attestation_failed' },
  callerGone: { code: status.UNAVAILABLE, details: 'workload attestation failed', reason: 'caller_gone' },
  callerChanged: { code: status.UNAVAILABLE, details: 'workload attestation failed', reason: 'caller_changed' },
  tooManyCalls: { code: status.UNAVAILABLE, details: 'too many calls', reason: 'too_many_calls' },
  callRate: { code: status.UNAVAILABLE, details: 'too many calls', reason: 'call_rate' },
  requestTimeout: { code: status.UNAVAILABLE, details: 'the request did not arrive in time', reason: 'request_timeout' },
  stopping: { code: status.UNAVAILABLE, details: 'the agent is stopping', reason: 'not_ready' },
  failed: { code: status.UNAVAILABLE, details: 'the agent could not answer', reason: 'handler_failed' },
} as const satisfies Record<string, Refusal>;

/** An error that carries how the call ends. */
export class RefusedCall extends Error {
  readonly refusal: Refusal;

  constructor(refusal: Refusal, options?: ErrorOptions) {
    super(refusal.details, options);
    this.name = 'RefusedCall';
    this.refusal = refusal;
  }
}

/** How a call ends for whatever was thrown in it. */
export function refusalOf(error: unknown): Refusal {
  if (error instanceof RefusedCall) return error.refusal;
  if (isSignetError(error, 'caller_gone')) return refusals.callerGone;
  if (isSignetError(error, 'caller_changed')) return refusals.callerChanged;
  if (isSignetError(error, 'caller_unknown', 'kernel', 'timed_out')) return refusals.attestationFailed;
  if (isSignetError(error, 'authority_unavailable')) return refusals.notIssued;
  if (isSignetError(error, 'unavailable')) return refusals.notReady;
  if (isSignetError(error, 'stopped')) return refusals.stopping;
  return refusals.failed;
}
