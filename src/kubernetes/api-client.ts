import type { Clock } from '../clock.ts';
import { KubernetesError, refusal } from './api-error.ts';
import { readBeginning, readLines, readText } from './body.ts';
import type { Credentials } from './credentials.ts';
import { isObject, objectAt, textAt, type JsonObject } from './json.ts';
import { readList } from './list-body.ts';
import type { Resource } from './resources.ts';
import { DEFAULT_LIMITS, StaleConnectionError, Transport } from './transport.ts';
import type { Method, TransportLimits, WireAnswer } from './transport.ts';

export interface KubernetesClientOptions {
  readonly credentials: Credentials;
  readonly clock: Clock;
  /** Those not given are the defaults of `DEFAULT_LIMITS`. */
  readonly limits?: Partial<TransportLimits>;
  /** Default `signet`. */
  readonly userAgent?: string;
  /** How often the server sends a bookmark into a quiet watch, default 60,000 ms (kube-apiserver: about every minute). */
  readonly bookmarkMs?: number;
}

export interface Selection {
  readonly fieldSelector?: string | undefined;
  readonly labelSelector?: string | undefined;
}

export interface ListOptions extends Selection {
  /** Objects in one answer, default 500. A list from the server's cache may come as one answer whatever this says. */
  readonly limit?: number;
  /** `'0'`: anything from the server's cache; another: not older than that; undefined: the newest, read by quorum. */
  readonly resourceVersion?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface WatchOptions extends Selection {
  /** The watch tells what happened after it. */
  readonly resourceVersion: string;
  /** After which the server ends the watch, in seconds. Default 300. */
  readonly timeoutSeconds?: number;
  readonly signal?: AbortSignal | undefined;
  /** Is called once the server has accepted the watch. */
  readonly onOpen?: () => void;
}

export interface WatchEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK';
  readonly object: JsonObject;
}

export interface ApplyOptions {
  /** Whose fields these are; the same for each apply of one agent's object. */
  readonly fieldManager: string;
  /** Takes fields over from other managers instead of failing with 409. Default false. */
  readonly force?: boolean;
  readonly signal?: AbortSignal | undefined;
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

/** What an informer needs of a client. */
export interface ListWatch {
  list(resource: Resource, options: ListOptions, onItem: (raw: JsonObject) => void): Promise<string>;
  watch(resource: Resource, options: WatchOptions): AsyncGenerator<WatchEvent, void, undefined>;
}

interface Call extends CallOptions {
  readonly method: Method;
  readonly path: string;
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly accept?: string;
  readonly contentType?: string;
  readonly body?: unknown;
  readonly idleMs?: number;
}

const JSON_TYPE = 'application/json';
/** JSON is YAML, and is what the server expects under this name. */
const APPLY_TYPE = 'application/apply-patch+yaml';
const MERGE_TYPE = 'application/merge-patch+json';
const PAGE = 500;
const WATCH_SECONDS = 300;
/** An error's Status object is small; a proxy's error page need not be read to its end. */
const ERROR_BYTES = 65_536;
const EVENT_TYPES: ReadonlySet<string> = new Set(['ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK']);

/**
 * The part of the Kubernetes API that an agent needs, over HTTPS and JSON. Every method throws KubernetesError (`status` 403,
 * 404, 409, 410, …; none when there was no answer), or the reason of its signal.
 */
export class KubernetesClient implements ListWatch {
  readonly #credentials: Credentials;
  readonly #transport: Transport;
  readonly #limits: TransportLimits;
  readonly #userAgent: string;
  readonly #watchIdleMs: number;

  constructor(options: KubernetesClientOptions) {
    this.#credentials = options.credentials;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#transport = new Transport(options.credentials, options.clock, this.#limits);
    this.#userAgent = options.userAgent ?? 'signet';
    this.#watchIdleMs = 2 * (options.bookmarkMs ?? 60_000);
  }

  /** One object, or whatever JSON object is at `path`. */
  get(path: string, options: CallOptions = {}): Promise<JsonObject> {
    return this.#json({ method: 'GET', path, ...options });
  }

