/**
 * `node test/bench/mint.ts [ROUNDS [SECONDS]]`: how many X.509-SVIDs and JWT-SVIDs one core makes, beside Go's crypto/x509 where Go
 * is there. Each kind takes its turn in every round, each in a process of its own on the same one CPU. For each second of CPU that the
 * process took; medians of the rounds.
 * Prints `{ "rows": [{ "what", "per_second", "note"? }] }`.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runToEnd } from './process.ts';
import type { MintRow } from './figures.ts';
import type { Kind } from './mint/rounds.ts';

const HERE = join(import.meta.dirname, 'mint');
const { signal } = new AbortController();

interface Contestant {
  readonly what: string;
  readonly note: string;
  readonly command: readonly string[];
}

function node(kind: Kind, what: string, note: string): Contestant {
  return { what, note, command: [process.execPath, '--max-semi-space-size=1', join(HERE, 'rounds.ts'), kind] };
}

/** undefined without Go. */
async function buildGo(directory: string): Promise<Contestant | undefined> {
  if (spawnSync('go', ['version']).status !== 0) return undefined;
  const program = join(directory, 'mint');
  const { code, errors } = await runToEnd('go', ['build', '-o', program, '.'], { cwd: HERE, env: { GOFLAGS: '-mod=mod', GOTOOLCHAIN: 'local' }, timeoutMs: 120_000, signal });
  if (code !== 0) throw new Error(`go build: ${errors.trim()}`);
  const version = spawnSync('go', ['env', 'GOVERSION'], { encoding: 'utf8' }).stdout.trim();
  return { what: "X.509-SVIDs, Go's crypto/x509", note: `${version}, GOMAXPROCS=1; it verifies each signature that it has made`, command: [program] };
}

/** Everything on the last CPU that this process may use; not pinned where there is no taskset. */
function pinned(): readonly string[] {
  if (spawnSync('taskset', ['--version']).status !== 0) return [];
  const allowed = /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  return ['taskset', '-c', allowed.split(/[,-]/).at(-1) ?? '0'];
}

async function once(pin: readonly string[], { what, command }: Contestant, seconds: number): Promise<number> {
  const [program = '', ...rest] = [...pin, ...command, String(seconds)];
  const { code, output, errors } = await runToEnd(program, rest, { timeoutMs: 60_000, signal });
  const rate = Number(output);
  if (code !== 0 || !(rate > 0)) throw new Error(`${what}: ${errors.trim() || output}`);
  return rate;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] ?? NaN) : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2;
}

async function main(rounds: number, seconds: number): Promise<readonly MintRow[]> {
  const directory = mkdtempSync(join(tmpdir(), 'mint-'));
  try {
    const go = await buildGo(directory);
    const all: readonly Contestant[] = [
      node('leaf', 'X.509-SVIDs, key pair included', 'one core, P-256, the way of a renewal'),
      ...(go === undefined ? [] : [go]),
      node('raw', 'the limit: key, hash and signature alone', 'the same calls of node:crypto and nothing else'),
      node('new-names', 'X.509-SVIDs, first of their names', 'each is read again as a whole before it is released'),
      node('library', 'X.509-SVIDs, @peculiar/x509', 'what builds certificates in the tests'),
      node('jwt', 'JWT-SVIDs', 'one core, ES256'),
      node('raw-jwt', 'the limit: signature alone', ''),
    ];
    const pin = pinned();
    const rates = all.map((): number[] => []);
    for (let round = 0; round < rounds; round += 1) {
      for (const [index, contestant] of all.entries()) rates[index]?.push(await once(pin, contestant, seconds));
    }
    const ratio = go === undefined ? '' : `; ${median((rates[0] ?? []).map((rate, round) => rate / (rates[1]?.[round] ?? NaN))).toFixed(2)} times Go's rate`;
    return all.map(({ what, note }, index) => ({ what, per_second: Math.round(median(rates[index] ?? [])), note: index === 0 ? note + ratio : note }));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const [rounds = 5, seconds = 1] = process.argv.slice(2).map(Number);
process.stdout.write(`${JSON.stringify({ rows: await main(rounds, seconds) }, undefined, 2)}\n`);
