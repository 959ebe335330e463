import { Attestation } from './attestation/attestor.ts';
import type { Caller } from './attestation/caller.ts';
import { UnixAttestor } from './attestation/unix.ts';
import { DataDir } from './authority/data-dir.ts';
import { EmbeddedAuthority, type EmbeddedOptions } from './authority/embedded.ts';
import { NodeJwtSigner } from './authority/jwt-signer.ts';
import { newKeyPair } from './authority/keys.ts';
import { NodeX509Signer } from './authority/x509-signer.ts';
import { sleep, type Clock } from './clock.ts';
import type { Config } from './config/config.ts';
import { EventBus } from './events.ts';
import { Entitlements } from './identity/entitlements.ts';
import { JwtIdentities } from './identity/jwt-identities.ts';
import { X509Identities } from './identity/x509-identities.ts';
import type { Kernel } from './kernel.ts';
import { Listener } from './listener/listener.ts';
import type { Log } from './log.ts';
import type { Random } from './random.ts';
import { EntryRegistry } from './registration/entry-registry.ts';
import type { Entry } from './spiffe/entry.ts';
import { Counters } from './telemetry/counters.ts';
import { logEvents } from './telemetry/event-log.ts';
import { TrustStore } from './trust/trust-store.ts';
import { WorkloadApiServer } from './workload-api/server.ts';
import { WorkloadApi } from './workload-api/service.ts';

export interface AgentTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly kernel: Kernel;
  readonly log: Log;
}

/** Another agent that is followed lets go of the data directory within this time, or the new one gives up. */
const HANDOVER_MS = 30_000;

/** Clients are told that the agent stops; those that have not read it after this are cut off. */
const FAREWELL_MS = 1_000;

/** One node's agent. Builds the rooms from the bottom up and leaves them from the top down. */
export class Agent {
  readonly events = new EventBus();
  readonly counters = new Counters(this.events);
  readonly #config: Config;
  readonly #tools: AgentTools;
  readonly #api: WorkloadApi;
  readonly #listener: Listener;
  readonly #server: WorkloadApiServer;
  readonly #stopping = new AbortController();
  readonly #stopped: Promise<void>;
  #resolveStopped: () => void = () => undefined;
  #dataDir: DataDir | undefined;
  #registry: EntryRegistry | undefined;
  #dispose: (() => void | Promise<void>)[] = [];
  #opening: Promise<void> = Promise.resolve();

