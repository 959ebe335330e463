/**
 * How a call can end badly.
 *
 * - `no_identity`: the agent knows the caller and has nothing for it (PermissionDenied).
 * - `invalid_argument`: the agent refused the request as such (InvalidArgument).
 * - `unimplemented`: the endpoint does not have this function.
 * - `unavailable`: the endpoint is not reachable or cannot serve now; it may later.
 * - `timed_out`: no answer before the deadline.
 * - `failed`: any other status.
 */
export type WorkloadApiErrorCode = 'no_identity' | 'invalid_argument' | 'unimplemented' | 'unavailable' | 'timed_out' | 'failed';

/** The answer of the endpoint was not OK. `message` is the endpoint's own text. */
export class WorkloadApiError extends Error {
  readonly code: WorkloadApiErrorCode;
  /** Status code of gRPC, 1 to 16. */
  readonly status: number;

  constructor(code: WorkloadApiErrorCode, status: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'WorkloadApiError';
    this.code = code;
    this.status = status;
  }
}

const CODES: Readonly<Record<number, WorkloadApiErrorCode>> = {
  3: 'invalid_argument',
  4: 'timed_out',
  7: 'no_identity',
  12: 'unimplemented',
  14: 'unavailable',
};

const UNKNOWN_STATUS = 2;

/** Turns what grpc-js throws into a WorkloadApiError; anything else becomes one with status UNKNOWN (2). */
export function toWorkloadApiError(error: unknown): WorkloadApiError {
  if (error instanceof WorkloadApiError) return error;
  const status = statusOf(error) ?? UNKNOWN_STATUS;
  return new WorkloadApiError(CODES[status] ?? 'failed', status, textOf(error), { cause: error });
}

function statusOf(error: unknown): number | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'number' ? error.code : undefined;
}

function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return 'details' in error && typeof error.details === 'string' && error.details !== '' ? error.details : error.message;
}
