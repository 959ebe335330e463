import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Clock } from '../clock.ts';
import { SignetError, messageOf } from '../errors.ts';
import { createServer } from '../http.ts';
import { descriptorOf, type Kernel, type PeerCredentials } from '../kernel.ts';
import { assertReplaceable, SocketFile } from '../listener/socket-file.ts';
import type { Log } from '../log.ts';
import { systemRandom, type Random } from '../random.ts';
import { AdminConnection, type Judgement } from './connection.ts';
import { preparePrivateDirectory } from './private-directory.ts';
import { refusalOf, Refusal } from './refusal.ts';
import { Router } from './router.ts';
import type { AdminSource } from './source.ts';

export interface AdminServerOptions {
  /** In a directory that only the agent's user may enter; made if it is missing. */
  readonly socketPath: string;
  readonly kernel: Kernel;
  readonly clock: Clock;
  readonly log: Log;
  readonly source: AdminSource;
  readonly random?: Random;
  /** From connecting until the whole request is there. Default 10,000 ms. */
  readonly requestMs?: number;
  /** From then until it is answered. Default 30,000 ms. */
  readonly answerMs?: number;
}

const REQUEST_MS = 10_000;
const ANSWER_MS = 30_000;

/** Only the agent's user and root may connect. */
const SOCKET_MODE = 0o600;

/** Operators are few, and the agent needs its descriptors for workloads. */
const MOST_CONNECTIONS = 16;
const MOST_HEADER_BYTES = 8_192;

/** Rules are read from a file; one of this size holds some thousands. */
export const MOST_BODY_BYTES = 1_048_576;

/**
 * The operator's socket: JSON over HTTP/1.1 on a Unix socket of mode 0600 in a directory of mode 0700, one request for each
 * connection. Only root and the agent's own user are answered, by what the kernel says of the peer (SO_PEERCRED). It answers
 * questions, and takes orders about the signing keys; nothing else is changed by it.
 */
export class AdminServer {
  readonly #options: AdminServerOptions;
  readonly #file: SocketFile;
  readonly #router: Router;
  readonly #server: Server;
  readonly #closing = new AbortController();
  readonly #connections = new Map<Socket, AdminConnection>();
  readonly #requestMs: number;
  readonly #answerMs: number;

  constructor(options: AdminServerOptions) {
    this.#options = options;
    this.#requestMs = options.requestMs ?? REQUEST_MS;
    this.#answerMs = options.answerMs ?? ANSWER_MS;
    this.#file = new SocketFile(options.socketPath, options.kernel, options.clock, SOCKET_MODE);
    this.#router = new Router(options.source, options.clock);
    this.#server = createServer({ maxHeaderSize: MOST_HEADER_BYTES, headersTimeout: 0, requestTimeout: 0, keepAliveTimeout: 0 });
    this.#server.maxConnections = MOST_CONNECTIONS;
    this.#server.maxRequestsPerSocket = 1;
    // Before HTTP's own listener reads the first byte.
    this.#server.prependListener('connection', (socket: Socket) => this.#admit(socket));
    this.#server.on('request', (request, response) => void this.#serve(request, response));
    this.#server.on('clientError', (error, socket) => refuseMalformed(error, socket as Socket));
  }

  /**
   * Judges whether the socket can be opened, before an agent takes anything from one that runs.
   *
   * @throws SignetError `in_use`, `unavailable`: what is in the way and what to do.
   */
  static check(socketPath: string): void {
    preparePrivateDirectory(socketPath);
    assertReplaceable(socketPath);
  }

