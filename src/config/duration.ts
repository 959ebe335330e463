const UNITS = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1_000],
  ['ms', 1],
] as const;

/** Each unit at most once, the largest first: `7d`, `1h30m`, `250ms`. The digits are bounded so that a sum stays exact. */
const DURATION = /^(?=\d)(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m(?!s))?(?:(\d{1,9})s)?(?:(\d{1,9})ms)?$/;

/** Milliseconds of a duration such as `90s`, `1h30m` or `250ms`; undefined when `text` is none. A unit is never left out. */
export function parseDuration(text: string): number | undefined {
  const amounts = DURATION.exec(text)?.slice(1);
  return amounts && UNITS.reduce((sum, [, ms], index) => sum + Number(amounts[index] ?? 0) * ms, 0);
}

/** The shortest usual spelling: `5m`, `1h30m`, `24h`, `365d`. Days only from two on, because a day is usually written `24h`. */
export function formatDuration(ms: number): string {
  let rest = ms;
  let text = '';
  for (const [unit, size] of UNITS) {
    if (unit === 'd' && (ms < 2 * size || ms % size !== 0)) continue;
    const amount = Math.floor(rest / size);
    if (amount > 0) text += `${amount}${unit}`;
    rest -= amount * size;
  }
  return text === '' ? '0s' : text;
}
