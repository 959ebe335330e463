import type { Clock } from '../clock.ts';
import { messageOf, SignetError } from '../errors.ts';
import type { EventBus } from '../events.ts';
import type { Random } from '../random.ts';
import { entryKey, type Entry } from '../spiffe/entry.ts';
import type { JwtSigner } from '../spiffe/signing.ts';
import type { JwtSvid } from '../spiffe/svid.ts';
import { boundPod } from './pod-uid.ts';
import { Recent, type Used } from './recent.ts';
import { backoffOf, renewalOf } from './renewal.ts';

export interface JwtIdentitiesOptions {
  /** Life of a token whose entry does not say, in milliseconds. */
  readonly ttlMs: number;
  /** Tokens that are kept for each identity at most, one for each list of audiences. One owner cannot displace another's. */
  readonly perIdentity: number;
  /** Identities of which tokens are kept at most. */
  readonly identities: number;
}

export interface JwtTools {
  readonly signer: JwtSigner;
  readonly clock: Clock;
  readonly random: Random;
  readonly events: EventBus;
}

/** The valid tokens that are kept for one entry, without themselves. */
export interface JwtState {
  /** How many: one for each list of audiences. */
  readonly tokens: number;
  /** When the first of them ends, in milliseconds since the Unix epoch; undefined when there is none. */
  readonly soonestExpiry: number | undefined;
}

/** Told for every call, so made once. */
const HIT = { hit: true } as const;
const MISS = { hit: false } as const;

interface Slot extends Used {
  svid: JwtSvid | undefined;
  /** Of the key that has signed it. */
  kid: string | undefined;
  renewAt: number;
  pending: Promise<JwtSvid> | undefined;
  failures: number;
  retryAt: number;
}

/**
 * The JWT-SVIDs that were issued, by identity and audiences. A token is fresh until about half of its life; after that it is
 * still the answer, at once, while one renewal runs behind it. Only without any valid token does a caller wait.
 */
export class JwtIdentities {
  readonly #options: JwtIdentitiesOptions;
  readonly #tools: JwtTools;
  readonly #identities: Recent<Identity>;
  /** Of whoever asked with it last: what it is looked up by is long. */
  #byEntry = new WeakMap<Entry, Identity>();
  readonly #closing = new AbortController();
  /** Keys whose tokens are not given out any more. */
  readonly #dropped = new Set<string>();

  constructor(options: JwtIdentitiesOptions, tools: JwtTools) {
    this.#options = options;
    this.#tools = tools;
    this.#identities = new Recent(options.identities);
  }

