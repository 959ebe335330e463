/**
 * A workload that is told what to do on its standard input, one word a line, and answers in lines of JSON: `watch` prints every
 * state and every trouble, `fetch` one state or why there is none.
 */
import { createInterface } from 'node:readline';
import { WorkloadApiClient } from '../../../src/client/workload-api-client.ts';
import type { X509Context } from '../../../src/client/responses.ts';

const client = new WorkloadApiClient({ endpoint: `unix://${process.argv[2]}`, timeoutMs: 30_000 });
const say = (what: unknown): void => void process.stdout.write(`${JSON.stringify(what)}\n`);

function stateOf({ identities }: X509Context): unknown {
  return { ids: identities.map(({ id }) => id), keys: identities.map(({ privateKey }) => privateKey.toString('base64').slice(-24)) };
}

async function watch(): Promise<void> {
  for await (const context of client.watchX509({ onTrouble: (error) => say({ trouble: error.message }) })) say(stateOf(context));
}

async function fetch(): Promise<void> {
  await client.fetchX509().then((context) => say(stateOf(context)), (error: Error) => say({ trouble: error.message }));
}

for await (const command of createInterface({ input: process.stdin })) {
  if (command === 'watch') void watch();
  if (command === 'fetch') await fetch();
}
process.exit();
