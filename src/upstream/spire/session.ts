import type { Alarm, Clock } from '../../clock.ts';
import { SignetError } from '../../errors.ts';
import type { EventBus } from '../../events.ts';
import type { Log } from '../../log.ts';
import type { Random } from '../../random.ts';
import type { TrustDomain } from '../../spiffe/id.ts';
import { unlessAborted } from '../wire/abort.ts';
import { AgentKeeper, type NewKey } from './agent-keeper.ts';
import type { Store } from './agent-state.ts';
import { BundleKeeper, type BundleKeeperTools } from './bundle-keeper.ts';
import { SpireConnection, type SpireIdentity } from './connection.ts';
import { Downstream, ENTRY_PATIENCE_MS } from './downstream.ts';
import { Faults, type Purpose } from './faults.ts';
import type { RequestOf, ResponseOf, SpireMethod, WireJwtKey } from './messages.ts';
import { hasFault, isAway, isLost, type SpireFault } from './spire-error.ts';
import { CALL_MS, SYNC_MS, type SpireOptions } from './spire-options.ts';

export interface SessionOptions extends SpireOptions {
  readonly trustDomain: TrustDomain;
}

export interface SessionTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly events: EventBus;
  readonly log: Log;
  readonly newKey: NewKey;
  readonly agentStore: Store;
  readonly bundleStore: Store;
  readonly jwtAuthority: BundleKeeperTools['jwtAuthority'];
  readonly judgeRoot: BundleKeeperTools['judgeRoot'];
}

/** JWT keys of this node that the bundle of the server must hold. */
export type OwnKeys = () => readonly WireJwtKey[];

/** What is said of a downstream SVID that has been good for some time: a new one may help. */
const STALE: readonly SpireFault[] = ['denied', 'unbelieved', 'evicted', 'banned', 'inactive', 'expired'];

const BUNDLE_MASK = { x509Authorities: true, jwtAuthorities: true, refreshHint: true, sequenceNumber: true };

/** How often the server is looked for while it is away, or while an entry is expected every moment. */
const SOON_MS = 1_000;

/** Part of each wait that is random, so that the nodes do not come together. */
const JITTER = 1 / 4;

/** Whoever asks for a look gets one, but not more often than this. */
const SHORTEST_MS = 1_000;

/**
 * What this node has with the SPIRE server: it joins, follows the bundle and its downstream entry, and has its JWT keys in the bundle.
 * All that is looked at again and again, so that whatever an operator changes there counts without a restart.
 */
export class SpireSession {
  readonly bundle: BundleKeeper;
  readonly syncMs: number;
  readonly #tools: SessionTools;
  readonly #connection: SpireConnection;
  readonly #agent: AgentKeeper;
  readonly #downstream: Downstream;
  readonly #faults: Faults;
  readonly #closing = new AbortController();
  readonly #publishedListeners = new Set<(kids: readonly string[]) => void>();
  #ownKeys: OwnKeys = () => [];
  #hintMs = Infinity;
  /** The first answer after an outage is asked for without our SVID: the server may have forgotten what that stands under. */
  #isPlain = true;
  #looking: Promise<void> | undefined;
  #lookedAt = -Infinity;
  #alarm: Alarm | undefined;

  /** Reads the state and judges it; asks nothing yet. @throws SignetError `state_refused` */
  constructor(options: SessionOptions, tools: SessionTools) {
    const { trustDomain, attestation, bundleFile, host, port, callMs = CALL_MS, syncMs = SYNC_MS } = options;
    const { clock, random, log, newKey } = tools;
    this.#tools = tools;
    this.syncMs = syncMs;
    this.#faults = new Faults(tools);
    this.bundle = new BundleKeeper({ trustDomain, bundleFile }, { ...tools, store: tools.bundleStore });
    this.#connection = new SpireConnection({ host, port, trustDomain, bundleFile, callMs }, { clock, roots: () => this.bundle.anchors() });
    this.#agent = new AgentKeeper({ trustDomain, attestation }, { clock, random, log, newKey, connection: this.#connection, store: tools.agentStore });
    this.#downstream = new Downstream(trustDomain, { clock, newKey, connection: this.#connection });
  }

