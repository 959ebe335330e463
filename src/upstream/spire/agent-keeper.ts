import type { KeyObject } from 'node:crypto';
import type { Clock } from '../../clock.ts';
import { messageOf, SignetError } from '../../errors.ts';
import type { Log } from '../../log.ts';
import type { Random } from '../../random.ts';
import type { TrustDomain } from '../../spiffe/id.ts';
import { unlessAborted } from '../wire/abort.ts';
import { agentIdentity, readAgent, writeAgent, type AgentIdentity, type Store } from './agent-state.ts';
import type { SpireConnection } from './connection.ts';
import type { WireSvid } from './messages.ts';
import { proofOf } from './node-attestor.ts';
import { hasFault, isAway, isLost, SpireError } from './spire-error.ts';
import type { SpireAttestation } from './spire-options.ts';

export interface AgentKeeperOptions {
  readonly trustDomain: TrustDomain;
  readonly attestation: SpireAttestation;
}

/** A new key pair, and a PKCS #10 request in DER that shows that it is held. */
export type NewKey = () => Promise<{ readonly privateKey: KeyObject; readonly csr: Buffer }>;

export interface AgentKeeperTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly connection: Pick<SpireConnection, 'call' | 'attest'>;
  readonly newKey: NewKey;
  readonly store: Store;
}

/** Either way of the middle of life, as a part of it, so that the nodes do not renew together. */
const JITTER = 1 / 10;

/** A renewal that has failed is tried again after this time. */
const RETRY_MS = 10_000;

/** With less than this part of its life left, an SVID that cannot be kept is used all the same. */
const LAST_PART = 1 / 6;

/**
 * This node as an agent of the SPIRE server: joins once, renews its SVID at half of life, and keeps it so that a restart needs no new
 * join token. What the server does not take any more is tried again from time to time all the same: an agent may be forgotten by a
 * server whose datastore is being restored.
 */
export class AgentKeeper {
  readonly #options: AgentKeeperOptions;
  readonly #tools: AgentKeeperTools;
  readonly #closing = new AbortController();
  #held: AgentIdentity | undefined;
  #renewAt = Infinity;
  #hurried: AgentIdentity | undefined;
  /** What was kept may be from a moment ago too. */
  #joinedAt: number;
  #flight: Promise<AgentIdentity> | undefined;
  #lost: SpireError | undefined;
  /** A token that the server has refused, and how: asking again does not help. */
  #refused: { readonly once: string; readonly error: SpireError } | undefined;

