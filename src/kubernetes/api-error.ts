import { SignetError, type ErrorCode } from '../errors.ts';
import { isObject, objectAt, textAt } from './json.ts';

/** Longest part of a server's own words that goes into a message. */
const LONGEST_MESSAGE = 600;

interface KubernetesErrorFields {
  readonly status?: number | undefined;
  readonly reason?: string;
  readonly retryAfterMs?: number | undefined;
  readonly cause?: unknown;
}

/**
 * What the API server or a kubelet refused, or why it could not be asked. `code` is `unavailable` (no usable answer, or an answer
 * that says no), `timed_out`, or `limit_exceeded` (an answer larger than is read).
 */
export class KubernetesError extends SignetError {
  /** HTTP status; for an error inside a watch the code of its Status object. Undefined when there was no answer. */
  readonly status: number | undefined;
  /** The machine-readable word of the Status object: `NotFound`, `Forbidden`, `Expired`; '' when there is none. */
  readonly reason: string;
  /** How long the server asks us to wait. */
  readonly retryAfterMs: number | undefined;

  constructor(code: ErrorCode, message: string, fields: KubernetesErrorFields = {}) {
    super(code, message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.name = 'KubernetesError';
    this.status = fields.status;
    this.reason = fields.reason ?? '';
    this.retryAfterMs = fields.retryAfterMs;
  }
}

/** True when `error` is an answer with one of `statuses`. */
export function hasStatus(error: unknown, ...statuses: number[]): error is KubernetesError {
  return error instanceof KubernetesError && error.status !== undefined && statuses.includes(error.status);
}

/** True when the asked resource version is no more: the answer is a new list (410 `Expired` or `Gone`). */
export function isExpired(error: unknown): boolean {
  return hasStatus(error, 410) || (error instanceof KubernetesError && (error.reason === 'Expired' || error.reason === 'Gone'));
}

/** True when the server has not yet seen the resource version asked for, as after etcd came back from a backup. */
export function isFromTheFuture(error: unknown): boolean {
  return hasStatus(error, 504) && error.message.includes('Too large resource version');
}

/**
 * The error of an answer that is not 2xx, or of an ERROR event in a watch. Its body is a Status object
 * (Kubernetes API conventions, "Response Status Kind"); plain text, as from a proxy in between, is quoted as it is.
 *
 * @param what the request, for the message: `GET https://10.0.0.1/api/v1/pods`.
 */
export function refusal(what: string, status: number | undefined, body: unknown, retryAfter?: string): KubernetesError {
  const object = isObject(body) ? body : {};
  const code = status ?? (typeof object['code'] === 'number' ? object['code'] : undefined);
  const reason = textAt(object, 'reason');
  const words = typeof body === 'string' ? body : textAt(object, 'message');
  const message = [`${what}: ${[code, reason].filter(Boolean).join(' ')}`, clean(words)].filter(Boolean).join(': ');
  const seconds = objectAt(object, 'details')['retryAfterSeconds'] ?? retryAfter;
  return new KubernetesError('unavailable', message, { status: code, reason, retryAfterMs: milliseconds(seconds) });
}

function milliseconds(seconds: unknown): number | undefined {
  const value = Number(seconds ?? Number.NaN);
  return Number.isFinite(value) && value > 0 ? value * 1_000 : undefined;
}

/** One printable line. */
function clean(words: string): string {
  const line = words.replaceAll(/[\s\p{Cc}]+/gu, ' ').trim();
  return line.length > LONGEST_MESSAGE ? `${line.slice(0, LONGEST_MESSAGE)}…` : line;
}
