import { decodeUnverified, type JsonObject } from '../client/jwt.ts';
import { printable, type Row } from './render.ts';
import { formatDistance, formatTime } from './time.ts';

const TIMES = new Set(['exp', 'iat', 'nbf']);

/** Header and claims of a token, for JSON. */
export function viewToken(token: string): { header: JsonObject; claims: JsonObject } {
  return decodeUnverified(token);
}

/** One row for each claim, with times readable. */
export function claimRows(claims: JsonObject, nowMs: number): Row[] {
  return Object.entries(claims).map(([name, value]) => [printable(name), formatClaim(name, value, nowMs)]);
}

function formatClaim(name: string, value: unknown, nowMs: number): string {
  const ms = typeof value === 'number' ? value * 1_000 : NaN;
  // ±8.64e15 is what a Date can hold.
  if (TIMES.has(name) && Math.abs(ms) <= 8.64e15) return `${formatTime(ms)} (${formatDistance(ms, nowMs)})`;
  if (typeof value === 'string') return printable(value);
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value.map(printable).join(', ');
  return printable(JSON.stringify(value));
}
