import { createServer, type Server, type Socket } from 'node:net';
import { identifyCaller, refusalReasonOf, releaseCaller, type Caller } from '../attestation/caller.ts';
import { LivenessWatch } from '../attestation/liveness.ts';
import type { Alarm, Clock } from '../clock.ts';
import { isSignetError, messageOf } from '../errors.ts';
import type { EventBus, RefusalReason } from '../events.ts';
import { descriptorOf, type Kernel } from '../kernel.ts';
import type { Random } from '../random.ts';
import { Connection } from './connection.ts';
import { OwnerLimits, type ShareLimits } from './owner-limits.ts';
import { openHttp2 } from './prelude.ts';
import { SocketFile } from './socket-file.ts';
import { whoOf } from './who.ts';

export interface ListenerLimits extends ShareLimits {
  readonly preludeTimeoutMs: number;
  readonly callsPerConnection: number;
  readonly headerBytes: number;
}

export interface ListenerOptions {
  readonly socketPath: string;
  readonly limits: ListenerLimits;
}

export interface ListenerTools {
  /** Whose share of the limits a process uses, where that is not its user's: `pod:<uid>`. Must not throw. */
  readonly ownerOf?: (pid: number) => string | undefined;
  readonly kernel: Kernel;
  readonly clock: Clock;
  readonly random: Random;
  readonly events: EventBus;
}

/** Descriptors that connections never get: files, the log, the authority's state, what Node itself needs. */
const RESERVED_DESCRIPTORS = 64;
/** Its socket and its pidfd. */
const DESCRIPTORS_PER_CONNECTION = 2;

/** Bytes that are held before HTTP/2 begins: a whole first window of data and its headers. */
const PRELUDE_BYTES = 128 * 1024;
/** The same, beyond the headers, for an owner who has many connections that say nothing to the purpose. */
const SHORT_PRELUDE_BYTES = 8 * 1024;

/** How often the socket's path is looked at. */
const PATH_INTERVAL_MS = 250;

/** The socket: accepts, learns from the kernel who calls, keeps the limits, begins HTTP/2, and hands over. */
export class Listener {
  readonly limits: OwnerLimits;
  readonly #options: ListenerOptions;
  readonly #tools: ListenerTools;
  readonly #file: SocketFile;
  readonly #liveness: LivenessWatch;
  readonly #serve: (connection: Connection) => void;
  readonly #sockets = new Set<Socket>();
  readonly #maxConnections: number;
  #server: Server | undefined;
  #pathAlarm: Alarm | undefined;
  #connections = 0;

