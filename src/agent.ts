import { AdminServer } from './admin/server.ts';
import { checkAuthority, stateDirectoryOf } from './assembly/authority.ts';
import { metricSources, podFigures, type Measured } from './assembly/figures.ts';
import { exposedGc, GiveBack } from './assembly/give-back.ts';
import type { Environment, KubernetesRooms } from './assembly/kubernetes.ts';
import { adminSource } from './assembly/operator.ts';
import { openRooms, type Rooms } from './assembly/rooms.ts';
import { ownVersion } from './assembly/version.ts';
import { DataDir } from './authority/data-dir.ts';
import { sleep, type Clock } from './clock.ts';
import type { Config } from './config/config.ts';
import { messageOf } from './errors.ts';
import { EventBus } from './events.ts';
import type { Kernel } from './kernel.ts';
import type { Connection, RequestHandler } from './listener/connection.ts';
import { Listener } from './listener/listener.ts';
import { watchSuccessor } from './listener/successor.ts';
import { logMistake, type Log } from './log.ts';
import type { Random } from './random.ts';
import type { Entry } from './spiffe/entry.ts';
import { openAudit, type AuditLog } from './telemetry/audit.ts';
import { Counters } from './telemetry/counters.ts';
import { logEvents } from './telemetry/event-log.ts';
import { Readiness } from './telemetry/readiness.ts';
import { openTelemetry, type Telemetry } from './telemetry/telemetry.ts';
import { WorkloadApiServer } from './workload-api/server.ts';
import { WorkloadApi } from './workload-api/service.ts';

export interface AgentTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly kernel: Kernel;
  readonly log: Log;
  /** POD_UID, POD_NAMESPACE and what a pod finds its API server by. Default: none of them. */
  readonly env?: Environment;
}

/** Another agent that is followed lets go of the data directory within this time, or the new one gives up. */
const HANDOVER_MS = 30_000;

/** Clients are told that the agent stops; those that have not read it after this are cut off. */
const FAREWELL_MS = 1_000;

/** One node's agent. Builds the rooms from the bottom up and leaves them from the top down. */
export class Agent {
  readonly events = new EventBus();
  readonly counters = new Counters(this.events);
  readonly readiness: Readiness;
  readonly #config: Config;
  readonly #tools: AgentTools;
  readonly #api: WorkloadApi;
  readonly #listener: Listener;
  readonly #server: WorkloadApiServer;
  readonly #startedAt: number;
  readonly #stopping = new AbortController();
  readonly #stopped = Promise.withResolvers<'stopped' | 'abandoned'>();
  #stateDir: DataDir | undefined;
  #kubernetes: KubernetesRooms | undefined;
  #rooms: Rooms | undefined;
  #admin: AdminServer | undefined;
  #telemetry: Telemetry | undefined;
  #audit: AuditLog | undefined;
  #giveBack: GiveBack | undefined;
  #opening: Promise<void> = Promise.resolve();
  #leaving: Promise<void> | undefined;
  #stopWatching: (() => void) | undefined;

