import type { ListOptions, WatchEvent, WatchOptions } from '../../src/kubernetes/api-client.ts';
import { refusal } from '../../src/kubernetes/api-error.ts';
import { objectAt, textAt, type JsonObject } from '../../src/kubernetes/json.ts';
import type { Resource } from '../../src/kubernetes/resources.ts';
import type { RequestsClient } from '../../src/upstream/cert-manager/requests.ts';

type Verb = 'get' | 'create' | 'delete' | 'list' | 'watch';

/** The collections of an API server that an agent under cert-manager uses, with as many faults as a test gives it. */
export class MemoryRequests implements RequestsClient {
  readonly objects = new Map<string, JsonObject>();
  readonly calls: string[] = [];
  /** Throws, or holds back, what is asked. */
  fault: (verb: Verb, path: string) => void | Promise<void> = () => undefined;
  #version = 0;
  /** All that has happened, by version: a watch begins where its list has ended. */
  readonly #history: (readonly [version: number, event: WatchEvent])[] = [];
  readonly #watches = new Set<(event: WatchEvent) => void>();

  get requests(): readonly JsonObject[] {
    return [...this.objects.entries()].filter(([path]) => path.includes('certificaterequests')).map(([, object]) => object);
  }

  get watching(): number {
    return this.#watches.size;
  }

  async get(path: string): Promise<JsonObject> {
    await this.#called('get', path);
    const object = this.objects.get(path);
    if (object !== undefined || path === '/version') return object ?? {};
    throw refusal(`GET ${path}`, 404, { reason: 'NotFound' });
  }

  async create(path: string, object: JsonObject): Promise<JsonObject> {
    await this.#called('create', path);
    return this.put(`${path}/${nameOf(object)}`, object, 'ADDED');
  }

  async delete(path: string): Promise<void> {
    await this.#called('delete', path);
    const object = this.objects.get(path);
    if (object === undefined) throw refusal(`DELETE ${path}`, 404, { reason: 'NotFound' });
    this.objects.delete(path);
    this.#version += 1;
    this.#tell('DELETED', object);
  }

  async list(resource: Resource, options: ListOptions, onItem: (raw: JsonObject) => void): Promise<string> {
    await this.#called('list', resource.path);
    for (const object of this.#of(resource.path, options)) onItem(object);
    return String(this.#version);
  }

  async *watch(resource: Resource, options: WatchOptions): AsyncGenerator<WatchEvent, void, undefined> {
    await this.#called('watch', resource.path);
    const events: WatchEvent[] = [];
    let wake = Promise.withResolvers<void>();
    const listener = (event: WatchEvent): void => {
      const isMine = this.#of(resource.path, options, [[`${resource.path}/${nameOf(event.object)}`, event.object]]).length > 0;
      if (isMine && kindOf(event.object) === kindAt(resource.path)) events.push(event);
      wake.resolve();
    };
    this.#watches.add(listener);
    for (const [version, event] of this.#history) if (version > Number(options.resourceVersion)) listener(event);
    options.signal?.addEventListener('abort', () => wake.resolve(), { once: true });
    options.onOpen?.();
    try {
      for (;;) {
        for (let event = events.shift(); event !== undefined; event = events.shift()) yield event;
        options.signal?.throwIfAborted();
        await wake.promise;
        wake = Promise.withResolvers<void>();
      }
    } finally {
      this.#watches.delete(listener);
    }
  }

  /** Makes an object, or another version of it. */
  put(path: string, object: JsonObject, type: 'ADDED' | 'MODIFIED' = 'MODIFIED'): JsonObject {
    this.#version += 1;
    const metadata = { uid: `uid-${nameOf(object)}`, ...objectAt(object, 'metadata'), resourceVersion: String(this.#version) };
    const stored = { ...object, metadata };
    this.objects.set(path, stored);
    this.#tell(type, stored);
    return stored;
  }

  /** Writes the status of the one request that there is. */
  answer(status: JsonObject): void {
    const [path, object] = [...this.objects].find(([at]) => at.includes('certificaterequests')) ?? [];
    if (path === undefined || object === undefined) throw new Error('there is no request');
    this.put(path, { ...object, status });
  }

  async #called(verb: Verb, path: string): Promise<void> {
    this.calls.push(`${verb} ${path}`);
    await this.fault(verb, path);
  }

  #of(path: string, { labelSelector, fieldSelector }: ListOptions | WatchOptions, among: Iterable<[string, JsonObject]> = this.objects): JsonObject[] {
    const [label = '', value = ''] = (labelSelector ?? '').split('=');
    const name = /metadata\.name=(.*)/.exec(fieldSelector ?? '')?.[1];
    return [...among]
      .filter(([at, object]) => at === `${path}/${nameOf(object)}`)
      .map(([, object]) => object)
      .filter((object) => label === '' || textAt(objectAt(objectAt(object, 'metadata'), 'labels'), label) === value)
      .filter((object) => name === undefined || nameOf(object) === name);
  }

  #tell(type: WatchEvent['type'], object: JsonObject): void {
    this.#history.push([this.#version, { type, object }]);
    for (const listener of [...this.#watches]) listener({ type, object });
  }
}

function nameOf(object: JsonObject): string {
  return textAt(objectAt(object, 'metadata'), 'name');
}

function kindOf(object: JsonObject): string {
  return textAt(object, 'kind');
}

function kindAt(path: string): string {
  return path.endsWith('configmaps') ? 'ConfigMap' : 'CertificateRequest';
}
