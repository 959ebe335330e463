import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { runToEnd } from '../process.ts';
import { PROJECT } from '../subject.ts';
import type { Bench } from './bench.ts';
import type { MintRow } from '../figures.ts';

/**
 * Minting without a wire: `mint.ts [ROUNDS [SECONDS]]` is run by itself and prints one JSON object
 * `{ "rows": [{ "what": string, "per_second": number, "note"?: string }] }`.
 */
export async function runMint(bench: Bench): Promise<MintRow[]> {
  const script = join(import.meta.dirname, '..', 'mint.ts');
  if (!existsSync(script)) {
    bench.skipped.push('mint rate: there is no test/bench/mint.ts');
    return [];
  }
  const options = { cwd: PROJECT, timeoutMs: 300_000, signal: bench.signal };
  const { code, output, errors } = await runToEnd(process.execPath, [script, ...bench.plan.mintArgs], options);
  if (code !== 0) throw new Error(`mint.ts: ${errors.trim()}`);
  const { rows } = JSON.parse(output) as { rows: MintRow[] };
  for (const { what, per_second } of rows) bench.say(`${what}: ${per_second.toFixed(0)}/s`);
  return rows;
}
