import type { Clock } from '../clock.ts';
import { isSignetError, messageOf, SignetError } from '../errors.ts';
import type { EventBus } from '../events.ts';
import type { Random } from '../random.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import type { BundleSource } from '../spiffe/signing.ts';
import type { Issuer } from './certificate.ts';
import { intermediateFrom } from './intermediate-request.ts';
import type { IntermediateSource } from './intermediate-source.ts';
import type { JwtKeySource } from './jwt-signer.ts';
import { newJwtSigningKey, type JwtSigningKey } from './jwt-signing-key.ts';
import { addedTo, notKept, type KeyOrders } from './key-orders.ts';
import { addRoots, followRoots, usableFrom, type KnownRoot } from './known-roots.ts';
import type { NameConstraint } from './name-constraints.ts';
import { issuerOf, type NodeCa } from './node-ca.ts';
import { NodeKeys, sameBundle } from './node-keys.ts';
import { readNodeState, writeNodeState, type NodeState } from './node-state.ts';
import { ordersOf } from './node-orders.ts';
import type { AuthorityOrders } from './orders.ts';
import { activeOf } from './rotation.ts';
import { dueStepOf, keptOf } from './tainted.ts';
import { Turns } from './turns.ts';
import type { IssuerSource } from './x509-signer.ts';

export interface NodeAuthorityOptions {
  readonly trustDomain: TrustDomain;
  /** Must exist and be locked by this process. */
  readonly privateDir: string;
  /** Life of the node CA and of the JWT keys, in milliseconds. All nodes of the trust domain should have the same. */
  readonly ttlMs: number;
  readonly nameConstraint: NameConstraint;
  /** Also take a node CA without the name constraint that was asked for, or without path length 0. Default false. */
  readonly acceptUnconstrainedCA?: boolean;
}

export interface NodeAuthorityTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly events: EventBus;
  readonly upstream: IntermediateSource;
}

/** The start waits so long for the first turn, when it can serve without it and when it cannot. */
const SERVING_MS = 2_000;
const FIRST_MS = 30_000;

/** A new node CA rests for at most this part of what its predecessor has left to live. */
const SETTLED_PART = 1 / 10;

/** For readiness and metrics. */
export interface NodeAuthorityStatus {
  /** When the upstream last signed a node CA for this process. Milliseconds since the Unix epoch, as is the other. */
  readonly lastSuccess: number | undefined;
  /** When signing ends if nothing changes; undefined while nothing can be signed. */
  readonly nodeCaNotAfter: number | undefined;
  /** What fails at present, whether that has consequences yet or not. */
  readonly failing?: string;
}

/**
 * A CA on the node under a CA elsewhere. It is renewed at half of its life, so that an outage above is felt after the other half
 * only, and kept in `privateDir`, so that a restart during the outage changes nothing. The JWT key is the node's own.
 */
export class NodeAuthority implements IssuerSource, JwtKeySource, BundleSource {
  readonly #options: NodeAuthorityOptions;
  readonly #tools: NodeAuthorityTools;
  readonly #bundleListeners = new Set<(bundle: TrustBundle) => void>();
  readonly #issuerListeners = new Set<(change: { readonly isReplaced: boolean }) => void>();
  readonly #stopListening: readonly (() => void)[];
  readonly #closing = new AbortController();
  readonly #turns: Turns;
  readonly #keys: NodeKeys;
  readonly #orders: KeyOrders;
  #bundle: TrustBundle;
  #active: { ca?: NodeCa | undefined; jwt?: JwtSigningKey | undefined } = {};
  #lastSuccess: number | undefined;
  #writing: Promise<void> = Promise.resolve();

  private constructor(options: NodeAuthorityOptions, tools: NodeAuthorityTools, state: NodeState) {
    this.#options = options;
    this.#tools = tools;
    // Whatever another node has signed under a root ends by then: it has stopped using that root within the overlap.
    this.#keys = new NodeKeys(state, tools.clock, options.ttlMs + tools.upstream.overlapMs);
    this.#bundle = this.#keys.bundle(options.trustDomain);
    this.#orders = this.#makeOrders();
    this.#turns = new Turns(tools, { makeWhatIsDue: () => this.#makeWhatIsDue(), nextTurn: (since) => this.#nextTurn(since) });
    this.#stopListening = [tools.clock.onStep(() => this.#turns.nudge()), tools.upstream.onChange(() => this.#turns.nudge())];
  }