  /** What is wrong at present; undefined when nothing is. */
  problem(): string | undefined {
    return this.#faults.problem();
  }

  /** Calls `listener` when it is worth asking again after something failed. Returns the way to stop. */
  onReturn(listener: () => void): () => void {
    return this.#faults.onReturn(listener);
  }

  /** From now on the server's bundle has to hold these; `onPublished` is told of each that it holds. */
  publish(keys: OwnKeys, onPublished: (kids: readonly string[]) => void): () => void {
    this.#ownKeys = keys;
    this.#publishedListeners.add(onPublished);
    return () => void this.#publishedListeners.delete(onPublished);
  }

  /** Looks now, one look at a time, and plans the next one. What fails is told; the promise never rejects but for the signal. */
  look(signal?: AbortSignal): Promise<void> {
    this.#looking ??= this.#round().finally(() => {
      this.#looking = undefined;
      this.#plan();
    });
    return signal === undefined ? this.#looking : unlessAborted(this.#looking, signal);
  }

  /** Looks soon: something is wanted that the next look may bring. */
  nudge(): void {
    if (this.#closing.signal.aborted || this.#looking !== undefined) return;
    const { clock } = this.#tools;
    this.#alarm?.cancel();
    this.#alarm = clock.after(Math.max(0, this.#lookedAt + SHORTEST_MS - clock.monotonic()), () => void this.look());
  }

  /**
   * Asks something as the downstream workload. What has been refused because of what we hold is asked once more with new things.
   *
   * @throws SpireError, or the signal's reason.
   */
  async asDownstream<M extends SpireMethod>(purpose: Purpose, method: M, request: RequestOf<M>, signal: AbortSignal): Promise<ResponseOf<M>> {
    const either = AbortSignal.any([signal, this.#closing.signal]);
    for (let attempt = 0; ; attempt += 1) {
      const identity = await this.#identity(either);
      try {
        return await this.#observed(purpose, () => this.#connection.call(method, request, { identity, signal: either }), attempt === 0 ? STALE : []);
      } catch (error) {
        if (!hasFault(error, ...STALE)) throw error;
        this.#downstream.drop();
        if (attempt > 0) throw error;
      }
    }
  }

  async close(): Promise<void> {
    this.#closing.abort(new SignetError('stopped', 'the agent stops'));
    this.#alarm?.cancel();
    this.#faults.close();
    this.#publishedListeners.clear();
    await this.#looking?.catch(() => undefined);
    await this.#agent.close();
    this.#connection.close();
    await this.bundle.close();
  }

  async #round(): Promise<void> {
    const { signal } = this.#closing;
    const steps = [() => this.#readBundle(signal), () => this.#readEntry(signal), () => this.#publishKeys(signal)];
    for (const step of steps) {
      if (signal.aborted) return;
      try {
        await step();
      } catch (error) {
        // Without an agent, or without its entry, the steps that follow only fail for the same reason.
        if (isAway(error) || step !== steps[0]) break;
      }
    }
    this.bundle.prune();
    this.#lookedAt = this.#tools.clock.monotonic();
  }

  async #readBundle(signal: AbortSignal): Promise<void> {
    const ask = (identity?: SpireIdentity) => this.#connection.call('GetBundle', { outputMask: BUNDLE_MASK }, { identity, signal });
    const identity = this.#isPlain ? undefined : this.#agent.current();
    await this.#observed('bundle', async () => {
      // It is told to everybody, whatever becomes of our agent.
      const bundle = await ask(identity).catch((error: unknown) => (identity !== undefined && isLost(error) ? ask() : Promise.reject(error)));
      this.bundle.take(bundle);
      this.#leaveTainted();
      this.#hintMs = bundle.refreshHint > 0 ? bundle.refreshHint * 1_000 : Infinity;
    });
    this.#tellPublished();
  }

  /** As SPIRE's agents do: what stands under a tainted root is replaced before that root is taken out. */
  #leaveTainted(): void {
    const agent = this.#agent.current();
    if (agent === undefined || !this.bundle.isUnderTainted(agent.chain)) return;
    this.#agent.hurry(agent);
    this.#downstream.drop();
  }

  async #readEntry(signal: AbortSignal): Promise<void> {
    const agent = await this.#observed('join', () => this.#agent.get(signal));
    try {
      await this.#observed('entry', () => this.#asAgent(() => this.#downstream.look(agent, signal)), this.#isEntryAwaited() ? ['no_entry'] : []);
    } catch (error) {
      if (!isLost(error)) throw error;
      // Joining anew may help at once.
      const other = await this.#observed('join', () => this.#agent.get(signal));
      await this.#observed('entry', () => this.#asAgent(() => this.#downstream.look(other, signal)), this.#isEntryAwaited() ? ['no_entry'] : []);
    }
  }

  async #publishKeys(signal: AbortSignal): Promise<void> {
    for (const jwtAuthority of this.#ownKeys()) {
      if (this.bundle.has(jwtAuthority.keyId)) continue;
      const { jwtAuthorities } = await this.asDownstream('publish', 'PublishJWTAuthority', { jwtAuthority }, signal);
      this.bundle.takeJwtKeys(jwtAuthorities);
      this.#tellPublished();
    }
  }

  #tellPublished(): void {
    const kids = this.#ownKeys().map(({ keyId }) => keyId).filter((kid) => this.bundle.has(kid));
    for (const listener of [...this.#publishedListeners]) listener(kids);
  }

  async #identity(signal: AbortSignal): Promise<SpireIdentity> {
    const agent = await this.#observed('join', () => this.#agent.get(signal));
    return this.#observed('entry', () => this.#asAgent(() => this.#downstream.get(agent, this.#agent.sinceJoinMs(), signal)));
  }

  /** What the server says of our agent counts for all that is asked later. */
  async #asAgent<T>(ask: () => Promise<T>): Promise<T> {
    const asked = this.#agent.current();
    try {
      return await ask();
    } catch (error) {
      if (isLost(error) && asked !== undefined) this.#agent.lost(asked, error);
      throw error;
    }
  }

  #isEntryAwaited(): boolean {
    return this.#agent.sinceJoinMs() < ENTRY_PATIENCE_MS;
  }

  /** @param quiet what is normal at this moment, and not told. */
  async #observed<T>(purpose: Purpose, ask: () => Promise<T>, quiet: readonly SpireFault[] = []): Promise<T> {
    const { clock } = this.#tools;
    const began = clock.monotonic();
    try {
      const answer = await ask();
      this.#isPlain = false;
      this.#faults.succeeded(purpose, clock.monotonic() - began);
      return answer;
    } catch (error) {
      if (this.#closing.signal.aborted) throw error;
      if (isAway(error)) this.#isPlain = true;
      // A signal that somebody else has aborted says nothing of the server.
      if (error instanceof SignetError && error.code !== 'stopped' && error.code !== 'timed_out' && !hasFault(error, ...quiet)) this.#faults.failed(purpose, error, this.#waitMs());
      throw error;
    }
  }

  #waitMs(): number {
    return this.#faults.isAway || this.#isEntryAwaited() ? SOON_MS : Math.min(this.syncMs, this.#hintMs);
  }

  #plan(): void {
    this.#alarm?.cancel();
    if (this.#closing.signal.aborted) return;
    const { clock, random } = this.#tools;
    this.#alarm = clock.after(this.#waitMs() * (1 - JITTER * random.fraction()), () => void this.look());
  }
}