  constructor(config: Config, tools: AgentTools) {
    this.#config = config;
    this.#tools = tools;
    const { clock, kernel, random, log } = tools;
    logEvents(this.events, log, clock);
    this.#api = new WorkloadApi(config.limits, { kernel, clock, events: this.events });
    this.#listener = new Listener(config, { kernel, clock, random, events: this.events }, (connection) => this.#server.serve(connection));
    this.#server = new WorkloadApiServer(this.#api, this.#listener.limits, config.limits, clock, this.events);
    this.#stopped = new Promise((resolve) => {
      this.#resolveStopped = resolve;
    });
  }

  /** Connections, calls and owners that are held now. */
  get taken(): { readonly connections: number; readonly calls: number; readonly owners: number } {
    return this.#listener.limits.taken;
  }

  /** Resolves when the agent has stopped, by `stop` or because another one took its place. */
  get stopped(): Promise<void> {
    return this.#stopped;
  }

  /**
   * Opens the socket first, so that callers wait instead of failing, then the rest. What can be judged beforehand is: an agent
   * that could not start must not take the socket from one that runs.
   *
   * @throws SignetError `state_refused`, `state_unwritable`, `in_use`, `unavailable`
   */
  async start(): Promise<void> {
    const { socketPath, trustDomain, dataDir, entries } = this.#config;
    this.#stopping.signal.throwIfAborted();
    this.#dataDir = DataDir.open(dataDir, this.#tools.kernel);
    EmbeddedAuthority.check(this.#authorityOptions());
    this.#opening = this.#open(this.#dataDir);
    try {
      await this.#opening;
      this.#stopping.signal.throwIfAborted();
    } catch (error) {
      await this.stop();
      throw error;
    }
    this.#server.health.serving = true;
    this.#tools.log.info(
      { event: 'agent.ready', path: socketPath, trust_domain: trustDomain, count: entries.length, limits: { connections: this.#listener.maxConnections } },
      'the agent serves the Workload API',
    );
  }

  /** Takes `entries` for all there are from now on. */
  replaceEntries(entries: readonly Entry[]): void {
    this.#registry?.replace(entries);
  }

  /** Takes no more callers, tells the others that it stops, and lets go of everything. Twice is once. */
  stop(): Promise<void> {
    if (!this.#stopping.signal.aborted) {
      this.#stopping.abort(new Error('the agent stops'));
      void this.#leave().finally(this.#resolveStopped);
    }
    return this.#stopped;
  }

  async #open(dataDir: DataDir): Promise<void> {
    const { signal } = this.#stopping;
    await this.#listener.open(() => void this.#superseded());
    await dataDir.lock(this.#tools.clock, HANDOVER_MS, signal);
    signal.throwIfAborted();
    await this.#openRooms();
  }

  #authorityOptions(): EmbeddedOptions {
    const { trustDomain, dataDir, authority } = this.#config;
    return { trustDomain, dataDir, ttlMs: authority.ttlMs };
  }

  async #openRooms(): Promise<void> {
    const { clock, random, kernel } = this.#tools;
    const { events } = this;
    const { trustDomain, x509, jwt, limits } = this.#config;
    const authority = await EmbeddedAuthority.open(this.#authorityOptions(), { clock, random, events });
    const trust = new TrustStore(authority, events);
    const registry = new EntryRegistry(this.#config.entries, this.#config, clock, events);
    const attestation = new Attestation([new UnixAttestor({ path: this.#config.attestation.unix.path, clock })], kernel);
    const entitlements = new Entitlements<Caller>(attestation, registry, clock);
    const x509Signer = new NodeX509Signer(authority, trustDomain, clock, random);
    const jwtSigner = new NodeJwtSigner(authority, trustDomain, jwt.issuer, clock);
    const x509Identities = new X509Identities({ ...x509, capacity: limits.identities }, { signer: x509Signer, newKeyPair, clock, random, events });
    const jwtIdentities = new JwtIdentities(
      { ttlMs: jwt.ttlMs, perIdentity: limits.jwtPerIdentity, identities: limits.identities },
      { signer: jwtSigner, clock, random, events },
    );
    this.#registry = registry;
    this.#dispose = [entitlements, x509Identities, jwtIdentities, registry, trust, authority].map((room) => () => room.close());
    this.#api.start({ entitlements, x509: x509Identities, jwt: jwtIdentities, trust });
  }

  async #superseded(): Promise<void> {
    this.#tools.log.info({ event: 'agent.superseded', path: this.#config.socketPath }, 'another agent has taken the socket over');
    await this.stop();
  }

  async #leave(): Promise<void> {
    // What is being opened cannot be left before it is there. Why it failed is told by `start`.
    await this.#opening.catch(() => undefined);
    await this.#listener.stopAccepting();
    this.#server.endCalls();
    for (const dispose of this.#dispose) await dispose();
    // The successor may read the keys from here on; this agent signs nothing any more.
    this.#dataDir?.close();
    await this.#farewell();
    this.#listener.close();
    this.#tools.log.info({ event: 'agent.stopped' }, 'the agent has stopped');
  }

  /** Waits, bounded, until the last call has ended. */
  async #farewell(): Promise<void> {
    const end = this.#tools.clock.monotonic() + FAREWELL_MS;
    while (this.#server.admission.open > 0 && this.#tools.clock.monotonic() < end) await sleep(this.#tools.clock, 20);
  }
}