  constructor(config: Config, tools: AgentTools) {
    this.#config = config;
    this.#tools = tools;
    const { clock, kernel, random, log } = tools;
    const { events } = this;
    this.#startedAt = clock.now();
    logEvents(events, log, clock);
    this.readiness = new Readiness({ events, clock, pods: () => podFigures(this.#kubernetes) });
    this.#api = new WorkloadApi(config.limits, { kernel, clock, events });
    const ownerOf = (pid: number): string | undefined => this.#kubernetes?.attestor.ownerOf(pid);
    this.#listener = new Listener(config, { kernel, clock, random, events, ownerOf }, (connection) => this.#serve(connection));
    this.#server = new WorkloadApiServer(this.#api, this.#listener.limits, config.limits, { clock, events, onMistake: (error) => logMistake(log, error) });
  }

  /** Where `/metrics`, `/live` and `/ready` are served; undefined where they are not. */
  get telemetryAddress(): Telemetry['address'] | undefined {
    return this.#telemetry?.address;
  }

  /** Connections, calls and owners that are held now. */
  get taken(): { readonly connections: number; readonly calls: number; readonly owners: number } {
    return this.#listener.limits.taken;
  }

  /**
   * Resolves when the agent has stopped: `stopped` by `stop` or because another one took its place; `abandoned` when that one, for
   * which this one waits, is gone.
   */
  get stopped(): Promise<'stopped' | 'abandoned'> {
    return this.#stopped.promise;
  }

  /**
   * Opens the socket first, so that callers wait instead of failing, then the rest. What can be judged beforehand is: an agent
   * that could not start must not take the socket from one that runs.
   *
   * @throws SignetError `state_refused`, `state_unwritable`, `in_use`, `unavailable`
   */
  async start(): Promise<void> {
    const { socketPath, trustDomain, entries } = this.#config;
    this.#stopping.signal.throwIfAborted();
    // Every node pays for what its agent has in memory.
    const kubernetes = this.#config.attestation.kubernetes.enabled ? await import('./assembly/kubernetes.ts') : undefined;
    const plan = kubernetes?.planKubernetes(this.#config, this.#tools.env ?? {});
    if (plan !== undefined || this.#config.authority.type !== 'embedded') DataDir.open(this.#config.privateDir, this.#tools.kernel).close();
    this.#stateDir = DataDir.open(stateDirectoryOf(this.#config), this.#tools.kernel);
    AdminServer.check(this.#config.admin.socketPath);
    await checkAuthority(this.#config, this.#roomTools);
    this.#stopping.signal.throwIfAborted();
    if (kubernetes !== undefined && plan !== undefined) this.#kubernetes = new kubernetes.KubernetesRooms(this.#config, plan, this.#roomTools);
    this.#opening = this.#open(this.#stateDir);
    try {
      await this.#opening;
      this.#stopping.signal.throwIfAborted();
    } catch (error) {
      await this.stop();
      throw error;
    }
    this.#server.health.serving = true;
    this.readiness.phase = 'serving';
    const { clock, kernel } = this.#tools;
    const done = (): number => this.#listener.accepted + this.#server.admission.begun;
    this.#giveBack = new GiveBack({ clock, done, trimMemory: () => kernel.trimMemory(), collectGarbage: exposedGc() });
    this.#tools.log.info(
      { event: 'agent.ready', path: socketPath, trust_domain: trustDomain, count: entries.length, limits: { connections: this.#listener.maxConnections } },
      'the agent serves the Workload API',
    );
  }

  /** Takes `entries` for all there are from now on. */
  replaceEntries(entries: readonly Entry[]): void {
    this.#rooms?.registry.replace(entries);
  }

  /** Goes on in a new audit file, for whoever has moved the old one away. */
  reopenAudit(): void {
    this.#audit?.reopen();
  }

  /** Takes no more callers, tells the others that it stops, and lets go of everything. Twice is once. */
  async stop(): Promise<void> {
    this.#stopWatching?.();
    this.readiness.phase = 'stopping';
    await this.#leave();
    await this.#audit?.close();
    this.#telemetry?.close();
    this.readiness.close();
    this.#stopped.resolve('stopped');
  }

  get #roomTools() {
    const { clock, random, kernel, log } = this.#tools;
    return { clock, random, kernel, log, events: this.events };
  }

  async #open(stateDir: DataDir): Promise<void> {
    const { signal } = this.#stopping;
    await this.#openTelemetry();
    this.#kubernetes?.start();
    await this.#listener.open(() => void this.#superseded());
    await stateDir.lock(this.#tools.clock, HANDOVER_MS, signal);
    signal.throwIfAborted();
    const rooms = await openRooms(this.#config, this.#kubernetes, this.#roomTools);
    this.#rooms = rooms;
    this.#kubernetes?.publish(rooms.trust);
    await this.#openAdmin(rooms);
    this.#api.start(rooms);
  }

  /** First of all, so that whatever happens is counted. */
  async #openTelemetry(): Promise<void> {
    const { telemetry, audit } = this.#config;
    const { clock, kernel, log } = this.#tools;
    const { events, readiness } = this;
    if (audit.path !== undefined) {
      this.#audit = openAudit(audit.path, { events, clock, log, describePod: (uid) => this.#kubernetes?.cluster.pods.find(uid) });
    }
    if (telemetry.address === undefined) return;
    this.#telemetry = await openTelemetry({
      address: telemetry.address,
      events,
      clock,
      log,
      readiness,
      sources: metricSources(() => this.#measured),
      live: () => true,
      version: ownVersion(),
      descriptorLimit: kernel.descriptorLimit(),
    });
  }

  /** Workloads do not depend on it, so that what comes up now is told, and no more. */
  async #openAdmin(rooms: Rooms): Promise<void> {
    const { log } = this.#tools;
    const view = { ...this.#measured, rooms, events: this.events, readiness: this.readiness, version: ownVersion(), startedAt: this.#startedAt };
    try {
      const admin = new AdminServer({ ...this.#tools, socketPath: this.#config.admin.socketPath, source: adminSource(view) });
      await admin.open();
      this.#admin = admin;
    } catch (error) {
      log.error({ event: 'admin.failed', path: this.#config.admin.socketPath, err: messageOf(error) }, "the operator's socket cannot be opened");
    }
  }

  get #measured(): Measured {
    return { config: this.#config, listener: this.#listener, server: this.#server, rooms: this.#rooms, kubernetes: this.#kubernetes, audit: this.#audit };
  }

  /** A connection's caller is held in mind as long as the connection is open. */
  #serve(connection: Connection): RequestHandler {
    connection.onClosed(() => this.#rooms?.entitlements.forget(connection.caller));
    return this.#server.serve(connection);
  }

  async #superseded(): Promise<void> {
    const { socketPath, onSuperseded } = this.#config;
    this.#tools.log.info({ event: 'agent.superseded', path: socketPath }, 'another agent has taken the socket over');
    if (onSuperseded === 'exit') return this.stop();
    this.readiness.phase = 'superseded';
    await this.#leave();
    this.#stopWatching = watchSuccessor(socketPath, this.#tools.clock, () => {
      this.#tools.log.error({ event: 'agent.abandoned', path: socketPath }, 'the agent that took the socket over is gone; this one ends to be started again');
      this.#stopped.resolve('abandoned');
    });
  }

  #leave(): Promise<void> {
    this.#leaving ??= this.#letGo();
    return this.#leaving;
  }

  async #letGo(): Promise<void> {
    this.#stopping.abort(new Error('the agent stops'));
    this.#giveBack?.close();
    // What is being opened cannot be left before it is there. Why it failed is told by `start`.
    await this.#opening.catch(() => undefined);
    await this.#listener.stopAccepting();
    this.#server.endCalls();
    await this.#admin?.close();
    await this.#rooms?.close();
    await this.#kubernetes?.close();
    // The successor may read the keys from here on; this agent signs nothing any more.
    this.#stateDir?.close();
    await this.#farewell();
    this.#listener.close();
    this.#tools.log.info({ event: 'agent.stopped' }, 'the agent has stopped');
  }

  /**
   * Waits, bounded, until the last call has ended: of those too who have just connected and have not asked yet. Between its first bytes
   * and its call a connection is neither opening nor a call, so it must be quiet twice.
   */
  async #farewell(): Promise<void> {
    const end = this.#tools.clock.monotonic() + FAREWELL_MS;
    for (let quiet = 0; quiet < 2 && this.taken.connections > 0 && this.#tools.clock.monotonic() < end; ) {
      const isBusy = this.#server.admission.open > 0 || this.#listener.opening > 0;
      quiet = isBusy ? 0 : quiet + 1;
      await sleep(this.#tools.clock, 20);
    }
  }
}
