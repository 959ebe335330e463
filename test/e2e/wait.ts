import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 300;

/** Asks until there is an answer; rejects after `timeoutMs`, with the last error of `probe` if it had one. */
export async function eventually<T>(what: string, timeoutMs: number, probe: () => Promise<T | undefined>): Promise<T> {
  const end = performance.now() + timeoutMs;
  let trouble: unknown;
  for (;;) {
    try {
      const answer = await probe();
      if (answer !== undefined) return answer;
      trouble = undefined;
    } catch (error) {
      trouble = error;
    }
    if (performance.now() > end)
      throw new Error(`not within ${timeoutMs / 1000} s: ${what}`, trouble === undefined ? {} : { cause: trouble });
    await sleep(POLL_MS);
  }
}

export function pause(ms: number): Promise<void> {
  return sleep(ms);
}
