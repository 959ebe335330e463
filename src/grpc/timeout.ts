import { CallFault, Status } from './status.ts';

/** Milliseconds for each unit (gRPC over HTTP/2, Timeout). */
const UNITS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/**
 * `grpc-timeout` in milliseconds.
 *
 * @throws {CallFault} it is not one to eight digits and a unit.
 */
export function readTimeout(text: string): number {
  const [, digits, unit] = /^([0-9]{1,8})([HMSmun])$/.exec(text) ?? [];
  const factor = UNITS[unit ?? ''];
  if (digits === undefined || factor === undefined) throw new CallFault(Status.internal, `Invalid grpc-timeout value "${text.slice(0, 32)}"`);
  return Number(digits) * factor;
}
