import type { Agent, ClientRequest, RequestOptions } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { Clock } from '../../clock.ts';
import { SignetError } from '../../errors.ts';
import { Agent as HttpAgent, request as httpRequest } from '../../http.ts';
import { Exchange, StaleConnection, type WireAnswer, type WireRequest } from './exchange.ts';
import type { TlsMaterial, TlsSource } from './tls-material.ts';
import type { WireLimits } from './limits.ts';
import { UpstreamError } from './upstream-error.ts';

export interface ConnectionOptions {
  readonly address: URL;
  readonly serverName?: string | undefined;
  readonly tls: TlsSource;
  readonly limits: WireLimits;
}

const NOTHING: TlsMaterial = {};

/** Kept connections to one server; each request bounded in time and bytes. Redirects are answers like others. */
export class Connection {
  readonly #options: ConnectionOptions;
  readonly #clock: Clock;
  #material: TlsMaterial | undefined;
  #agent: Agent;

  /** @throws SignetError `invalid_config` for an address without TLS that is not a loopback one. */
  constructor(options: ConnectionOptions, clock: Clock) {
    checkAddress(options.address);
    this.#options = options;
    this.#clock = clock;
    this.#agent = this.#newAgent();
  }

  /** `https://vault:8200/v1/pki/issuers`: for messages. */
  describe(target: string): string {
    return this.#url(target).href.replace(/\?.*$/, '');
  }

  /**
   * Sends a request, once more when a kept connection turns out to be closed.
   *
   * @throws UpstreamError `unreachable`, `tls`, `timed_out` or `malformed`, or the reason of the signal.
   */
  async send(request: WireRequest): Promise<WireAnswer> {
    request.signal?.throwIfAborted();
    const material = this.#options.address.protocol === 'https:' ? await this.#options.tls.read(request.signal) : NOTHING;
    this.#follow(material);
    try {
      return await this.#exchange(request, material);
    } catch (error) {
      if (!(error instanceof StaleConnection)) throw this.#noteTls(error);
    }
    try {
      return await this.#exchange(request, material);
    } catch (error) {
      throw error instanceof StaleConnection ? error.failure : this.#noteTls(error);
    }
  }

  /** The next request looks anew at what TLS is made with, however fresh that is. */
  distrust(): void {
    this.#options.tls.distrust();
  }

  /** Ends all connections. */
  close(): void {
    this.#agent.destroy();
  }

  /** Other roots or another certificate: what was connected with the old ones takes no further request. */
  #follow(material: TlsMaterial): void {
    if (this.#material !== undefined && this.#material !== material) {
      this.#agent.maxFreeSockets = 0;
      for (const sockets of Object.values(this.#agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
      this.#agent = this.#newAgent();
    }
    this.#material = material;
  }

  #noteTls(error: unknown): unknown {
    if (error instanceof UpstreamError && error.fault === 'tls') this.#options.tls.distrust();
    return error;
  }

  #exchange(request: WireRequest, material: TlsMaterial): Promise<WireAnswer> {
    const url = this.#url(request.target);
    const { serverName, limits, tls } = this.#options;
    const length = request.body === undefined ? {} : { 'content-length': String(Buffer.byteLength(request.body)) };
    const options: RequestOptions = { method: request.method, agent: this.#agent, headers: { ...request.headers, ...length } };
    const { isUnverified = false, ...pems } = material;
    const secure = { ...pems, minVersion: 'TLSv1.2', rejectUnauthorized: !isUnverified, ...(serverName ? { servername: serverName } : {}) } as const;
    const open = (): ClientRequest => (url.protocol === 'https:' ? httpsRequest(url, { ...options, ...secure }) : httpRequest(url, options));
    return new Exchange({ request, open, clock: this.#clock, limits, server: url.origin, roots: tls.roots }).run();
  }

  #url(target: string): URL {
    const { origin, pathname } = this.#options.address;
    return new URL(`${origin}${pathname.replace(/\/$/, '')}${target}`);
  }

  /** Sessions are not resumed: a resumed one is not verified against the roots of now. */
  #newAgent(): Agent {
    const options = { keepAlive: true, maxFreeSockets: 4, maxSockets: 64, scheduling: 'lifo' } as const;
    return this.#options.address.protocol === 'https:' ? new HttpsAgent({ ...options, maxCachedSessions: 0 }) : new HttpAgent(options);
  }
}

/** A token must not cross a network in the clear. */
function checkAddress({ protocol, hostname, href }: URL): void {
  const isLoopback = hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d+){3}$/.test(hostname);
  if (protocol === 'https:' || (protocol === 'http:' && isLoopback)) return;
  throw new SignetError('invalid_config', `the address ${href}, has no TLS; an https: address is needed, or http: to this machine itself`);
}