  /**
   * Reads the state and judges it, without changing anything. True when it is enough to sign at `now` (milliseconds since the Unix
   * epoch), so that the upstream may be away at the start.
   *
   * @throws SignetError `state_refused`
   */
  static check(options: NodeAuthorityOptions, now: number): boolean {
    const state = readNodeState(options.privateDir, options.trustDomain);
    return state !== undefined && activeOf(state.cas, now) !== undefined;
  }

  /**
   * Reads the state, and asks the upstream for a node CA if there is none that is good. Without one it opens too as long as the
   * upstream is only away, and goes on asking. What has been kept from before is served without waiting for an upstream that is slow.
   *
   * @throws SignetError `state_refused` for a damaged or foreign file, or when the upstream cannot sign until an operator has done
   * something; `profile_violation` for a wrong answer; `state_unwritable` when first keys cannot be kept.
   */
  static async open(options: NodeAuthorityOptions, tools: NodeAuthorityTools): Promise<NodeAuthority> {
    const stored = readNodeState(options.privateDir, options.trustDomain);
    const authority = new NodeAuthority(options, tools, stored ?? { cas: [], roots: [], jwt: [] });
    const isServing = authority.#keys.ca !== undefined && authority.#keys.jwt !== undefined;
    await within(isServing ? SERVING_MS : FIRST_MS, authority.#turns.turn(), tools.clock);
    const fatal = authority.#fatalError(stored === undefined);
    if (fatal === undefined) return authority;
    await authority.close();
    throw fatal;
  }

  /** The rotation by hand. */
  get orders(): AuthorityOrders {
    return this.#orders;
  }

  async ready(): Promise<void> {
    if (this.#keys.ca === undefined || this.#keys.jwt === undefined) await this.#turns.current;
  }

  issuer(): Issuer {
    return this.#ca();
  }

  intermediates(): readonly Buffer[] {
    return this.#ca().chain;
  }

  jwtKey(): JwtSigningKey {
    const key = this.#keys.jwt;
    if (key === undefined) throw new SignetError('authority_unavailable', 'there is no JWT key that is valid now');
    return key;
  }

  /** All JWT keys that have not ended, those that sign later among them. */
  jwtKeys(): readonly JwtSigningKey[] {
    return keptOf(this.#keys.state.jwt, this.#tools.clock.now());
  }

  current(): TrustBundle {
    return this.#bundle;
  }

  onChange(listener: (bundle: TrustBundle) => void): () => void {
    this.#bundleListeners.add(listener);
    return () => void this.#bundleListeners.delete(listener);
  }

  /**
   * Calls `listener` when another node CA signs from now on. `isReplaced`: it stands under another CA than the one before, so that
   * leaves should be renewed soon, spread over some time. Returns the way to stop.
   */
  onIssuerChange(listener: (change: { readonly isReplaced: boolean }) => void): () => void {
    this.#issuerListeners.add(listener);
    return () => void this.#issuerListeners.delete(listener);
  }

  status(): NodeAuthorityStatus {
    const failing = this.#turns.failure === undefined ? this.#tools.upstream.problem() : messageOf(this.#turns.failure);
    const nodeCaNotAfter = this.#keys.ca?.notAfter;
    return { lastSuccess: this.#lastSuccess, nodeCaNotAfter, ...(failing === undefined ? {} : { failing }) };
  }

  /** Resolves when all that is due at this moment has been made and written, or has failed. */
  async idle(): Promise<void> {
    while (this.#turns.current !== undefined) await this.#turns.current;
  }

  /** Resolves when nothing is being written any more: before that the directory must not go to a successor. */
  async close(): Promise<void> {
    this.#closing.abort(new SignetError('stopped', 'the agent stops'));
    for (const stop of this.#stopListening) stop();
    await this.#turns.close();
    await this.#writing.catch(() => undefined);
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  #ca(): NodeCa {
    const { ca } = this.#keys;
    if (ca !== undefined) return ca;
    const why = this.#turns.failure === undefined ? 'it is being made' : messageOf(this.#turns.failure);
    throw new SignetError('authority_unavailable', `there is no node CA that is valid now: ${why}`);
  }

  /** Resolves with what has failed; the rest is done nevertheless. */
  async #makeWhatIsDue(): Promise<unknown> {
    const { clock, upstream } = this.#tools;
    const jwtStep = dueStepOf(this.#keys.state.jwt, clock.now());
    const key = jwtStep === 'none' ? undefined : await newJwtSigningKey(clock.now(), this.#options.ttlMs, jwtStep === 'prepare');
    if (this.#isClosed) return undefined;
    const { state } = this.#keys;
    const roots = followRoots(state.roots, upstream.roots(), clock.now());
    // What an operator has had made meanwhile is not made a second time.
    const isDue = key !== undefined && dueStepOf(state.jwt, clock.now()) !== 'none';
    this.#change({ ...state, roots, jwt: isDue ? [...state.jwt, key] : state.jwt });
    const failure = this.#isCaDue() ? await this.#renewCa() : undefined;
    if (this.#isClosed) return undefined;
    if (!this.#keys.isWritten) await this.#write();
    // What the new keys follow goes only now that those are kept. After a nudge the next turn does it.
    if (!this.#turns.isNudged) this.#change(this.#keys.state);
    if (!this.#keys.isWritten) await this.#write();
    return failure;
  }

  /** While something fails, only the retry is due. */
  #isDue(): boolean {
    if (this.#turns.failure !== undefined) return false;
    return this.#isCaDue() || dueStepOf(this.#keys.state.jwt, this.#tools.clock.now()) !== 'none';
  }

  /** The newest counts: when it signs later only, it is on its way. */
  #isCaDue(): boolean {
    const now = this.#tools.clock.now();
    const { cas } = this.#keys.state;
    const newest = cas.at(-1);
    if (newest === undefined || activeOf(cas, now) === undefined) return true;
    const signer = this.#tools.upstream.issuer();
    const isOther = signer !== undefined && !issuerOf(newest).equals(signer);
    return isOther || now >= newest.renewAt || newest.nameConstraint !== this.#options.nameConstraint;
  }

  async #renewCa(): Promise<unknown> {
    const { clock, upstream } = this.#tools;
    try {
      const { ca, roots: known } = await this.#ask(this.#closing.signal, this.#keys.ca);
      if (this.#isClosed) return undefined;
      const now = clock.now();
      const { state } = this.#keys;
      const active = activeOf(state.cas, now);
      const isAtOnce = active === undefined || active.root.equals(ca.root);
      const settledAt = active === undefined ? now : Math.max(now, Math.min(ca.notBefore + (upstream.settleMs ?? 0), now + (active.notAfter - now) * SETTLED_PART));
      const activatesAt = isAtOnce ? settledAt : Math.max(settledAt, usableFrom(known, ca.root, upstream.overlapMs));
      // One that waits for its turn under a CA that has been replaced again will not get it.
      const cas = state.cas.filter((one) => one.activatesAt <= now);
      this.#change({ ...state, roots: known, cas: [...cas, { ...ca, activatesAt }] });
      return undefined;
    } catch (error) {
      return error;
    }
  }

  /** Another node CA, and the roots that are known with it. `follows`: the one that it may be asked for with. */
  async #ask(signal: AbortSignal, follows?: NodeCa): Promise<{ readonly ca: Omit<NodeCa, 'activatesAt'>; readonly roots: readonly KnownRoot[] }> {
    const { clock, random, upstream } = this.#tools;
    const { ca, roots } = await intermediateFrom(upstream, { ...this.#options, follows }, { clock, random, signal });
    const now = clock.now();
    this.#lastSuccess = now;
    return { ca, roots: addRoots(this.#keys.state.roots, roots, now) };
  }

  #makeOrders(): KeyOrders {
    return ordersOf({
      clock: this.#tools.clock,
      overlapMs: this.#tools.upstream.overlapMs,
      ttlMs: this.#options.ttlMs,
      keys: this.#keys,
      ask: async (signal) => {
        const { ca, roots } = await this.#ask(AbortSignal.any([signal, this.#closing.signal]));
        this.#adopt({ roots });
        return ca;
      },
      adopt: (part) => this.#adopt(part),
      keep: () => this.#keep(),
    });
  }

  /** Takes over what an operator has ordered. */
  #adopt(part: Partial<NodeState>): void {
    if (this.#isClosed) throw new SignetError('stopped', 'the agent stops');
    this.#change({ ...this.#keys.state, ...part });
    this.#turns.nudge();
  }

  /** Takes a new state over: from here to the publication nothing waits, since what is not public must not sign (FED-03). */
  #change(state: NodeState): void {
    const before = this.#keys.state;
    const { cas, jwt } = this.#keys.change(state);
    for (const ca of addedTo(before.cas, state.cas)) this.#tell('x509', 'prepared', ca.subject, ca.notAfter);
    for (const key of addedTo(before.jwt, state.jwt)) this.#tell('jwt', 'prepared', key.kid, key.notAfter);
    for (const ca of cas) this.#tell('x509', 'retired', ca.subject, ca.notAfter);
    for (const key of jwt) this.#tell('jwt', 'retired', key.kid, key.notAfter);
    this.#publish();
    this.#tellActive();
  }

  /** Writes what was ordered. What cannot be written is tried again in turn. */
  async #keep(): Promise<void> {
    try {
      await this.#write();
    } catch (error) {
      throw notKept(error);
    }
  }

  /** One at a time: what has changed meanwhile is written too. */
  #write(): Promise<void> {
    this.#writing = this.#writing.catch(() => undefined).then(() => this.#writeState());
    return this.#writing;
  }

  async #writeState(): Promise<void> {
    const { state } = this.#keys;
    if (this.#keys.isWritten) return;
    await writeNodeState(this.#options.privateDir, this.#options.trustDomain, state);
    this.#keys.noteWritten(state);
    this.#tellActive();
  }

  #publish(): void {
    const bundle = this.#keys.bundle(this.#options.trustDomain);
    if (sameBundle(bundle, this.#bundle)) return;
    this.#bundle = bundle;
    for (const listener of [...this.#bundleListeners]) listener(bundle);
  }

  #tellActive(): void {
    const { ca: lastCa, jwt: lastJwt } = this.#active;
    const { ca, jwt } = this.#keys;
    this.#active = { ca: ca ?? lastCa, jwt: jwt ?? lastJwt };
    if (jwt !== undefined && jwt !== lastJwt) this.#tell('jwt', 'activated', jwt.kid, jwt.notAfter);
    if (ca === undefined || ca === lastCa) return;
    this.#tell('x509', 'activated', ca.subject, ca.notAfter);
    if (lastCa === undefined) return;
    const isReplaced = !issuerOf(ca).equals(issuerOf(lastCa));
    for (const listener of [...this.#issuerListeners]) listener({ isReplaced });
  }

  #nextTurn(since: number): number {
    // A turn may have taken away all that could tell a next moment.
    return this.#isDue() ? this.#tools.clock.now() : this.#keys.nextChange(since);
  }

  #fatalError(isFirstStart: boolean): unknown {
    const error = this.#turns.failure;
    if (isFirstStart && isSignetError(error, 'state_unwritable')) {
      return new SignetError('state_unwritable', `the first keys cannot be kept: ${error.message}. What to do: make ${this.#options.privateDir} writable for uid ${process.geteuid?.()}, with free space.`, { cause: error });
    }
    const isIdle = this.#keys.ca === undefined;
    return isIdle && isSignetError(error, 'state_refused', 'profile_violation') ? error : undefined;
  }

  #tell(kind: 'x509' | 'jwt', step: 'prepared' | 'activated' | 'retired', id: string, notAfter: number): void {
    this.#tools.events.publish('authorityRotated', { kind, step, id, notAfter });
  }
}

/** Waits for `work`, but no longer than `ms`. */
async function within(ms: number, work: Promise<void>, clock: Clock): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const alarm = clock.after(ms, resolve);
  await Promise.race([work, late]);
  alarm.cancel();
}
