import { createHash, generateKeyPairSync } from 'node:crypto';
import type { ApplyOptions, CallOptions } from '../../src/kubernetes/api-client.ts';
import { KubernetesError } from '../../src/kubernetes/api-error.ts';
import { objectAt, objectsAt, textAt, type JsonObject } from '../../src/kubernetes/json.ts';
import type { JwtAuthority, TrustBundle } from '../../src/spiffe/bundle.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { issuerOf } from '../support/authorities.ts';
import { newKeyPair } from '../../src/authority/keys.ts';

export interface Call {
  readonly verb: 'get' | 'create' | 'apply';
  readonly path: string;
  readonly object: JsonObject;
  readonly force: boolean;
}

/** The parts of an object whose members belong to somebody, one by one. */
const OWNED = ['data', 'spec'] as const;

/**
 * Objects in memory with versions, and with server-side apply as far as a publisher can tell: members belong to managers, a
 * member of another one conflicts unless forced, and an apply that changes nothing makes no new version.
 */
export class PublishApi {
  readonly objects = new Map<string, JsonObject>();
  readonly calls: Call[] = [];
  /** Paths that begin with one of these answer with its status. */
  readonly refused = new Map<string, number>();
  /** Called before an object is written. */
  beforeWrite: ((path: string) => void | Promise<void>) | undefined;
  #version = 0;

  /** Calls that write, but for Leases. */
  get writes(): Call[] {
    return this.calls.filter(({ verb, path }) => verb !== 'get' && !path.includes('/leases'));
  }

  /** Puts an object, as `manager` would with an update; undefined: as it is. */
  put(path: string, object: JsonObject, manager?: string): void {
    const before = this.objects.get(path) ?? {};
    this.#store(path, object, manager === undefined ? fieldsOf(before) : this.#ownersAfter(before, object, manager, 'Update'));
  }

  async get(path: string, options: CallOptions = {}): Promise<JsonObject> {
    this.#call({ verb: 'get', path, object: {}, force: false }, options.signal);
    const found = this.objects.get(path);
    if (found === undefined) throw refusal(404, path);
    return found;
  }

  async create(path: string, object: JsonObject, options: CallOptions = {}): Promise<JsonObject> {
    this.#call({ verb: 'create', path, object, force: false }, options.signal);
    const at = `${path}/${textAt(objectAt(object, 'metadata'), 'name')}`;
    if (this.objects.has(at)) throw refusal(409, at);
    return this.#store(at, object, []);
  }

  async apply(path: string, object: JsonObject, { fieldManager, force = false, signal }: ApplyOptions): Promise<JsonObject> {
    this.#call({ verb: 'apply', path, object, force }, signal);
    if (!path.includes('/leases')) await this.beforeWrite?.(path);
    const before = this.objects.get(path) ?? {};
    const [is, wanted] = [objectAt(before, 'metadata'), objectAt(object, 'metadata')];
    for (const key of ['uid', 'resourceVersion']) if (wanted[key] !== undefined && wanted[key] !== is[key]) throw refusal(409, path);
    const conflict = force ? undefined : this.#conflict(before, object, fieldManager);
    if (conflict !== undefined) throw refusal(409, `conflict with ${JSON.stringify(conflict)}`);
    const metadata = { ...is, ...wanted, annotations: { ...objectAt(is, 'annotations'), ...objectAt(wanted, 'annotations') } };
    const merged: Record<string, unknown> = { ...before, ...object, metadata };
    // A Lease belongs to one manager: what it does not say any more is gone.
    const kept = path.includes('/leases') ? [] : OWNED.filter((part) => object[part] !== undefined);
    for (const part of kept) merged[part] = { ...objectAt(before, part), ...objectAt(object, part) };
    const isSame = same({ ...merged, metadata: 0 }, { ...before, metadata: 0 }) && same(metadata.annotations, is['annotations']);
    if (is['uid'] !== undefined && isSame) return before;
    return this.#store(path, merged, this.#ownersAfter(before, object, fieldManager, 'Apply'));
  }

