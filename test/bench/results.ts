import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../src/errors.ts';
import { GROUPS, type Figures, type Group, type Result } from './figures.ts';

/** What was seen by other commands than `make bench`: tables as they stand. */
export interface Seen {
  readonly title: string;
  /** What was run to see it. */
  readonly command: string;
  /** The day on which it was written down, ISO 8601. */
  readonly date: string;
  readonly commit: string;
  /** Machine, versions and what else ran. */
  readonly conditions: string;
  readonly tables: readonly {
    readonly intro?: string;
    readonly command?: string;
    readonly head: readonly string[];
    readonly rows: readonly (readonly string[])[];
    readonly note?: string;
  }[];
}

/** Files of `Seen`, in the order of the document. */
export const SEEN = ['short', 'cluster', 'upstreams'] as const;

export interface Results {
  readonly figures: Figures;
  readonly seen: readonly Seen[];
}

function read(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    const todo = 'What to do: measure again with `make bench`, or take it from git';
    throw new Error(`${file} cannot be read: ${messageOf(error)}. ${todo}`, { cause: error });
  }
}

/** Reads a folder of results; what is not there was not measured. */
export function readResults(directory: string): Results {
  const figures: { [G in Group]?: Result<G> } = {};
  const put = <G extends Group>(group: G): void => {
    const file = join(directory, `${group}.json`);
    if (!existsSync(file)) return;
    const result = read(file) as Result<G>;
    if (result.group !== group || !Array.isArray(result.rows)) throw new Error(`${file} does not hold the group ${group}`);
    figures[group] = result as (typeof figures)[G];
  };
  for (const group of GROUPS) put(group);
  const seen = SEEN.map((name) => join(directory, `${name}.json`)).filter((file) => existsSync(file));
  return { figures, seen: seen.map((file) => read(file) as Seen) };
}

/** Nobody measures more digits than that, and every digit is a line of git's. */
function rounded(value: number): number {
  if (!Number.isFinite(value) || Number.isInteger(value)) return value;
  return Math.abs(value) >= 1 ? Math.round(value * 1e4) / 1e4 : Number(value.toPrecision(4));
}

/** JSON with two spaces; lists of numbers, of texts, and objects of nothing else take one line. */
export function resultText(result: object): string {
  const text = JSON.stringify(result, (_, value: unknown) => (typeof value === 'number' ? rounded(value) : value), 2);
  const scalar = String.raw`(?:"(?:[^"\\\n]|\\.)*"|-?[\d.eE+-]+|true|false|null)`;
  const list = new RegExp(String.raw`\[\n\s+(${scalar}(?:,\n\s+${scalar})*)\n\s+\]`, 'g');
  const members = new RegExp(String.raw`\{\n\s+("[^"\n]*": ${scalar}(?:,\n\s+"[^"\n]*": ${scalar})*)\n\s+\}`, 'g');
  const onOneLine = (text: string): string => text.replaceAll(/\n\s+/g, ' ');
  const flat = text
    .replaceAll(list, (_, inner: string) => `[${onOneLine(inner)}]`)
    .replaceAll(members, (_, inner: string) => `{ ${onOneLine(inner)} }`);
  return `${flat}\n`;
}

export function writeResult(directory: string, result: Result): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, `${result.group}.json`), resultText(result));
}
