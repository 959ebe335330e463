import type { ClientRequest, IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import type { Clock } from '../clock.ts';
import { SignetError, messageOf, systemCode } from '../errors.ts';
import { KubernetesError } from './api-error.ts';
import type { Access, Credentials } from './credentials.ts';
import { Watchdog } from './watchdog.ts';

/** All in milliseconds, but the sizes. */
export interface TransportLimits {
  /** Name look-up, TCP and TLS together. Default 5,000. */
  readonly connectMs: number;
  /** From the request sent to the answer's headers. Default 30,000. */
  readonly headersMs: number;
  /** Without a byte of the answer's body, but for a watch. Default 15,000. */
  readonly idleMs: number;
  /** Largest answer; of a list it bounds one object, of a watch one event. Default 32 MiB: that is in memory as a whole. */
  readonly bytes: number;
}

export const DEFAULT_LIMITS: TransportLimits = { connectMs: 5_000, headersMs: 30_000, idleMs: 15_000, bytes: 33_554_432 };

export type Method = 'GET' | 'POST' | 'PATCH' | 'DELETE';

export interface WireRequest {
  readonly method: Method;
  /** Path and query, percent-encoded. */
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | undefined;
  /** In place of `limits.idleMs`. */
  readonly idleMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The answer's head; its body is read by iterating, and given up by ending the iteration early. */
export interface WireAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: AsyncIterable<Buffer>;
}

/** A kept connection was closed by the server in the moment in which it was used again: nothing was answered, ask once more. */
export class StaleConnectionError extends KubernetesError {}

/** HTTPS/1.1 with kept connections to one server, each step bounded in time. */
export class Transport {
  readonly #credentials: Credentials;
  readonly #clock: Clock;
  readonly #limits: TransportLimits;
  // Connections of an agent are pooled by CA and client certificate too: rotated files lead to new ones.
  readonly #agent = new Agent({ keepAlive: true, maxFreeSockets: 2, timeout: 0 });

  constructor(credentials: Credentials, clock: Clock, limits: TransportLimits) {
    this.#credentials = credentials;
    this.#clock = clock;
    this.#limits = limits;
  }

  /** `GET https://10.0.0.1:6443/api/v1/pods`: for messages, without the query. */
  describe(method: Method, target: string): string {
    return `${method} ${this.#url(target).href.replace(/\?.*$/, '')}`;
  }

  /** @throws KubernetesError, or the reason of the signal. */
  send(request: WireRequest, access: Access): Promise<WireAnswer> {
    return new Promise((resolve, reject) => {
      const { signal } = request;
      if (signal?.aborted === true) return reject(reasonOf(signal));
      const exchange = new Exchange(this.#clock, this.#limits, request, this.describe(request.method, request.target));
      exchange.start(() => httpsRequest(this.#url(request.target), this.#options(request, access)), resolve, reject);
    });
  }

  /** Closes all connections. */
  close(): void {
    this.#agent.destroy();
  }

  #url(target: string): URL {
    const { origin, pathname } = this.#credentials.server;
    return new URL(`${origin}${pathname.replace(/\/$/, '')}${target}`);
  }

  #options(request: WireRequest, { token, ca, cert, key }: Access): Parameters<typeof httpsRequest>[1] {
    const { serverName } = this.#credentials;
    const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const length = request.body === undefined ? {} : { 'content-length': String(Buffer.byteLength(request.body)) };
    return {
      method: request.method,
      agent: this.#agent,
      minVersion: 'TLSv1.2',
      rejectUnauthorized: true,
      headers: { ...request.headers, ...authorization, ...length },
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
      ...(serverName === undefined ? {} : { servername: serverName }),
    };
  }
}

/** One request and its answer under one watchdog and one signal. */
class Exchange {
  readonly #request: WireRequest;
  readonly #limits: TransportLimits;
  readonly #what: string;
  readonly #watchdog: Watchdog;
  #give: (error: Error) => void = () => undefined;

  constructor(clock: Clock, limits: TransportLimits, request: WireRequest, what: string) {
    this.#request = request;
    this.#limits = limits;
    this.#what = what;
    this.#watchdog = new Watchdog(clock, (waited) => this.#give(new KubernetesError('timed_out', `${what}: ${waited}`)));
  }

  start(open: () => ClientRequest, resolve: (answer: WireAnswer) => void, reject: (error: unknown) => void): void {
    const outgoing = this.#open(open);
    const { connectMs, headersMs } = this.#limits;
    this.#give = (error) => void outgoing.destroy(error);
    this.#request.signal?.addEventListener('abort', this.#abort, { once: true });
    this.#watchdog.arm(connectMs, 'no connection');
    outgoing.once('socket', (socket) => {
      const connected = (): void => this.#watchdog.arm(headersMs, 'connected, but no answer');
      if (outgoing.reusedSocket) connected();
      else socket.once('secureConnect', connected);
    });
    outgoing.on('error', (error) => {
      this.#end();
      reject(this.#failure(error, outgoing.reusedSocket));
    });
    outgoing.once('response', (incoming) => {
      this.#give = (error) => void incoming.destroy(error);
      this.#watchdog.disarm();
      resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: this.#read(incoming) });
    });
    outgoing.end(this.#request.body);
  }

  async *#read(incoming: IncomingMessage): AsyncGenerator<Buffer, void, undefined> {
    const idleMs = this.#request.idleMs ?? this.#limits.idleMs;
    const chunks = incoming[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    try {
      for (;;) {
        // Only waiting counts: a reader that takes its time is not an idle server.
        this.#watchdog.arm(idleMs, 'nothing more of the answer');
        const next = await chunks.next();
        this.#watchdog.disarm();
        if (next.done === true) return;
        yield next.value;
      }
    } catch (error) {
      throw this.#failure(error, false);
    } finally {
      this.#end();
      incoming.destroy();
    }
  }

  /** A certificate or a header that Node does not take is refused on the spot. */
  #open(open: () => ClientRequest): ClientRequest {
    try {
      return open();
    } catch (error) {
      throw this.#failure(error, false);
    }
  }

  #end(): void {
    this.#watchdog.disarm();
    this.#request.signal?.removeEventListener('abort', this.#abort);
  }

  readonly #abort = (): void => this.#give(reasonOf(this.#request.signal));

  #failure(error: unknown, reused: boolean): unknown {
    const { signal } = this.#request;
    if (signal?.aborted === true) return reasonOf(signal);
    if (error instanceof SignetError) return error;
    const message = `${this.#what}: ${systemCode(error) ?? ''} ${messageOf(error)}`.replaceAll(/\s+/g, ' ');
    const stale = reused && ['ECONNRESET', 'EPIPE'].includes(systemCode(error) ?? '');
    const KindOfError = stale ? StaleConnectionError : KubernetesError;
    return new KindOfError('unavailable', message, { cause: error });
  }
}

function reasonOf(signal: AbortSignal | undefined): Error {
  const reason: unknown = signal?.reason;
  return reason instanceof Error ? reason : new SignetError('stopped', 'the request was given up', { cause: reason });
}
