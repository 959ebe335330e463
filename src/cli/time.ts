import { UsageError } from './usage-error.ts';

const UNIT_MS: Readonly<Record<string, number>> = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1_000, ms: 1 };
/** The longest that a timer of Node can wait is 24.8 days. */
const LONGEST_MS = 24 * 3_600_000;
/** The same spelling as in the agent's configuration: each unit at most once, the largest first. */
const DURATION = /^(?=[0-9])(?:[0-9]{1,9}d)?(?:[0-9]{1,9}h)?(?:[0-9]{1,9}m(?!s))?(?:[0-9]{1,9}s)?(?:[0-9]{1,9}ms)?$/;

const STEPS = [
  ['d', 86_400],
  ['h', 3_600],
  ['m', 60],
  ['s', 1],
] as const;

/**
 * Reads `500ms`, `5s` or `1m30s` as milliseconds.
 *
 * @throws UsageError for anything else, for zero and for more than 24 h.
 */
export function parseDuration(text: string, option: string): number {
  const parts = DURATION.test(text) ? [...text.matchAll(/([0-9]+)([a-z]+)/g)] : [];
  const ms = parts.reduce((sum, [, amount, unit = '']) => sum + Number(amount) * (UNIT_MS[unit] ?? 0), 0);
  if (ms < 1 || ms > LONGEST_MS) {
    const allowed = 'a number with its unit, up to 24h: 500ms, 5s, 1m30s, 2h';
    throw new UsageError(`${option} is ${JSON.stringify(text)}; allowed is ${allowed}`);
  }
  return ms;
}

/** A time in UTC to the second: `2026-11-23 09:28:17 UTC`. */
export function formatTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19).replace('T', ' ')} UTC`;
}

/** How far away a time is, in its two largest units: `in 29m 12s`, `12s ago`, `now`. */
export function formatDistance(ms: number, nowMs: number): string {
  const seconds = Math.floor(Math.abs(ms - nowMs) / 1_000);
  if (seconds === 0) return 'now';
  const words = formatSeconds(seconds);
  return ms > nowMs ? `in ${words}` : `${words} ago`;
}

function formatSeconds(seconds: number): string {
  const first = STEPS.findIndex(([, size]) => seconds >= size);
  let rest = seconds;
  const parts = STEPS.slice(first, first + 2).map(([unit, size]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return count === 0 ? '' : `${count}${unit}`;
  });
  return parts.filter((part) => part !== '').join(' ');
}
