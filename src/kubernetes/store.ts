import { objectAt, textAt, type JsonObject } from './json.ts';

/** An object as it is known now. */
export interface Stored<T> {
  readonly uid: string;
  readonly resourceVersion: string;
  readonly item: T;
}

/** Keeps of an object what is needed, or nothing of it. `known`: how many there are so far, for whoever has to share out memory. */
export type Trim<T> = (raw: JsonObject, known: number) => T | undefined;

export type ChangeKind = 'added' | 'changed' | 'removed';

/**
 * One difference. `item` is the new state (for `removed` the last one that is known), `before` the one it replaces (undefined for
 * `added`).
 */
export type ChangeListener<T> = (kind: ChangeKind, item: T, before: T | undefined) => void;

/** Objects that left while their last events may still be under way; more than a node loses in a moment. */
const MOST_DEPARTED = 1_024;

/**
 * The trimmed objects of one resource by namespace and name, and what differs when one or all of them are told anew. Versions are
 * opaque: they are compared for equality only (Kubernetes API concepts, "Resource versions").
 */
export class Store<T> {
  readonly #trim: Trim<T>;
  readonly #emit: ChangeListener<T>;
  readonly #departed = new Set<string>();
  #objects = new Map<string, Stored<T>>();

  /** `seed`: what was known at another time, by key. */
  constructor(trim: Trim<T>, emit: ChangeListener<T>, seed: Iterable<readonly [string, Stored<T>]> = []) {
    this.#trim = trim;
    this.#emit = emit;
    this.#objects = new Map(seed);
  }

  get size(): number {
    return this.#objects.size;
  }

  *items(): Generator<T, void, undefined> {
    for (const { item } of this.#objects.values()) yield item;
  }

  /** By name, or `namespace/name`. */
  get(key: string): T | undefined {
    return this.#objects.get(key)?.item;
  }

  /** Everything, by key, for a store that is to begin with it. */
  entries(): Iterable<readonly [string, Stored<T>]> {
    return this.#objects.entries();
  }

  /** From now on objects are trimmed anew although their version is known: what is kept of them has changed. */
  forgetVersions(): void {
    for (const [key, stored] of this.#objects) this.#objects.set(key, { ...stored, resourceVersion: '' });
  }

  /** Puts one raw object of a list into `into`, trimmed. What is not kept of it can be collected at once. */
  collect(raw: JsonObject, into: Map<string, Stored<T>>): void {
    const { key, uid, resourceVersion } = identityOf(raw);
    const known = this.#objects.get(key);
    const isKnown = known?.uid === uid && known.resourceVersion === resourceVersion && resourceVersion !== '';
    const item = isKnown ? known.item : this.#trim(raw, Math.max(into.size, this.#objects.size));
    if (item !== undefined) into.set(key, { uid, resourceVersion, item });
  }

  /** Makes `next` the state: removals first, then what is new or changed. */
  replace(next: Map<string, Stored<T>>): void {
    const before = this.#objects;
    this.#objects = next;
    this.#departed.clear();
    for (const [key, old] of before) if (next.get(key)?.uid !== old.uid) this.#emit('removed', old.item, old.item);
    for (const [key, now] of next) this.#tell(before.get(key), now);
  }

  /** ADDED or MODIFIED. An object that has left comes back only by ADDED: a late MODIFIED of it is out of order. */
  upsert(raw: JsonObject, isAdded: boolean): void {
    const { key, uid, resourceVersion } = identityOf(raw);
    if (isAdded) this.#departed.delete(uid);
    else if (this.#departed.has(uid)) return;
    const before = this.#objects.get(key);
    if (before?.uid === uid && before.resourceVersion === resourceVersion) return;
    const item = this.#trim(raw, this.#objects.size);
    if (item === undefined) return this.#drop(key, before);
    const now = { uid, resourceVersion, item };
    this.#objects.set(key, now);
    if (before !== undefined && before.uid !== uid) this.#leave(before.uid, before.item, before.item);
    this.#tell(before, now);
  }

  /** DELETED; also told when the object no longer matches the selector. Of another object with that name it says nothing. */
  remove(raw: JsonObject): void {
    const { key, uid } = identityOf(raw);
    const before = this.#objects.get(key);
    if (before === undefined || before.uid !== uid) return void this.#depart(uid);
    this.#objects.delete(key);
    this.#leave(uid, this.#trim(raw, this.#objects.size) ?? before.item, before.item);
  }

  #drop(key: string, before: Stored<T> | undefined): void {
    if (before === undefined) return;
    this.#objects.delete(key);
    this.#emit('removed', before.item, before.item);
  }

  #tell(before: Stored<T> | undefined, now: Stored<T>): void {
    if (before === undefined || before.uid !== now.uid) return this.#emit('added', now.item, undefined);
    if (before.item !== now.item) this.#emit('changed', now.item, before.item);
  }

  #leave(uid: string, last: T, before: T): void {
    this.#depart(uid);
    this.#emit('removed', last, before);
  }

  #depart(uid: string): void {
    this.#departed.add(uid);
    if (this.#departed.size <= MOST_DEPARTED) return;
    const [oldest = ''] = this.#departed;
    this.#departed.delete(oldest);
  }
}

function identityOf(raw: JsonObject): { key: string; uid: string; resourceVersion: string } {
  const metadata = objectAt(raw, 'metadata');
  const [namespace, name] = [textAt(metadata, 'namespace'), textAt(metadata, 'name')];
  const key = namespace === '' ? name : `${namespace}/${name}`;
  return { key, uid: textAt(metadata, 'uid'), resourceVersion: textAt(metadata, 'resourceVersion') };
}
