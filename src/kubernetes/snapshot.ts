import { isObject } from './json.ts';
import type { Stored } from './store.ts';

/** Where the last known state is kept across restarts. */
export interface ClusterMemory {
  /** The text that was written last, or undefined. */
  read(): string | undefined;
  /** Must not be readable or writable by anybody else: what is read is believed. Texts have at most `LARGEST_SNAPSHOT` bytes. */
  write(text: string): Promise<void>;
}

/** What each informer knew, by the name of its resource. */
export type Snapshot = ReadonlyMap<string, readonly (readonly [string, Stored<unknown>])[]>;

/** Whose snapshot it is. */
export interface SnapshotOwner {
  /** The node that sees the cluster so. */
  readonly nodeName: string;
  /** Version of the program: another one may keep other things of an object. */
  readonly program: string;
}

const VERSION = 1;

/** Bytes. What is read of a file after a restart is not more. */
export const LARGEST_SNAPSHOT = 4 * 1_048_576;
/** More than all that is around the entries. */
const HEAD_BYTES = 4_096;

/** The text of a snapshot; undefined when it would be larger than `LARGEST_SNAPSHOT`, found out without making all of it. */
export function formatSnapshot({ nodeName, program }: SnapshotOwner, snapshot: Snapshot): string | undefined {
  const budget = { bytes: LARGEST_SNAPSHOT };
  const resources: string[] = [];
  for (const [name, entries] of snapshot) {
    const texts = formatEntries(entries, budget);
    if (texts === undefined) return undefined;
    resources.push(`${JSON.stringify(name)}:[${texts.join()}]`);
  }
  const head = JSON.stringify({ version: VERSION, program, nodeName }).slice(0, -1);
  return `${head},"resources":{${resources.join()}}}`;
}

function formatEntries(entries: Iterable<readonly [string, Stored<unknown>]>, budget: { bytes: number }): string[] | undefined {
  const texts: string[] = [];
  for (const entry of entries) {
    const text = JSON.stringify(entry);
    // And a comma; what is around the entries has its share too.
    budget.bytes -= Buffer.byteLength(text) + 1;
    if (budget.bytes < HEAD_BYTES) return undefined;
    texts.push(text);
  }
  return texts;
}

/** A snapshot from its text; empty for one of another node, of another program, of another version, or that is damaged. */
export function parseSnapshot(text: string | undefined, { nodeName, program }: SnapshotOwner): Snapshot {
  const snapshot = new Map<string, (readonly [string, Stored<unknown>])[]>();
  const document = parsed(text);
  if (!isObject(document) || document['version'] !== VERSION || document['program'] !== program || document['nodeName'] !== nodeName) return snapshot;
  const resources = document['resources'];
  if (!isObject(resources)) return snapshot;
  for (const [name, entries] of Object.entries(resources)) {
    if (Array.isArray(entries)) snapshot.set(name, entries.filter(isEntry));
  }
  return snapshot;
}

function isEntry(entry: unknown): entry is readonly [string, Stored<unknown>] {
  if (!Array.isArray(entry) || entry.length !== 2) return false;
  const [key, stored]: unknown[] = entry;
  return typeof key === 'string' && isObject(stored) && typeof stored['uid'] === 'string' && isObject(stored['item']);
}

function parsed(text: string | undefined): unknown {
  try {
    // Labels are looked up by names that others choose: `constructor` must not be found in a prototype.
    return text === undefined ? undefined : JSON.parse(text, (_key, value: unknown) => (isObject(value) ? Object.setPrototypeOf(value, null) : value));
  } catch {
    return undefined;
  }
}
