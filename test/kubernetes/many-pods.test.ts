/** Programs of their own with a small heap: what is kept of pods is bounded, or they end with "heap out of memory". */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import test from 'ava';

const PROGRAM = fileURLToPath(new URL('many-pods.ts', import.meta.url));

interface Ended {
  readonly code: number | null;
  readonly out: string;
}

async function run(heapMb: number, ...args: string[]): Promise<Ended> {
  const flags = ['--max-semi-space-size=1', `--max-old-space-size=${heapMb}`];
  const child = spawn(process.execPath, [...flags, PROGRAM, ...args], { stdio: ['ignore', 'pipe', 'ignore'] });
  let out = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, out };
}

// Each way would keep some 70 MB or more.
for (const [what, way, count, labels, oversized] of [
  ['told by the watch', 'watch', 150, 3_000, 150],
  ['told by a list', 'list', 150, 3_000, 150],
  ['that are just small enough, but many', 'watch', 1_500, 300, undefined],
  ['that are just small enough, many, and told by a list', 'list', 1_500, 300, undefined],
  ['that are just small enough, come and go', 'churn', 1_200, 300, undefined],
] as const) {
  test.serial(`large pods ${what} do not use up the memory of an agent`, async (t) => {
    const { code, out } = await run(48, way, `${count}`, `${labels}`);
    t.is(code, 0);
    const kept = JSON.parse(out) as { known: number; oversized: number; written: number };
    t.is(kept.known, count);
    if (oversized === undefined) t.true(kept.oversized > 0 && kept.oversized < count);
    else t.is(kept.oversized, oversized);
    t.true(kept.written < 4 * 1_048_576);
  });
}
