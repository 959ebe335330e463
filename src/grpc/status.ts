import { encodeFields } from '../http2/field-block.ts';

/** gRPC's status codes (https://grpc.github.io/grpc/core/md_doc_statuscodes.html). */
export const Status = {
  ok: 0, cancelled: 1, invalidArgument: 3, deadlineExceeded: 4, notFound: 5, permissionDenied: 7, resourceExhausted: 8, unimplemented: 12, internal: 13, unavailable: 14,
} as const;
export type Status = (typeof Status)[keyof typeof Status];

/** How a call ends. */
export interface CallStatus {
  readonly code: Status;
  /** What the caller is told. */
  readonly details: string;
}

/** Thrown where a call ends because of what its caller has sent. */
export class CallFault extends Error {
  readonly status: CallStatus;

  constructor(code: Status, details: string) {
    super(details);
    this.name = 'CallFault';
    this.status = { code, details };
  }
}

/** Compressed requests are not understood: a compressed one may become 1,000 times as long. */
const RESPONSE = [[':status', '200'], ['content-type', 'application/grpc'], ['grpc-accept-encoding', 'identity']] as const;

/** The head of an answer that has messages. */
export const RESPONSE_HEAD: Buffer = encodeFields(RESPONSE);

/** The trailers of an answer that has all that was asked for. */
export const OK_TRAILERS: Buffer = encodeFields([['grpc-status', '0']]);

/** The end of a call whose answer had begun. */
export function trailersOf({ code, details }: CallStatus): Buffer {
  return encodeFields([['grpc-status', String(code)], ['grpc-message', encodeURI(details)]]);
}

/** An answer that is nothing but its end (gRPC over HTTP/2, Trailers-Only). */
export function trailersOnly({ code, details }: CallStatus): Buffer {
  return encodeFields([...RESPONSE, ['grpc-status', String(code)], ['grpc-message', encodeURI(details)]]);
}

/** What is no gRPC at all gets an answer of HTTP. */
export function httpStatus(status: number): Buffer {
  return encodeFields([[':status', String(status)], ['content-length', '0']]);
}