  /**
   * A valid token for `audience`, in the caller's order. Returned directly when one is cached.
   *
   * @throws whatever the signer rejects with, when no valid token is left.
   */
  fetch(entry: Entry, audience: readonly string[]): JwtSvid | Promise<JwtSvid> {
    const slot = this.#slot(entry, audience);
    const { clock, events } = this.#tools;
    const now = clock.now();
    const { svid } = slot;
    // After a step back of the clock a token from the future would seem fresh for too long.
    const isValid = svid !== undefined && now < svid.expiresAt && svid.issuedAt <= now + 1_000;
    events.publish('jwtAnswered', isValid ? HIT : MISS);
    if (isValid && now < slot.renewAt) return svid;
    if (isValid && clock.monotonic() < slot.retryAt) return svid;
    const pending = (slot.pending ??= this.#renew(entry, audience, slot));
    if (!isValid) return pending;
    // Whoever waits hears of the failure; here nobody waits.
    pending.catch(() => undefined);
    return svid;
  }

  /** The tokens of `entry`. Changes nothing, not even what counts as used. */
  describe(entry: Entry): JwtState {
    return this.#stateOf(this.#identities.peek(identityKey(entry))?.slots() ?? []);
  }

  /** The tokens of all entries. */
  describeAll(): JwtState {
    return this.#stateOf(this.#slots());
  }

  /** Drops every token that the key `kid` has signed, those that are being made included: they are signed again when they are asked for. */
  dropSignedBy(kid: string): void {
    this.#dropped.add(kid);
    for (const slot of this.#slots()) {
      if (slot.kid !== kid) continue;
      slot.svid = undefined;
      slot.kid = undefined;
    }
  }

  close(): void {
    this.#closing.abort();
    this.#identities.clear();
    this.#byEntry = new WeakMap();
  }

  async #renew(entry: Entry, audience: readonly string[], slot: Slot): Promise<JwtSvid> {
    const { clock, random, events, signer } = this.#tools;
    const since = clock.monotonic();
    try {
      const ttlMs = entry.jwtTtlMs ?? this.#options.ttlMs;
      const held = slot.svid !== undefined && slot.svid.expiresAt > clock.now() ? { heldUntil: slot.svid.expiresAt } : {};
      const request = { id: entry.id, audience, ttlMs, ...held };
      let signed = await signer.sign(request, this.#closing.signal);
      if (this.#dropped.has(signed.kid)) signed = await signer.sign(request, this.#closing.signal);
      if (this.#dropped.has(signed.kid)) throw new SignetError('authority_unavailable', 'the JWT key that signs is not to be relied on any more');
      const svid: JwtSvid = { id: entry.id, token: signed.token, issuedAt: signed.issuedAt, expiresAt: signed.expiresAt };
      events.publish('issued', {
        kind: 'jwt',
        spiffeId: entry.id,
        kid: signed.kid,
        notAfter: signed.expiresAt,
        renewal: slot.svid !== undefined,
        durationMs: clock.monotonic() - since,
        ...boundPod(entry),
      });
      slot.svid = svid;
      slot.kid = signed.kid;
      slot.renewAt = renewalOf(signed.issuedAt, signed.expiresAt, random);
      slot.failures = 0;
      return svid;
    } catch (error) {
      slot.failures += 1;
      const retryMs = backoffOf(slot.failures, random);
      slot.retryAt = clock.monotonic() + retryMs;
      events.publish('issuanceFailed', { kind: 'jwt', spiffeId: entry.id, error: messageOf(error), retryMs });
      throw error;
    } finally {
      slot.pending = undefined;
    }
  }

  #stateOf(slots: Iterable<Slot>): JwtState {
    const now = this.#tools.clock.now();
    let [tokens, soonest] = [0, Infinity];
    for (const { svid } of slots) {
      if (svid === undefined || now >= svid.expiresAt) continue;
      tokens += 1;
      soonest = Math.min(soonest, svid.expiresAt);
    }
    return { tokens, soonestExpiry: tokens === 0 ? undefined : soonest };
  }

  *#slots(): Iterable<Slot> {
    for (const identity of this.#identities.values()) yield* identity.slots();
  }

  #slot(entry: Entry, audience: readonly string[]): Slot {
    let identity = this.#byEntry.get(entry);
    if (identity === undefined || identity.isGone) {
      identity = this.#identities.of(identityKey(entry), () => new Identity(this.#options.perIdentity));
      this.#byEntry.set(entry, identity);
    }
    identity.isUsed = true;
    return identity.slot(audience);
  }
}

/** The tokens of one identity. */
class Identity implements Used {
  isUsed = true;
  isGone = false;
  readonly #slots: Recent<Slot>;

  constructor(capacity: number) {
    this.#slots = new Recent(capacity);
  }

  slot(audience: readonly string[]): Slot {
    // JSON of a list begins with a bracket, so that an audience that does too is written as JSON itself.
    const [only = ''] = audience;
    const isPlain = audience.length === 1 && only.charCodeAt(0) !== BRACKET;
    return this.#slots.of(isPlain ? only : JSON.stringify(audience), newSlot);
  }

  slots(): Iterable<Slot> {
    return this.#slots.values();
  }
}

const BRACKET = 0x5b;

function newSlot(): Slot {
  return { svid: undefined, kid: undefined, renewAt: 0, pending: undefined, failures: 0, retryAt: 0, isUsed: false, isGone: false };
}

const identityKeys = new WeakMap<Entry, string>();

function identityKey(entry: Entry): string {
  let key = identityKeys.get(entry);
  if (key === undefined) {
    key = `${entryKey(entry)}\n${entry.jwtTtlMs}`;
    identityKeys.set(entry, key);
  }
  return key;
}
