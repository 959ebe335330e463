import { writeFileSync } from 'node:fs';
import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer, request as httpsRequest } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { makePki, type TestPki } from './kubernetes-pki.ts';
import { directory } from './vault-upstream.ts';

export interface Request {
  readonly method: string;
  /** Path and query as they were asked for: `/v1/sys/health`. */
  readonly target: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export interface Answer {
  readonly status: number;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** What answers a request that no fault takes: a server behind the proxy, or a made-up one. */
export type Origin = (request: Request) => Promise<Answer>;

export interface Passing {
  readonly request: Request;
  readonly response: ServerResponse;
  /** Asks the origin. */
  readonly forward: () => Promise<Answer>;
}

export type Fault = (passing: Passing) => Promise<void> | void;

/**
 * Ends TLS, and hands each request on to an origin unless a fault is set for it. It ends with the test.
 */
export class FaultProxy {
  readonly address: URL;
  /** PEM file with the CA of the certificate that it shows at first. */
  readonly caFile: string;
  /** Requests and connections that have met a fault. */
  faulty = 0;
  readonly #server: ReturnType<typeof createServer>;
  readonly #origin: Origin;
  readonly #pki: TestPki;
  readonly #sockets = new Set<Socket>();
  #fault: Fault | undefined;
  #concerns = /./;
  #isDeaf = false;
  #shown: TestPki;

  private constructor(t: ExecutionContext, origin: Origin, pki: TestPki, server: ReturnType<typeof createServer>) {
    this.#origin = origin;
    this.#pki = pki;
    this.#shown = pki;
    this.#server = server;
    this.address = new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}`);
    this.caFile = join(directory(t), 'proxy-ca.crt');
    writeFileSync(this.caFile, pki.ca);
    server.on('connection', (socket: Socket) => this.#connected(socket));
    server.on('request', (request: IncomingMessage, response: ServerResponse) => void this.#asked(request, response).catch(() => response.destroy()));
    t.teardown(() => this.#close());
  }

  static async start(t: ExecutionContext, origin: Origin): Promise<FaultProxy> {
    const pki = await makePki();
    const server = createServer({ cert: pki.cert, key: pki.key });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new FaultProxy(t, origin, pki, server);
  }

  /** From now on requests whose target matches `concerns` meet `fault`. */
  break(fault: Fault, concerns = /./): void {
    this.#fault = fault;
    this.#concerns = concerns;
  }

  /** Ends connections instead of TLS handshakes; those that are open end too. */
  deafen(): void {
    this.#isDeaf = true;
    this.cut();
  }

  /** Shows a certificate of another CA; connections that are open end. */
  async disguise(): Promise<void> {
    this.#show(await makePki());
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** All is well again. */
  mend(): void {
    this.#fault = undefined;
    this.#isDeaf = false;
    if (this.#shown !== this.#pki) this.#show(this.#pki);
  }

  #show(pki: TestPki): void {
    this.#shown = pki;
    this.#server.setSecureContext({ cert: pki.cert, key: pki.key });
    this.cut();
  }

  #connected(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => undefined);
    if (this.#isDeaf || this.#shown !== this.#pki) this.faulty += 1;
    if (this.#isDeaf) socket.destroy();
  }

  async #asked(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => undefined);
    const { method = '', url: target = '', headers } = incoming;
    const request = { method, target, headers, body: await textOf(incoming) };
    const forward = (): Promise<Answer> => this.#origin(request);
    const fault = this.#concerns.test(target) ? this.#fault : undefined;
    if (fault === undefined) return send(response, await forward());
    this.faulty += 1;
    await fault({ request, response, forward });
  }

  #close(): void {
    this.cut();
    this.#server.close();
  }
}

/** A server behind the proxy, on this machine. */
export function originAt(address: URL): Origin {
  return async ({ method, target, headers, body }) => {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const ask = address.protocol === 'https:' ? httpsRequest : httpRequest;
    const passed = { ...headers, host: address.host, connection: 'close', 'content-length': String(Buffer.byteLength(body)) };
    const outgoing = ask(new URL(target, address), { method, headers: passed, agent: false }, resolve);
    outgoing.on('error', reject).end(body);
    const incoming = await promise;
    return { status: incoming.statusCode ?? 0, body: await textOf(incoming) };
  };
}

/** Answers later than it could. */
export function delayed(ms: number): Fault {
  return async ({ response, forward }) => {
    const answer = await forward();
    await delay(ms);
    send(response, answer);
  };
}

/** Never answers. */
export const silent: Fault = () => undefined;

/** Closes the connection in place of an answer. What was asked for has been done. */
export const cutBefore: Fault = async ({ response, forward }) => {
  await forward();
  response.destroy();
};

/** Closes the connection in the middle of the answer. */
export const cutWithin: Fault = async ({ response, forward }) => {
  const { status, body } = await forward();
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
  response.write(halfOf(body), () => response.destroy());
};

/** Half of the answer, in a message that says that this is all. */
export const truncated: Fault = async ({ response, forward }) => {
  const answer = await forward();
  send(response, { ...answer, body: halfOf(answer.body) });
};

/** Answers this, and asks nobody. */
export function answers(status: number, body: string, headers: Readonly<Record<string, string>> = {}): Fault {
  return ({ response }) => send(response, { status, body, headers });
}

/** Changes what the origin has answered. */
export function rewritten(change: (body: string) => string): Fault {
  return async ({ response, forward }) => {
    const answer = await forward();
    send(response, { ...answer, body: change(answer.body) });
  };
}

function send(response: ServerResponse, { status, body, headers = {} }: Answer): void {
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), ...headers }).end(body);
}

function halfOf(body: string): string {
  return body.slice(0, Math.floor(body.length / 2));
}

async function textOf(incoming: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}