  /** @throws SignetError `state_refused` for a damaged or foreign state. */
  constructor(options: AgentKeeperOptions, tools: AgentKeeperTools) {
    this.#options = options;
    this.#tools = tools;
    this.#joinedAt = tools.clock.monotonic();
    this.#held = readAgent(tools.store, options.trustDomain);
    if (this.#held !== undefined) this.#renewAt = this.#renewalOf(this.#held, this.#held.notBefore);
  }

  /** What there is now, good or not. */
  current(): AgentIdentity | undefined {
    return this.#lost === undefined && this.#held !== undefined && this.#isValid(this.#held) ? this.#held : undefined;
  }

  /** Milliseconds since this process has joined, or has begun. */
  sinceJoinMs(): number {
    return this.#tools.clock.monotonic() - this.#joinedAt;
  }

  /** Joins or renews where that is due. @throws SpireError, or the signal's reason, which does not end it for others. */
  async get(signal: AbortSignal): Promise<AgentIdentity> {
    signal.throwIfAborted();
    const held = this.current();
    if (held !== undefined && this.#tools.clock.now() < this.#renewAt) return held;
    this.#flight ??= this.#refresh().finally(() => void (this.#flight = undefined));
    return unlessAborted(this.#flight, signal);
  }

  /** `identity` is to be replaced now, though it has not lived for half of its life. A second time for the same one it does nothing. */
  hurry(identity: AgentIdentity): void {
    if (identity !== this.#held || identity === this.#hurried) return;
    this.#hurried = identity;
    this.#renewAt = -Infinity;
  }

  /** The server does not take `identity`. */
  lost(identity: AgentIdentity, error: SpireError): void {
    if (identity === this.#held) this.#lost = error;
  }

  async close(): Promise<void> {
    this.#closing.abort(new SignetError('stopped', 'the agent stops'));
    await this.#flight?.catch(() => undefined);
  }

  async #refresh(): Promise<AgentIdentity> {
    const held = this.current();
    if (held === undefined) return this.#joinAnew();
    try {
      return await (held.isReattestable ? this.#join() : this.#renew(held));
    } catch (error) {
      if (isLost(error)) {
        this.lost(held, error);
        throw error;
      }
      this.#closing.signal.throwIfAborted();
      this.#renewAt = this.#tools.clock.now() + RETRY_MS;
      this.#warn(`the SVID of our agent could not be renewed, and ends at ${iso(held.notAfter)}: ${messageOf(error)}`);
      return held;
    }
  }

  async #joinAnew(): Promise<AgentIdentity> {
    const lost = this.#lost ?? this.#ended();
    try {
      return await this.#join();
    } catch (error) {
      // The next time the server is asked by what is held: it may have remembered it.
      this.#lost = undefined;
      if (lost === undefined || isAway(error) || !(error instanceof SpireError)) throw error;
      throw new SpireError(lost.fault, `${lost.message}. ${error.message}`, error);
    }
  }

  #ended(): SpireError | undefined {
    const held = this.#held;
    return held === undefined || this.#isValid(held) ? undefined : new SpireError('expired', `the SVID of our agent ${held.id} has ended at ${iso(held.notAfter)}`);
  }

  async #join(): Promise<AgentIdentity> {
    const { attestation } = this.#options;
    const { connection, newKey, random, log } = this.#tools;
    const { type, payload, once, respond } = await proofOf(attestation, random);
    if (once !== undefined && once === this.#refused?.once) throw this.#refused.error;
    const { privateKey, csr } = await newKey();
    try {
      const { svid, reattestable } = await connection.attest({ params: { data: { type, payload }, params: { csr } } }, respond, this.#closing.signal);
      const identity = await this.#adopt(svid, privateKey, reattestable, 'AttestAgent');
      this.#joinedAt = this.#tools.clock.monotonic();
      log.info({ event: 'upstream.joined', spiffe_id: identity.id, not_after: iso(identity.notAfter) }, 'this node has joined the SPIRE server');
      return identity;
    } catch (error) {
      if (isAway(error) || !(error instanceof SpireError)) throw error;
      const fault = error.fault === 'denied' && /banned/.test(error.message) ? 'banned' : 'join';
      const told = new SpireError(fault, `this node cannot join by ${type} (${error.message}). ${this.#remedy(error)}`, error);
      if (once !== undefined && error.fault === 'refused') this.#refused = { once, error: told };
      throw told;
    }
  }

  #remedy(error: SpireError): string {
    const { attestation } = this.#options;
    if (error.fault === 'rate_limited') return 'It is tried again';
    const { id } = this.#held ?? {};
    const isBanned = hasFault(this.#lost, 'banned') || /banned/.test(error.message);
    const evict = isBanned ? `lift the ban with "spire-server agent evict -spiffeID ${id ?? 'ID'}"` : undefined;
    const prove = proveRemedy(attestation);
    return `What to do: ${evict === undefined ? prove : attestation.method === 'join_token' ? `${evict}, and ${prove}` : evict}; no restart is needed`;
  }

  /** The server counts the new SVID from its first use on: it is kept before. */
  async #renew(held: AgentIdentity): Promise<AgentIdentity> {
    const { connection, newKey, log } = this.#tools;
    const { privateKey, csr } = await newKey();
    const { svid } = await connection.call('RenewAgent', { params: { csr } }, { identity: held, signal: this.#closing.signal });
    const identity = await this.#adopt(svid, privateKey, false, 'RenewAgent');
    log.info({ event: 'upstream.renewed', spiffe_id: identity.id, not_after: iso(identity.notAfter) }, 'the SVID of our agent at the SPIRE server is renewed');
    return identity;
  }

  async #adopt(svid: WireSvid | null, privateKey: KeyObject, isReattestable: boolean, method: string): Promise<AgentIdentity> {
    const identity = this.#judge(svid, privateKey, isReattestable, method);
    try {
      await writeAgent(this.#tools.store, identity, this.#options.trustDomain);
    } catch (error) {
      const held = this.current();
      const isNeeded = method === 'AttestAgent' || held === undefined || held.notAfter - this.#tools.clock.now() < (held.notAfter - held.notBefore) * LAST_PART;
      if (!isNeeded) throw error;
      this.#warn(`the SVID of our agent cannot be kept, so that a restart has to join anew: ${messageOf(error)}`);
    }
    this.#held = identity;
    this.#lost = undefined;
    this.#renewAt = this.#renewalOf(identity, this.#tools.clock.now());
    return identity;
  }

  #judge(svid: WireSvid | null, privateKey: KeyObject, isReattestable: boolean, method: string): AgentIdentity {
    try {
      const identity = agentIdentity(svid?.certChain ?? [], privateKey, isReattestable, this.#options.trustDomain);
      if (!this.#isValid(identity)) throw new Error(`its certificate has ended at ${iso(identity.notAfter)}: compare the clocks`);
      return identity;
    } catch (error) {
      throw new SpireError('malformed', `what the SPIRE server has answered to ${method} is refused: ${messageOf(error)}`, error);
    }
  }

  #isValid({ notAfter }: AgentIdentity): boolean {
    return this.#tools.clock.now() < notAfter;
  }

  #renewalOf({ notAfter }: AgentIdentity, from: number): number {
    const life = notAfter - from;
    return from + life / 2 + life * JITTER * (2 * this.#tools.random.fraction() - 1);
  }

  #warn(reason: string): void {
    this.#tools.log.warn({ event: 'upstream.warning', reason }, 'the agent of the SPIRE server');
  }
}

function proveRemedy(attestation: SpireAttestation): string {
  switch (attestation.method) {
    case 'join_token':
      return `make a token with "spire-server token generate -spiffeID ID", ID being the parent of the downstream entry, and write it to ${attestation.tokenFile}`;
    case 'k8s_psat':
      return `compare cluster ${attestation.cluster}, the service account and the audience of the token in ${attestation.tokenFile} with the server's NodeAttestor "k8s_psat"`;
    case 'x509pop':
      return `compare the certificate in ${attestation.certificate} with the server's NodeAttestor "x509pop"`;
  }
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
