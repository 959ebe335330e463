import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Alarm, Clock } from '../clock.ts';
import { messageOf, SignetError, systemCode } from '../errors.ts';
import { createServer } from '../http.ts';
import type { Log } from '../log.ts';
import type { ReadinessSource } from './readiness.ts';

export interface TelemetryServerOptions {
  /** Port 0: one that is free, told by `address`. */
  readonly address: { readonly host: string; readonly port: number };
  readonly readiness: ReadinessSource;
  /** False once the agent does not work any more although its process runs. */
  readonly live: () => boolean;
  readonly metrics: { readonly contentType: string; text(): Promise<string> };
  readonly log: Log;
  readonly clock: Clock;
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
  readonly allow?: string;
}

/** Two Prometheus servers, the kubelet's probes and a person; when there are more, the address that has most of them loses one. */
const MOST_CONNECTIONS = 64;
/** A request has neither a body nor large headers, so it is there at once. Milliseconds. */
const REQUEST_MS = 5_000;
/** A connection on which nothing moves, in either direction. Milliseconds. */
const IDLE_MS = 30_000;
/** How often an address is tried that somebody else has: most often the agent that this one follows. Milliseconds. */
const RETRY_MS = 500;
const HEADER_BYTES = 8 * 1024;
const MOST_HEADERS = 64;

const TEXT = 'text/plain; charset=utf-8';
const JSON_TYPE = 'application/json; charset=utf-8';

/** `/metrics`, `/live` and `/ready` over plain HTTP, for whoever can reach the address: no secret stands in any of them. */
export class TelemetryServer {
  readonly #options: TelemetryServerOptions;
  readonly #server: Server;
  /** With the address of each, the oldest first. */
  readonly #connections = new Map<Socket, string>();
  #alarm: Alarm | undefined;
  #isClosed = false;
  readonly #paths: Readonly<Record<string, () => Answer | Promise<Answer>>>;

  constructor(options: TelemetryServerOptions) {
    this.#options = options;
    this.#paths = { '/metrics': () => this.#metrics(), '/live': () => this.#live(), '/ready': () => this.#ready() };
    const limits = { requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS, maxHeaderSize: HEADER_BYTES, connectionsCheckingInterval: 1_000 };
    this.#server = createServer(limits, (request, response) => void this.#handle(request, response));
    this.#server.on('connection', (socket: Socket) => this.#admit(socket));
    this.#server.maxHeadersCount = MOST_HEADERS;
    this.#server.timeout = IDLE_MS;
  }

  /** Where it listens; undefined before it does. */
  get address(): { readonly host: string; readonly port: number } | undefined {
    const bound = this.#server.address() as AddressInfo | null;
    return bound === null ? undefined : { host: bound.address, port: bound.port };
  }

  /**
   * Resolves when it listens, or when it has to wait: the agent that this one follows has the address until it ends.
   *
   * @throws SignetError `unavailable` when the address can never be listened on.
   */
  async open(): Promise<void> {
    const { address: { host, port }, log } = this.#options;
    try {
      await this.#listen();
    } catch (error) {
      if (systemCode(error) !== 'EADDRINUSE') {
        throw new SignetError('unavailable', `telemetry.address ${host}:${port} cannot be listened on: ${messageOf(error)}`, { cause: error });
      }
      log.warn({ event: 'telemetry.waiting', err: messageOf(error) }, 'another process has the telemetry address; it is taken as soon as it is free');
      this.#listenLater();
    }
  }

  #listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#options.address, () => {
        this.#server.off('error', reject);
        this.#server.on('error', (error) => this.#tellFailure(error));
        // Whoever asks how the agent does must not keep it from ending.
        this.#server.unref();
        resolve();
      });
    });
  }

  #listenLater(): void {
    this.#alarm = this.#options.clock.after(RETRY_MS, () => {
      this.#listen().catch(() => {
        if (!this.#isClosed) this.#listenLater();
      });
    });
  }

  #tellFailure(error: unknown): void {
    this.#options.log.warn({ event: 'telemetry.failed', err: messageOf(error) }, 'the telemetry address has failed somebody');
  }

  /** Nobody can keep the kubelet's probe out by holding all places: whoever holds most gives one up. */
  #admit(socket: Socket): void {
    this.#connections.set(socket, socket.remoteAddress ?? '');
    socket.once('close', () => this.#connections.delete(socket));
    if (this.#connections.size <= MOST_CONNECTIONS) return;
    const byAddress = Map.groupBy(this.#connections.keys(), (one) => this.#connections.get(one) ?? '');
    const [most] = [...byAddress.values()].sort((a, b) => b.length - a.length);
    most?.[0]?.destroy();
  }

  /** Ends at once: what an agent that leaves could still tell is not worth waiting for. */
  close(): void {
    this.#isClosed = true;
    this.#alarm?.cancel();
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      send(request, response, await this.#answer(request));
    } catch (error) {
      this.#tellFailure(error);
      send(request, response, { status: 500, type: TEXT, body: 'this could not be told\n' });
    }
  }

  #answer({ method, url = '' }: IncomingMessage): Answer | Promise<Answer> {
    const [path = ''] = url.split('?', 1);
    const tell = Object.hasOwn(this.#paths, path) ? this.#paths[path] : undefined;
    if (tell === undefined) return { status: 404, type: TEXT, body: `there is ${Object.keys(this.#paths).join(', ')}\n` };
    if (method !== 'GET' && method !== 'HEAD') return { status: 405, type: TEXT, body: 'only GET and HEAD are allowed\n', allow: 'GET, HEAD' };
    return tell();
  }

  async #metrics(): Promise<Answer> {
    const { metrics } = this.#options;
    return { status: 200, type: metrics.contentType, body: await metrics.text() };
  }

  #live(): Answer {
    return this.#options.live() ? { status: 200, type: TEXT, body: 'live\n' } : { status: 503, type: TEXT, body: 'not live\n' };
  }

  #ready(): Answer {
    const { readiness } = this.#options;
    const { ready } = readiness;
    const reasons = readiness.reasons().map(({ code, message }) => ({ code, message }));
    return { status: ready ? 200 : 503, type: JSON_TYPE, body: `${JSON.stringify({ ready, degraded: ready && reasons.length > 0, reasons })}\n` };
  }
}

function send(request: IncomingMessage, response: ServerResponse, { status, type, body, allow }: Answer): void {
  // Whoever sends a body where none belongs is not listened to any longer.
  const hasBody = request.headers['content-length'] !== undefined || request.headers['transfer-encoding'] !== undefined;
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...(allow === undefined ? {} : { allow }),
    ...(hasBody ? { connection: 'close' } : {}),
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}