  /**
   * Gives every object to `onItem` as it arrives, page by page, and resolves with the resource version from which to watch. A list whose next
   * page has expired fails with 410, after some objects have been given.
   */
  async list(resource: Resource, options: ListOptions, onItem: (raw: JsonObject) => void): Promise<string> {
    const call: Call = { method: 'GET', path: resource.path, accept: acceptOf(resource, 'List'), signal: options.signal };
    for (let next = ''; ; ) {
      const page = await this.#read({ ...call, query: listQuery(options, next) }, onItem);
      const metadata = objectAt(page, 'metadata');
      next = textAt(metadata, 'continue');
      if (next === '') return textAt(metadata, 'resourceVersion');
    }
  }

  /** A list that is at `path` as a whole: gives every object to `onItem`, and resolves with all else of the answer. */
  items(path: string, options: CallOptions, onItem: (raw: JsonObject) => void): Promise<JsonObject> {
    return this.#read({ method: 'GET', path, ...options }, onItem);
  }

  /**
   * What happens after `resourceVersion`, bookmarks included, until the server ends the watch. Throws when it breaks off, when it
   * is silent for two bookmark periods, and for an ERROR event (410 `Expired`: list anew).
   */
  async *watch(resource: Resource, options: WatchOptions): AsyncGenerator<WatchEvent, void, undefined> {
    const call: Call = {
      method: 'GET',
      path: resource.path,
      query: watchQuery(options),
      accept: acceptOf(resource, ''),
      idleMs: this.#watchIdleMs,
      signal: options.signal,
    };
    const what = `watch of ${resource.name}`;
    const answer = await this.#send(call);
    options.onOpen?.();
    for await (const line of readLines(answer.body, this.#limits.bytes, what)) yield eventOf(parse(line, what), what);
  }

  /** Server-side apply: makes the object, or makes the fields in `object` ours. Resolves with the whole object. */
  apply(path: string, object: JsonObject, options: ApplyOptions): Promise<JsonObject> {
    const query = { fieldManager: options.fieldManager, force: options.force === true ? 'true' : undefined };
    return this.#json({ method: 'PATCH', path, query, contentType: APPLY_TYPE, body: object, signal: options.signal });
  }

  /** Server-side apply of the `status` subresource. */
  applyStatus(path: string, object: JsonObject, options: ApplyOptions): Promise<JsonObject> {
    return this.apply(`${path}/status`, object, options);
  }

  /** Merges `status` into that of the object (RFC 7386: null removes a member). */
  patchStatus(path: string, status: JsonObject, options: CallOptions = {}): Promise<JsonObject> {
    return this.#json({ method: 'PATCH', path: `${path}/status`, contentType: MERGE_TYPE, body: { status }, ...options });
  }

  /** POST to a collection; also for questions such as TokenReview, whose answer is in the status of the object returned. */
  create(path: string, object: JsonObject, options: CallOptions = {}): Promise<JsonObject> {
    return this.#json({ method: 'POST', path, body: object, ...options });
  }

  /** Deletes one object; with `uid` only the one that has it (409 otherwise). */
  async delete(path: string, options: CallOptions & { readonly uid?: string } = {}): Promise<void> {
    const { uid, signal } = options;
    await this.#json({ method: 'DELETE', path, body: uid === undefined ? undefined : { preconditions: { uid } }, signal });
  }

  /** Closes all connections: calls that run fail. */
  close(): void {
    this.#transport.close();
  }

  /** Whoever may make objects decides how large a list is: one object at a time is in memory, and only that is bounded. */
  async #read(call: Call, onItem: (raw: JsonObject) => void): Promise<JsonObject> {
    const answer = await this.#send(call);
    const what = this.#transport.describe(call.method, call.path);
    const take = (text: string): void => {
      const item = parse(text, what);
      if (isObject(item)) onItem(item);
    };
    const page = parse(await readList(answer.body, this.#limits.bytes, what, take), what);
    if (!isObject(page)) throw new KubernetesError('unavailable', `${what}: the answer is not a JSON object`);
    // An empty list may come as null, as Go writes it.
    if (Array.isArray(page['items'] ?? [])) return page;
    throw new KubernetesError('unavailable', `${what}: the answer is not a list`);
  }

  async #json(call: Call): Promise<JsonObject> {
    const answer = await this.#send(call);
    const what = this.#transport.describe(call.method, call.path);
    const value = parse(await readText(answer.body, this.#limits.bytes, what), what);
    if (isObject(value)) return value;
    throw new KubernetesError('unavailable', `${what}: the answer is not a JSON object`);
  }

  /** A successful answer. Asks again once: with another token after a 401, and on a new connection when a kept one was closed. */
  async #send(call: Call): Promise<WireAnswer> {
    const used = await this.#credentials.read();
    const answer = await this.#attempt(call, used);
    if (answer.status === 401) {
      const fresh = await this.#credentials.read();
      const isNew = fresh.token !== used.token || fresh.cert !== used.cert;
      if (isNew) {
        await readBeginning(answer.body, ERROR_BYTES);
        return this.#accepted(call, await this.#attempt(call, fresh));
      }
    }
    return this.#accepted(call, answer);
  }

  async #attempt(call: Call, access: Awaited<ReturnType<Credentials['read']>>): Promise<WireAnswer> {
    const { method, idleMs, signal } = call;
    const request = { method, target: targetOf(call), headers: this.#headers(call), body: bodyOf(call), idleMs, signal };
    try {
      return await this.#transport.send(request, access);
    } catch (error) {
      // A POST may have been carried out although its answer was lost.
      if (!(error instanceof StaleConnectionError) || method === 'POST') throw error;
      return this.#transport.send(request, access);
    }
  }

  async #accepted(call: Call, answer: WireAnswer): Promise<WireAnswer> {
    if (answer.status >= 200 && answer.status < 300) return answer;
    const body = parsedOrText(await readBeginning(answer.body, ERROR_BYTES));
    throw refusal(this.#transport.describe(call.method, call.path), answer.status, body, answer.headers['retry-after']);
  }

  #headers(call: Call): Record<string, string> {
    const headers = { accept: call.accept ?? JSON_TYPE, 'user-agent': this.#userAgent };
    return call.body === undefined ? headers : { ...headers, 'content-type': call.contentType ?? JSON_TYPE };
  }
}

function listQuery(options: ListOptions, next: string): Record<string, string | undefined> {
  const { resourceVersion, fieldSelector, labelSelector, limit = PAGE } = options;
  const page = { fieldSelector, labelSelector, limit: String(limit) };
  // The next page belongs to the version of the first one: the server refuses to be told another.
  if (next !== '') return { ...page, continue: next };
  return resourceVersion === undefined ? page : { ...page, resourceVersion, resourceVersionMatch: 'NotOlderThan' };
}

function watchQuery(options: WatchOptions): Record<string, string | undefined> {
  const { resourceVersion, fieldSelector, labelSelector, timeoutSeconds = WATCH_SECONDS } = options;
  const selection = { resourceVersion, fieldSelector, labelSelector, timeoutSeconds: String(timeoutSeconds) };
  return { watch: 'true', allowWatchBookmarks: 'true', ...selection };
}

/** With metadata only, a list must be asked for as a list and a watch as its single objects. */
function acceptOf(resource: Resource, suffix: 'List' | ''): string {
  return resource.metadataOnly === true ? `${JSON_TYPE};as=PartialObjectMetadata${suffix};g=meta.k8s.io;v=v1` : JSON_TYPE;
}

function targetOf(call: Call): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(call.query ?? {})) if (value !== undefined) query.set(name, value);
  return query.size === 0 ? call.path : `${call.path}?${query}`;
}

function bodyOf(call: Call): string | undefined {
  return call.body === undefined ? undefined : JSON.stringify(call.body);
}

function eventOf(value: unknown, what: string): WatchEvent {
  const event = isObject(value) ? value : {};
  const type = textAt(event, 'type');
  const object = event['object'];
  if (type === 'ERROR') throw refusal(what, undefined, object);
  if (EVENT_TYPES.has(type) && isObject(object)) return { type: type as WatchEvent['type'], object };
  throw new KubernetesError('unavailable', `${what}: ${JSON.stringify(type)} is not an event`);
}

function parse(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new KubernetesError('unavailable', `${what}: the answer is not JSON`, { cause: error });
  }
}

function parsedOrText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
