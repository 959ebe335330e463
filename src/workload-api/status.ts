import { isSignetError } from '../errors.ts';
import type { RefusalReason } from '../events.ts';
import { Status, type CallStatus } from '../grpc/status.ts';

/** How a call ends when it does not succeed. The text is all that the caller learns, so it tells a stranger nothing. */
export interface Refusal extends CallStatus {
  readonly reason: RefusalReason;
}

/** Codes and texts that clients match are those of SPIRE (SPIFFE Workload Endpoint §6, Workload API §5, §6). */
export const refusals = {
  missingHeader: { code: Status.invalidArgument, details: 'security header missing from request', reason: 'missing_header' },
  noIdentity: { code: Status.permissionDenied, details: 'no identity issued', reason: 'no_identity' },
  notItsIdentity: { code: Status.permissionDenied, details: 'no identity issued', reason: 'not_its_identity' },
  noAudience: { code: Status.invalidArgument, details: 'audience must be specified', reason: 'bad_request' },
  noSvid: { code: Status.invalidArgument, details: 'svid must be specified', reason: 'bad_request' },
  badSpiffeId: { code: Status.invalidArgument, details: 'spiffe_id is not a SPIFFE ID', reason: 'bad_request' },
  tooManyAudiences: { code: Status.invalidArgument, details: 'too many audiences', reason: 'bad_request' },
  longAudience: { code: Status.invalidArgument, details: 'an audience is too long', reason: 'bad_request' },
  longToken: { code: Status.invalidArgument, details: 'svid is too long', reason: 'bad_request' },
  expiredToken: { code: Status.invalidArgument, details: 'token has expired', reason: 'bad_token' },
  badToken: { code: Status.invalidArgument, details: 'svid is not valid', reason: 'bad_token' },
  witUnimplemented: { code: Status.unimplemented, details: 'the WIT-SVID profile is not supported', reason: 'bad_request' },
  notReady: { code: Status.unavailable, details: 'the agent is not ready', reason: 'not_ready' },
  notIssued: { code: Status.unavailable, details: 'no SVID could be issued in time', reason: 'not_ready' },
  attestationFailed: { code: Status.unavailable, details: 'workload attestation failed', reason: 'attestation_failed' },
  callerGone: { code: Status.unavailable, details: 'workload attestation failed', reason: 'caller_gone' },
  callerChanged: { code: Status.unavailable, details: 'workload attestation failed', reason: 'caller_changed' },
  tooManyCalls: { code: Status.unavailable, details: 'too many calls', reason: 'too_many_calls' },
  callRate: { code: Status.unavailable, details: 'too many calls', reason: 'call_rate' },
  requestTimeout: { code: Status.unavailable, details: 'the request did not arrive in time', reason: 'request_timeout' },
  stopping: { code: Status.unavailable, details: 'the agent is stopping', reason: 'not_ready' },
  failed: { code: Status.unavailable, details: 'the agent could not answer', reason: 'handler_failed' },
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