  #store(path: string, object: JsonObject, managedFields: readonly JsonObject[]): JsonObject {
    this.#version += 1;
    const uid = textAt(objectAt(this.objects.get(path) ?? {}, 'metadata'), 'uid') || `uid-${this.#version}`;
    const stored = { ...object, metadata: { ...objectAt(object, 'metadata'), uid, resourceVersion: String(this.#version), managedFields } };
    this.objects.set(path, stored);
    return stored;
  }

  #call(call: Call, signal: AbortSignal | undefined): void {
    signal?.throwIfAborted();
    this.calls.push(call);
    for (const [prefix, status] of this.refused) if (call.path.startsWith(prefix)) throw refusal(status, call.path);
  }

  #conflict(before: JsonObject, object: JsonObject, manager: string): string | undefined {
    for (const entry of fieldsOf(before)) {
      if (textAt(entry, 'manager') === manager) continue;
      for (const [part, key, value] of members(object)) {
        const isTheirs = Object.hasOwn(ownedAt(entry, part), `f:${key}`);
        if (isTheirs && objectAt(before, part)[key] !== value) return textAt(entry, 'manager');
      }
    }
    return undefined;
  }

  /** Whoever changes a member has it from then on, and nobody else. */
  #ownersAfter(before: JsonObject, object: JsonObject, manager: string, operation: 'Apply' | 'Update'): JsonObject[] {
    const owners = new Map<string, string>();
    for (const entry of fieldsOf(before)) {
      const owner = `${textAt(entry, 'manager')}/${textAt(entry, 'operation')}`;
      for (const part of OWNED) for (const key of Object.keys(ownedAt(entry, part))) owners.set(`${part}/${key.slice(2)}`, owner);
    }
    for (const [part, key, value] of members(object)) {
      if (operation === 'Apply' || objectAt(before, part)[key] !== value) owners.set(`${part}/${key}`, `${manager}/${operation}`);
    }
    return [...new Set(owners.values())].map((owner) => {
      const [name, how] = owner.split('/');
      const paths = [...owners].filter(([, whose]) => whose === owner).map(([path]) => path);
      const within = (part: string): JsonObject => {
        const keys = paths.filter((path) => path.startsWith(`${part}/`)).map((path) => `f:${path.slice(part.length + 1)}`);
        return Object.fromEntries(keys.map((key) => [key, {}]));
      };
      return { manager: name, operation: how, fieldsV1: { 'f:data': within('data'), 'f:spec': within('spec') } };
    });
  }
}

function fieldsOf(object: JsonObject): readonly JsonObject[] {
  return objectsAt(objectAt(object, 'metadata'), 'managedFields');
}

function ownedAt(entry: JsonObject, part: string): JsonObject {
  return objectAt(objectAt(entry, 'fieldsV1'), `f:${part}`);
}

function* members(object: JsonObject): Generator<readonly [part: string, key: string, value: unknown]> {
  for (const part of OWNED) for (const [key, value] of Object.entries(objectAt(object, part))) yield [part, key, value];
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function refusal(status: number, path: string): KubernetesError {
  return new KubernetesError('unavailable', `${path}: ${status}`, { status });
}

/** A bundle that a test changes by hand. */
export class ChangingBundle {
  readonly #listeners = new Set<() => void>();
  #bundle: TrustBundle;

  constructor(roots: readonly Buffer[], keys: readonly JwtAuthority[] = [], trustDomain = 'example.org') {
    this.#bundle = { trustDomain: parseTrustDomain(trustDomain), x509Authorities: roots, jwtAuthorities: keys };
  }

  own(): TrustBundle {
    return this.#bundle;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  set(roots: readonly Buffer[], keys: readonly JwtAuthority[] = []): void {
    this.#bundle = { ...this.#bundle, x509Authorities: roots, jwtAuthorities: keys };
    for (const listener of this.#listeners) listener();
  }
}

const YEAR_MS = 365 * 86_400_000;

/** A root of `example.org`, by default from a day before the fake clock's beginning and for a year. */
export async function makeRoot(from = Date.UTC(2029, 11, 31), to = from + YEAR_MS): Promise<Buffer> {
  return (await issuerOf(await newKeyPair('ec-p256'), from, to)).certificate;
}

export function makeJwtKey(): JwtAuthority {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const { y = '', x = '', kty = '', crv = '' } = publicKey.export({ format: 'jwk' });
  const kid = createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url');
  return { kid, publicKey, jwk: { y, x, kty, crv } };
}
