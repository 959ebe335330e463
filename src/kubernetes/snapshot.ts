import { isObject } from './json.ts';
import type { Stored } from './store.ts';

/** Where the last known state is kept across restarts. */
export interface ClusterMemory {
  /** The text that was written last, or undefined. */
  read(): string | undefined;
  /** Must not be readable or writable by anybody else: what is read is believed. */
  write(text: string): Promise<void>;
}

/** What each informer knew, by the name of its resource. */
export type Snapshot = ReadonlyMap<string, readonly (readonly [string, Stored<unknown>])[]>;

const VERSION = 1;

/** The text of a snapshot of the cluster as the node `nodeName` sees it. */
export function formatSnapshot(nodeName: string, snapshot: Snapshot): string {
  return JSON.stringify({ version: VERSION, nodeName, resources: Object.fromEntries(snapshot) });
}

/** A snapshot of this node from its text; empty for one of another node, of another version, or that is damaged. */
export function parseSnapshot(text: string | undefined, nodeName: string): Snapshot {
  const snapshot = new Map<string, (readonly [string, Stored<unknown>])[]>();
  const document = parsed(text);
  if (!isObject(document) || document['version'] !== VERSION || document['nodeName'] !== nodeName) return snapshot;
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
