import type { ApplyOptions, CallOptions, ListOptions, WatchEvent, WatchOptions } from '../../../src/kubernetes/api-client.ts';
import { KubernetesError } from '../../../src/kubernetes/api-error.ts';
import { isObject, objectAt, textAt, type JsonObject } from '../../../src/kubernetes/json.ts';
import type { Resource } from '../../../src/kubernetes/resources.ts';
import type { StatusClient } from '../../../src/registration/status/rule-status.ts';
import type { FakeClock } from '../../support/fake-clock.ts';

export interface Call {
  readonly verb: 'get' | 'list' | 'watch' | 'create' | 'apply' | 'applyStatus';
  readonly path: string;
  readonly object: JsonObject;
}

interface Told {
  readonly version: number;
  readonly collection: string;
  readonly event: WatchEvent;
}

/** The objects of an API server in memory, with versions, generations, preconditions and watches, and without a network. */
export class MemoryApi implements StatusClient {
  readonly objects = new Map<string, JsonObject>();
  readonly calls: Call[] = [];
  /** Paths that begin with one of these answer with its status. */
  readonly refused = new Map<string, number>();
  /** When set, calls that write wait for it. */
  gate: Promise<void> | undefined;
  readonly #told: Told[] = [];
  #wake = Promise.withResolvers<void>();
  #version = 0;
  #uids = 0;

  /** Calls that write, but for Leases. */
  get writes(): Call[] {
    return this.calls.filter(({ verb, path }) => ['create', 'apply', 'applyStatus'].includes(verb) && !path.includes('/leases'));
  }

  /** Puts an object, as somebody else would. */
  put(path: string, object: JsonObject): JsonObject {
    const before = this.objects.get(path);
    const metadata = objectAt(before ?? {}, 'metadata');
    const isSameSpec = JSON.stringify(before?.['spec']) === JSON.stringify(object['spec']);
    const generation = Number(metadata['generation'] ?? 0) + (isSameSpec ? 0 : 1);
    this.#version += 1;
    const identity = {
      name: path.slice(path.lastIndexOf('/') + 1),
      uid: textAt(metadata, 'uid') || `uid-${(this.#uids += 1)}`,
      resourceVersion: String(this.#version),
      generation: Math.max(generation, 1),
    };
    const stored = { ...object, metadata: { ...objectAt(object, 'metadata'), ...identity } };
    this.objects.set(path, stored);
    this.#tell(before === undefined ? 'ADDED' : 'MODIFIED', path, stored);
    return stored;
  }

  remove(path: string): void {
    const before = this.objects.get(path);
    this.objects.delete(path);
    this.#version += 1;
    if (before !== undefined) this.#tell('DELETED', path, before);
  }

  /** How many watches of the collection were opened. */
  watchesOf(path: string): number {
    return this.calls.filter((call) => call.verb === 'watch' && call.path === path).length;
  }

  async get(path: string, options: CallOptions = {}): Promise<JsonObject> {
    this.#call('get', path, {}, options.signal);
    const found = this.objects.get(path);
    if (found === undefined) throw refusal(404, path);
    return found;
  }

  async create(path: string, object: JsonObject, options: CallOptions = {}): Promise<JsonObject> {
    this.#call('create', path, object, options.signal);
    await this.gate;
    const at = `${path}/${textAt(objectAt(object, 'metadata'), 'name')}`;
    if (this.objects.has(at)) throw refusal(409, at);
    return this.put(at, object);
  }

  async apply(path: string, object: JsonObject, options: ApplyOptions): Promise<JsonObject> {
    this.#call('apply', path, object, options.signal);
    await this.gate;
    const before = this.#checked(path, object);
    const isSame = before !== undefined && same(before, object, 'spec') && same(objectAt(before, 'metadata'), objectAt(object, 'metadata'), 'ownerReferences');
    return isSame ? before : this.put(path, { ...before, ...object });
  }

  async applyStatus(path: string, object: JsonObject, options: ApplyOptions): Promise<JsonObject> {
    this.#call('applyStatus', path, object, options.signal);
    await this.gate;
    const before = this.#checked(path, object);
    if (before === undefined) throw refusal(404, path);
    return this.put(path, { ...before, status: merge(objectAt(before, 'status'), objectAt(object, 'status')) });
  }

  async list(resource: Resource, options: ListOptions, onItem: (raw: JsonObject) => void): Promise<string> {
    this.#call('list', resource.path, {}, options.signal);
    for (const [path, object] of this.objects) if (collectionOf(path) === resource.path) onItem(object);
    return String(this.#version);
  }

  async *watch(resource: Resource, options: WatchOptions): AsyncGenerator<WatchEvent, void, undefined> {
    const { signal } = options;
    this.#call('watch', resource.path, {}, signal);
    options.onOpen?.();
    const ended = new Promise<never>((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true }));
    ended.catch(() => undefined);
    for (let next = 0; ; next++) {
      while (next >= this.#told.length) await Promise.race([this.#wake.promise, ended]);
      const { version, collection, event } = this.#told[next]!;
      if (collection === resource.path && version > Number(options.resourceVersion)) yield event;
    }
  }

  #call(verb: Call['verb'], path: string, object: JsonObject, signal: AbortSignal | undefined): void {
    signal?.throwIfAborted();
    this.calls.push({ verb, path, object });
    for (const [prefix, status] of this.refused) if (path.startsWith(prefix)) throw refusal(status, path);
  }

  #checked(path: string, object: JsonObject): JsonObject | undefined {
    const before = this.objects.get(path);
    const [is, wanted] = [objectAt(before ?? {}, 'metadata'), objectAt(object, 'metadata')];
    for (const key of ['uid', 'resourceVersion']) {
      if (before !== undefined && wanted[key] !== undefined && wanted[key] !== is[key]) throw refusal(409, path);
    }
    return before;
  }

  #tell(type: WatchEvent['type'], path: string, object: JsonObject): void {
    this.#told.push({ version: this.#version, collection: collectionOf(path), event: { type, object } });
    const { resolve } = this.#wake;
    this.#wake = Promise.withResolvers();
    resolve();
  }
}

/** Moves time by `ms` in steps of one second, and lets all that becomes due by each step happen. */
export async function pass(clock: FakeClock, ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 1_000) {
    clock.advance(Math.min(left, 1_000));
    await turn();
  }
}

/** All that needs no time happens. */
export async function turn(): Promise<void> {
  for (let turns = 0; turns < 4; turns++) await new Promise((resolve) => setImmediate(resolve));
}

function collectionOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/'));
}

function same(a: JsonObject, b: JsonObject, key: string): boolean {
  return JSON.stringify(a[key]) === JSON.stringify(b[key]);
}

function merge(before: JsonObject, now: JsonObject): JsonObject {
  const entries = Object.entries(now).map(([key, value]) => [key, isObject(value) ? merge(objectAt(before, key), value) : value]);
  return { ...before, ...Object.fromEntries(entries) };
}

function refusal(status: number, path: string): KubernetesError {
  return new KubernetesError('unavailable', `${path}: ${status}`, { status });
}
