import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Clock } from '../../src/clock.ts';
import type { ConnectionFault } from '../../src/http2/fault.ts';
import { encodeFields } from '../../src/http2/field-block.ts';
import type { RequestHead } from '../../src/http2/request-head.ts';
import { Session, type SessionLimits } from '../../src/http2/session.ts';
import type { RequestReader, RequestStream } from '../../src/http2/stream.ts';
import { openKernel } from '../../src/kernel.ts';
import { takeConnections, type Incoming } from '../../src/listener/acceptor.ts';
import { FakeClock } from './fake-clock.ts';

export const HEAD: Buffer = encodeFields([[':status', '200']]);
export const TRAILERS: Buffer = encodeFields([['grpc-status', '0']]);

/** A request, and what was told of it. */
export class Served implements RequestReader {
  readonly stream: RequestStream;
  readonly head: RequestHead;
  readonly body: Buffer[] = [];
  hasEnded = false;
  closings = 0;
  readonly #onEnd: (served: Served) => void;

  constructor(stream: RequestStream, head: RequestHead, onEnd: (served: Served) => void) {
    this.stream = stream;
    this.head = head;
    this.#onEnd = onEnd;
  }

  data(chunk: Buffer): void {
    this.body.push(Buffer.from(chunk));
  }

  end(): void {
    this.hasEnded = true;
    this.#onEnd(this);
  }

  closed(): void {
    this.closings += 1;
  }
}

export interface SessionServerOptions {
  readonly limits?: Partial<SessionLimits>;
  /** Bytes that all connections may hold. Default 8 MiB. */
  readonly room?: number;
  readonly clock?: Clock;
  /** False: what comes is not read; the test gives it to `session.read`. */
  readonly reads?: boolean;
  /** Who reads a request instead of `Served`. */
  readonly reader?: (stream: RequestStream, head: RequestHead) => RequestReader;
  /** Asked with a new request; it answers with the head and the body when there is nothing here. */
  readonly onRequest?: (served: Served) => void;
  readonly onEnd?: (served: Served) => void;
}

/** One connection of the server. */
export interface Open {
  readonly session: Session;
  readonly socket: net.Socket;
  readonly served: Served[];
  readonly faults: ConnectionFault[];
  held(): number;
  readonly closed: Promise<void>;
}

const kernel = openKernel();

/** Real sessions over a real Unix socket, without anything above them. */
export class SessionServer {
  readonly path: string;
  readonly opened: Open[] = [];
  readonly clock: Clock;
  /** Bytes that all connections hold now, and that they held at most. */
  held = 0;
  most = 0;
  readonly #directory = mkdtempSync(join(tmpdir(), 'signet-session-'));
  readonly #server = net.createServer();
  readonly #options: SessionServerOptions;
  #waiting: ((open: Open) => void)[] = [];

  private constructor(options: SessionServerOptions) {
    this.path = join(this.#directory, 's');
    this.#options = options;
    this.clock = options.clock ?? new FakeClock();
  }

  static async open(options: SessionServerOptions = {}): Promise<SessionServer> {
    const server = new SessionServer(options);
    server.#server.listen(server.path);
    await once(server.#server, 'listening');
    takeConnections(server.#server, (fd) => kernel.accept(fd), (incoming) => server.#accept(incoming), (error) => {
      throw error;
    });
    return server;
  }

  /** The next connection that is accepted. */
  next(): Promise<Open> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  close(): void {
    this.#server.close();
    for (const { socket } of this.opened) socket.destroy();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #accept(incoming: Incoming): void {
    const { socket } = incoming;
    socket.on('error', () => undefined);
    const served: Served[] = [];
    const faults: ConnectionFault[] = [];
    let held = 0;
    const session = new Session(socket, { concurrentStreams: 100, headerBytes: 16_384, ...this.#options.limits }, {
      request: (stream, head) => {
        if (this.#options.reader !== undefined) return this.#options.reader(stream, head);
        const request = new Served(stream, head, this.#options.onEnd ?? answer);
        served.push(request);
        this.#options.onRequest?.(request);
        return request;
      },
      fault: (fault) => void faults.push(fault),
      hold: (bytes, isAnswer) => {
        const room = this.#options.room ?? 8 << 20;
        if (bytes > 0 && this.held + bytes > (isAnswer === true ? room / 2 : room)) return false;
        held += bytes;
        this.held += bytes;
        this.most = Math.max(this.most, this.held);
        return true;
      },
    }, this.clock);
    if (this.#options.reads !== false) incoming.onBytes = (bytes) => session.read(bytes);
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    const open: Open = { session, socket, served, faults, held: () => held, closed };
    this.opened.push(open);
    this.#waiting.shift()?.(open);
  }
}

/** What was asked, said again. */
export function answer({ stream, body }: Served): void {
  stream.sendFields(HEAD, false);
  const whole = Buffer.concat(body);
  if (whole.length > 0) stream.sendData(whole);
  stream.sendFields(TRAILERS, true);
}