  /**
   * Opens the socket, in the place of the one an earlier agent has left or still serves.
   *
   * @throws SignetError `in_use`, `unavailable`: what is in the way and what to do.
   */
  async open(): Promise<void> {
    const { socketPath, log } = this.#options;
    preparePrivateDirectory(socketPath);
    await this.#file.bind(this.#server, this.#options.random ?? systemRandom);
    this.#server.on('error', (error) =>
      log.warn({ event: 'admin.failed', err: messageOf(error) }, 'an operator could not connect'),
    );
    log.info({ event: 'admin.opened', path: socketPath }, "the operator's socket is open");
  }

  /** Removes the socket, if it is still its own, and ends what is being answered. Twice is once. */
  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(new SignetError('stopped', 'the agent stops'));
    await this.#file.remove();
    this.#server.close();
    for (const socket of this.#connections.keys()) socket.destroy();
  }

  #admit(socket: Socket): void {
    socket.on('error', () => undefined);
    const connection = new AdminConnection(socket, this.#judge(socket), this.#options.clock);
    this.#connections.set(socket, connection);
    socket.once('close', () => this.#connections.delete(socket));
    const late = new Refusal('too_slow', `the request was not complete within ${this.#requestMs} ms`);
    connection.within(this.#requestMs, () => endRaw(socket, late));
  }

  #judge(socket: Socket): Judgement {
    const { kernel, log } = this.#options;
    let peer: PeerCredentials | undefined;
    try {
      peer = kernel.peerCredentials(descriptorOf(socket));
      if (peer.uid === 0 || peer.uid === process.geteuid?.()) return { uid: peer.uid, pid: peer.pid };
    } catch (error) {
      log.warn({ event: 'admin.refused', err: messageOf(error) }, 'the kernel does not tell who connects');
      return new Refusal('not_allowed', 'the kernel does not tell who you are');
    }
    log.warn(
      { event: 'admin.refused', uid: peer.uid, pid: peer.pid },
      "a user who may not has connected to the operator's socket",
    );
    return new Refusal('not_allowed', `user ${peer.uid} may not ask the agent`, 'ask as root, or as the user of the agent');
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { socket } = request;
    const connection = this.#connections.get(socket);
    if (connection === undefined) return void socket.destroy();
    response.setHeader('Connection', 'close');
    try {
      const { judgement } = connection;
      if (judgement instanceof Refusal) throw judgement;
      const question = this.#router.read(request.method ?? '', request.url ?? '');
      const body = await readBody(request);
      answer(response, 200, await this.#bounded((signal) => question(body, signal, judgement), connection, socket));
    } catch (error) {
      const refusal = refusalOf(error);
      if (refusal.code === 'failed') {
        this.#options.log.error({ event: 'admin.failed', err: messageOf(error) }, 'a question was not answered');
      }
      answer(response, refusal.status, refusal);
    }
    connection.within(this.#requestMs, () => socket.destroy());
  }

  /** Ends with the peer, with the agent, or when it takes too long. */
  async #bounded<T>(work: (signal: AbortSignal) => Promise<T>, connection: AdminConnection, socket: Socket): Promise<T> {
    const bound = new AbortController();
    const leave = (): void => bound.abort(new SignetError('caller_gone', 'the operator has gone'));
    connection.within(this.#answerMs, () =>
      bound.abort(new SignetError('timed_out', `there was no answer within ${this.#answerMs} ms`)),
    );
    socket.once('close', leave);
    try {
      return await work(AbortSignal.any([bound.signal, this.#closing.signal]));
    } finally {
      socket.off('close', leave);
    }
  }
}

async function readBody(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  assertSize(Number(request.headers['content-length'] ?? 0));
  // To leave the loop must not end the connection: the refusal is to be read.
  for await (const part of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    size += part.length;
    assertSize(size);
    parts.push(part);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(parts));
  } catch {
    throw new Refusal('bad_request', 'the body is not UTF-8');
  }
}

function assertSize(bytes: number): void {
  if (bytes <= MOST_BODY_BYTES) return;
  throw new Refusal('too_large', `the body has more than ${MOST_BODY_BYTES} bytes`, 'ask about fewer rules at a time');
}

function answer(response: ServerResponse, status: number, body: unknown): void {
  if (response.destroyed || response.headersSent) return;
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
    'Cache-Control': 'no-store',
  });
  response.end(text);
}

function refuseMalformed(error: Error, socket: Socket): void {
  endRaw(
    socket,
    new Refusal('bad_request', `this is not HTTP/1.1 as it is spoken here: ${messageOf(error)}`, 'see "signet explain --help"'),
  );
}

/** Where there is no response object yet, or any more. */
function endRaw(socket: Socket, refusal: Refusal): void {
  if (!socket.writable) return void socket.destroy();
  const text = `${JSON.stringify(refusal)}\n`;
  const headers = ['Connection: close', 'Content-Type: application/json', `Content-Length: ${Buffer.byteLength(text)}`];
  const head = [`HTTP/1.1 ${refusal.status} Refused`, ...headers].join('\r\n');
  socket.end(`${head}\r\n\r\n${text}`, () => socket.destroy());
}