  /** `serve` is given each connection once its first request has come. */
  constructor(options: ListenerOptions, tools: ListenerTools, serve: (connection: Connection) => void) {
    this.#options = options;
    this.#tools = tools;
    this.#serve = serve;
    this.#maxConnections = Math.min(options.limits.connections, connectionsFor(tools.kernel.descriptorLimit()));
    this.limits = new OwnerLimits({ ...options.limits, connections: this.#maxConnections }, tools.clock);
    this.#liveness = new LivenessWatch(tools.kernel, tools.clock);
    this.#file = new SocketFile(options.socketPath, tools.kernel, tools.clock);
  }

  /** Connections that fit, by the limits and by the descriptors that this process may open. */
  get maxConnections(): number {
    return this.#maxConnections;
  }

  /**
   * Opens the socket, taking it over from whoever has it. `onSuperseded` is called once when another agent does the same.
   *
   * @throws SignetError `in_use`, `unavailable`
   */
  async open(onSuperseded: () => void): Promise<void> {
    this.#server = await this.#bind();
    this.#watchPath(onSuperseded);
  }

  /** Takes no more connections. Those that the kernel has accepted already are taken still: their callers have been told so. */
  async stopAccepting(): Promise<void> {
    this.#pathAlarm?.cancel();
    await this.#file.remove();
    // One turn of the event loop accepts all that wait in the backlog.
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    this.#server?.close();
  }

  /** Closes every connection at once. */
  close(): void {
    this.#server?.close();
    for (const socket of [...this.#sockets]) socket.destroy();
    this.#liveness.close();
  }

  async #bind(): Promise<Server> {
    const server = createServer({ pauseOnConnect: true }, (socket) => this.#accept(socket));
    await this.#file.bind(server, this.#tools.random);
    // An accept that fails (no descriptor left in the whole system) concerns one caller, not the agent.
    server.on('error', (error) => this.#refuse('descriptors', undefined, messageOf(error)));
    return server;
  }

  #watchPath(onSuperseded: () => void): void {
    this.#pathAlarm = this.#tools.clock.after(PATH_INTERVAL_MS, () => {
      const holder = this.#file.holder();
      if (holder === 'other') return onSuperseded();
      if (holder === 'none') return void this.#bindAgain(onSuperseded);
      this.#watchPath(onSuperseded);
    });
  }

  /** Somebody has removed the socket. Open connections go on; for new ones it is made again. */
  async #bindAgain(onSuperseded: () => void): Promise<void> {
    const old = this.#server;
    try {
      this.#server = await this.#bind();
      old?.close();
    } catch {
      // The directory is gone or full: the next look tries again.
    }
    this.#watchPath(onSuperseded);
  }

  #accept(socket: Socket): void {
    // A peer that goes away in the middle is everyday life.
    socket.on('error', () => undefined);
    this.#connections += 1;
    if (this.limits.isFull) return this.#turnAway(socket, 'too_many_connections');
    let caller: Caller;
    try {
      caller = identifyCaller(this.#tools.kernel, descriptorOf(socket), this.#connections, undefined, this.#tools.ownerOf);
    } catch (error) {
      return this.#turnAway(socket, refusalReasonOf(error), undefined, messageOf(error));
    }
    const refusal = this.limits.enter(caller.owner);
    if (refusal !== undefined) {
      releaseCaller(this.#tools.kernel, caller);
      return this.#turnAway(socket, refusal, caller);
    }
    this.#hold(socket, caller);
    void this.#begin(socket, caller);
  }

  /** From here on everything that the connection holds is given back when its socket closes. */
  #hold(socket: Socket, caller: Caller): void {
    this.#sockets.add(socket);
    this.#tools.events.publish('connected', caller);
    const unwatch = this.#liveness.watch(caller, () => {
      this.#refuse('caller_gone', caller, 'the process that connected has ended; its connection was held by another one');
      socket.destroy();
    });
    socket.once('close', () => {
      unwatch();
      this.#sockets.delete(socket);
      this.limits.leave(caller.owner);
      releaseCaller(this.#tools.kernel, caller);
      this.#tools.events.publish('disconnected', caller);
    });
  }

  async #begin(socket: Socket, caller: Caller): Promise<void> {
    const { clock, kernel } = this.#tools;
    const { limits } = this.#options;
    const acceptedAt = clock.monotonic();
    const hasRoom = this.limits.beginOpening(caller.owner);
    try {
      const opened = await openHttp2(socket, {
        clock,
        timeoutMs: limits.preludeTimeoutMs,
        maxBytes: hasRoom ? PRELUDE_BYTES : limits.headerBytes + SHORT_PRELUDE_BYTES,
        maxConcurrentStreams: limits.callsPerConnection,
        maxHeaderBytes: limits.headerBytes,
      });
      this.#serve(new Connection(caller, socket, opened, kernel, clock, acceptedAt));
    } catch (error) {
      socket.destroy();
      // Most often a caller that has changed its mind, or died.
      if (!isSignetError(error, 'caller_gone')) this.#refuse(preludeRefusal(error), caller, messageOf(error));
    } finally {
      this.limits.opened(caller.owner);
    }
  }

  #turnAway(socket: Socket, reason: RefusalReason, caller?: Caller, detail?: string): void {
    socket.destroy();
    this.#refuse(reason, caller, detail);
  }

  #refuse(reason: RefusalReason, caller?: Caller, detail?: string): void {
    this.#tools.events.publish('refused', {
      reason,
      ...(caller === undefined ? {} : whoOf(caller)),
      ...(detail === undefined ? {} : { detail }),
    });
  }
}

function preludeRefusal(error: unknown): RefusalReason {
  if (isSignetError(error, 'timed_out')) return 'prelude_timeout';
  if (isSignetError(error, 'limit_exceeded')) return 'prelude_bytes';
  return 'malformed_http2';
}

function connectionsFor(descriptors: number): number {
  return Math.max(Math.floor((descriptors - RESERVED_DESCRIPTORS) / DESCRIPTORS_PER_CONNECTION), 1);
}
