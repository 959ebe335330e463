import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { JsonObject } from '../../src/kubernetes/json.ts';
import { credentialsFrom, type Credentials } from '../../src/kubernetes/credentials.ts';
import { makePki, type TestPki } from './kubernetes-pki.ts';

export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
  /** CN of the client certificate, or ''. */
  readonly client: string;
}

/** Answers one request in place of the server; true when it has. */
export type Fault = (seen: Seen, response: ServerResponse, request: IncomingMessage) => boolean;

export interface Watching {
  readonly seen: Seen;
  readonly response: ServerResponse;
}

/** An API server that knows one collection, or those that a test names, and as many faults as a test gives it. */
export class FakeApi {
  readonly seen: Seen[] = [];
  readonly watches = new Set<Watching>();
  readonly faults: Fault[] = [];
  /** When set, requests must bring this bearer token. */
  token: string | undefined;
  /** Resource version that lists and bookmarks tell. */
  version = 100;
  objects: JsonObject[] = [];
  /** By path. When there are some, all other paths are unknown, and `objects` does not count. */
  readonly collections = new Map<string, JsonObject[]>();
  /** Objects in one page; by default all. */
  page = Infinity;
  readonly pki: TestPki;
  readonly #server: Server;
  #port = 0;

  private constructor(pki: TestPki) {
    this.pki = pki;
    const { cert, key, ca } = pki;
    this.#server = createServer({ cert, key, ca, requestCert: true, rejectUnauthorized: false }, (request, response) => void this.#serve(request, response));
  }

  static async start(): Promise<FakeApi> {
    const api = new FakeApi(await makePki());
    await api.listen();
    return api;
  }

  /** Starts to listen; again on the same port after `stop`. */
  async listen(): Promise<void> {
    this.#server.listen(this.#port, '127.0.0.1');
    await once(this.#server, 'listening');
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  /** Refuses connections and cuts all there are. */
  async stop(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  get port(): number {
    return this.#port;
  }

  credentials(token?: { text: string } | { path: string }): Credentials {
    return credentialsFrom({ server: new URL(`https://127.0.0.1:${this.#port}`), origin: 'test', ca: { text: this.pki.ca }, token });
  }

  /** Sends an event to every watch, or to those of one path. */
  tell(type: string, object: JsonObject, path?: string): void {
    for (const { seen, response } of this.watches) if (path === undefined || seen.path === path) response.write(`${JSON.stringify({ type, object })}\n`);
  }

  /** Sends bytes as they are. */
  write(text: string): void {
    for (const { response } of this.watches) response.write(text);
  }

  bookmark(version: string): void {
    this.tell('BOOKMARK', { metadata: { resourceVersion: version } });
  }

  cutWatches(): void {
    for (const { response } of this.watches) response.destroy();
  }

  lists(): Seen[] {
    return this.seen.filter(({ method, query }) => method === 'GET' && !query.has('watch'));
  }

  watched(): Seen[] {
    return this.seen.filter(({ query }) => query.has('watch'));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'https://api');
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const client = String((request.socket as TLSSocket).getPeerCertificate().subject?.CN ?? '');
    const { method = '', headers } = request;
    const seen: Seen = { method, path: url.pathname, query: url.searchParams, headers, body: Buffer.concat(chunks).toString(), client };
    this.seen.push(seen);
    const fault = this.faults.findIndex((one) => one(seen, response, request));
    if (fault !== -1) return void this.faults.splice(fault, 1);
    if (this.token !== undefined && request.headers.authorization !== `Bearer ${this.token}`) return answer(response, 401, status(401, 'Unauthorized', 'Unauthorized'));
    if (this.collections.size > 0 && !this.collections.has(seen.path)) return answer(response, 404, status(404, 'NotFound', 'the server could not find the requested resource'));
    if (seen.query.has('watch')) return this.#watch(seen, response);
    this.#list(seen, response);
  }

  #watch(seen: Seen, response: ServerResponse): void {
    const watching = { seen, response };
    this.watches.add(watching);
    response.on('close', () => this.watches.delete(watching));
    response.on('error', () => undefined);
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
  }

  #list({ path, query }: Seen, response: ServerResponse): void {
    const objects = this.collections.get(path) ?? this.objects;
    const from = Number(query.get('continue') ?? 0);
    const to = Math.min(from + this.page, objects.length);
    const rest = to < objects.length ? { continue: String(to) } : {};
    answer(response, 200, { kind: 'PodList', metadata: { resourceVersion: String(this.version), ...rest }, items: objects.slice(from, to) });
  }
}

export function answer(response: ServerResponse, code: number, body: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(code, { 'content-type': 'application/json', ...headers });
  response.end(typeof body === 'string' ? body : JSON.stringify(body));
}

/** A Status object as the API server sends it. */
export function status(code: number, reason: string, message: string, details: JsonObject = {}): JsonObject {
  return { kind: 'Status', apiVersion: 'v1', status: 'Failure', message, reason, details, code };
}

/** A raw object with the metadata that an informer looks at. */
export function object(name: string, uid: string, resourceVersion: string | number, more: JsonObject = {}): JsonObject {
  return { metadata: { name, namespace: 'default', uid, resourceVersion: String(resourceVersion) }, ...more };
}

/** Resolves once `isTrue` is, looking at each turn of the event loop; rejects after `boundMs`. */
export async function until(isTrue: () => boolean, what: string, boundMs = 15_000): Promise<void> {
  const end = performance.now() + boundMs;
  while (!isTrue()) {
    if (performance.now() > end) throw new Error(`not within ${boundMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
