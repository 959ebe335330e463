import { createServer, type Server, type Socket } from 'node:net';
import { identifyCaller, refusalReasonOf, releaseCaller, type Caller } from '../attestation/caller.ts';
import { LivenessWatch } from '../attestation/liveness.ts';
import type { Alarm, Clock } from '../clock.ts';
import { messageOf } from '../errors.ts';
import type { EventBus, RefusalReason } from '../events.ts';
import type { ConnectionFault } from '../http2/fault.ts';
import { Session } from '../http2/session.ts';
import { descriptorOf, type Kernel } from '../kernel.ts';
import type { Random } from '../random.ts';
import { takeConnections, type Incoming } from './acceptor.ts';
import { Connection, type RequestHandler } from './connection.ts';
import { OwnerLimits, type ShareLimits } from './owner-limits.ts';
import { SocketFile } from './socket-file.ts';
import { Turns } from './turns.ts';
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

/** How often the socket's path is looked at. */
const PATH_INTERVAL_MS = 250;

/** The socket: accepts, learns from the kernel who calls, keeps the limits, and speaks HTTP/2. */
export class Listener {
  readonly limits: OwnerLimits;
  readonly #options: ListenerOptions;
  readonly #tools: ListenerTools;
  readonly #file: SocketFile;
  readonly #liveness: LivenessWatch;
  readonly #serve: (connection: Connection) => RequestHandler;
  readonly #sockets = new Set<Socket>();
  readonly #turns: Turns;
  readonly #maxConnections: number;
  #server: Server | undefined;
  #pathAlarm: Alarm | undefined;
  #connections = 0;
  #opening = 0;

  /** `serve` says who answers the requests of a connection. */
  constructor(options: ListenerOptions, tools: ListenerTools, serve: (connection: Connection) => RequestHandler) {
    this.#options = options;
    this.#tools = tools;
    this.#serve = serve;
    this.#maxConnections = Math.min(options.limits.connections, connectionsFor(tools.kernel.descriptorLimit()));
    this.limits = new OwnerLimits({ ...options.limits, connections: this.#maxConnections }, tools.clock);
    this.#turns = new Turns(tools.clock);
    this.#liveness = new LivenessWatch(tools.kernel, tools.clock);
    this.#file = new SocketFile(options.socketPath, tools.kernel, tools.clock);
  }

  /** Connections that fit, by the limits and by the descriptors that this process may open. */
  get maxConnections(): number {
    return this.#maxConnections;
  }

  /** Connections that were accepted so far, refused ones included. */
  get accepted(): number {
    return this.#connections;
  }

  /** Connections whose first request is awaited now. */
  get opening(): number {
    return this.#opening;
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
    const server = createServer();
    // An accept that fails (no descriptor left in the whole system) concerns one caller, not the agent.
    const notAccepted = (error: Error): void => this.#refuse('descriptors', undefined, messageOf(error));
    // Nobody can connect before it listens under its true name.
    server.once('listening', () => takeConnections(server, (fd) => this.#tools.kernel.accept(fd), (incoming) => this.#accept(incoming), notAccepted));
    await this.#file.bind(server, this.#tools.random);
    server.on('error', notAccepted);
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

  #accept(incoming: Incoming): void {
    const { socket } = incoming;
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
    // Accepting cannot be put off, but it counts.
    this.#turns.begin(caller.owner);
    this.#begin(incoming, caller);
    this.#hold(socket, caller);
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

  /** HTTP/2 begins. Whoever makes no request in time is not waited for. */
  #begin(incoming: Incoming, caller: Caller): void {
    const { socket } = incoming;
    const { clock, kernel } = this.#tools;
    const { limits } = this.#options;
    const connection = new Connection(caller, socket, kernel, clock, clock.monotonic());
    const answer = this.#serve(connection);
    const opening = this.#open(clock, () => {
      // Some clients connect at once and make their call after a back-off: they come again, and nothing is wrong with them.
      if (!session.isIdle) this.#refuse('prelude_timeout', caller, `no complete HTTP/2 request within ${limits.preludeTimeoutMs} ms`);
      socket.destroy();
    });
    const session = new Session(socket, { concurrentStreams: limits.callsPerConnection, headerBytes: limits.headerBytes }, {
      request: (stream, head) => {
        opening.end();
        return answer(stream, head);
      },
      fault: (fault) => this.#refuse(faultReason(fault, session.hasRequests), caller, fault.message),
      hold: (bytes, isAnswer) => this.limits.hold(caller.owner, bytes, isAnswer),
    }, clock);
    const goOn = (): void => session.goOn();
    incoming.onBytes = (bytes) => {
      if (this.#turns.begin(caller.owner)) return session.read(bytes);
      if (session.defer(bytes)) this.#turns.later(caller.owner, goOn);
    };
    socket.once('close', opening.end);
  }

  /** A connection whose first request is awaited. `end` may be called more than once. */
  #open(clock: Clock, onLate: () => void): { readonly end: () => void } {
    this.#opening += 1;
    let isOpening = true;
    const alarm = clock.after(this.#options.limits.preludeTimeoutMs, onLate);
    const end = (): void => {
      if (!isOpening) return;
      isOpening = false;
      this.#opening -= 1;
      alarm.cancel();
    };
    return { end };
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

/** Before the first request an excess is one of the prelude. */
function faultReason({ kind }: ConnectionFault, hasRequests: boolean): RefusalReason {
  if (kind === 'malformed') return 'malformed_http2';
  return hasRequests ? 'bad_request' : 'prelude_bytes';
}

function connectionsFor(descriptors: number): number {
  return Math.max(Math.floor((descriptors - RESERVED_DESCRIPTORS) / DESCRIPTORS_PER_CONNECTION), 1);
}
