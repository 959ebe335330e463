import type { Alarm, Clock } from '../clock.ts';
import { messageOf, SignetError } from '../errors.ts';
import type { EventBus } from '../events.ts';
import type { Random } from '../random.ts';
import { entryKey, type Entry } from '../spiffe/entry.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import type { EncodedKeyPair, KeyType } from '../spiffe/key-type.ts';
import type { X509Request, X509Signer } from '../spiffe/signing.ts';
import type { X509Svid } from '../spiffe/svid.ts';
import { createLeafRequest } from './leaf-request.ts';
import { boundPod } from './pod-uid.ts';
import { backoffOf, isWorthRenewing, renewalOf } from './renewal.ts';

export interface X509IdentitiesOptions {
  readonly keyType: KeyType;
  /** Life of an SVID whose entry does not say, in milliseconds. */
  readonly ttlMs: number;
  /** Identities that are kept at most; those with readers are kept above it. */
  readonly capacity: number;
}

export interface X509Tools {
  readonly signer: X509Signer;
  readonly newKeyPair: (type: KeyType) => EncodedKeyPair | Promise<EncodedKeyPair>;
  readonly clock: Clock;
  readonly random: Random;
  readonly events: EventBus;
}

/** A reader's hold on one identity. While it is held the SVID is renewed. */
export interface X509Lease {
  readonly entry: Entry;
  /** The SVID as it is now, or undefined when there is none that is valid. */
  current(): X509Svid | undefined;
  release(): void;
}

/** What is held for one entry, without key and certificates. Times are milliseconds since the Unix epoch. */
export interface X509State {
  readonly id: SpiffeId;
  /** Undefined while the first SVID could not be made, and after one has ended. */
  readonly svid: { readonly serial: string; readonly notBefore: number; readonly notAfter: number } | undefined;
  /** Undefined while nobody reads it: then it is not renewed. */
  readonly renewAt: number | undefined;
  readonly readers: number;
  /** Failed attempts in a row. */
  readonly failures: number;
}

/** From when until when an SVID serves, in milliseconds since the Unix epoch. `issuedAt` is not the back-dated notBefore. */
export interface X509Life {
  readonly issuedAt: number;
  readonly notAfter: number;
}

/** One live X.509-SVID for each entry, whoever asks for it. */
export class X509Identities {
  readonly #options: X509IdentitiesOptions;
  readonly #tools: X509Tools;
  readonly #identities = new Map<string, X509Identity>();
  readonly #stopStepping: () => void;
  readonly #closing = new AbortController();

  constructor(options: X509IdentitiesOptions, tools: X509Tools) {
    this.#options = options;
    this.#tools = tools;
    this.#stopStepping = tools.clock.onStep(() => {
      for (const identity of this.#identities.values()) identity.look();
    });
  }

  /** Holds the identity of `entry` and calls `onChange` whenever its SVID is replaced. The first SVID is made without being asked for. */
  acquire(entry: Entry, onChange: () => void): X509Lease {
    const key = identityKey(entry);
    const identity = this.#identities.get(key) ?? this.#make(entry);
    // Least recently used first: taking it out and in again moves it to the end.
    this.#identities.delete(key);
    this.#identities.set(key, identity);
    identity.addReader(onChange);
    this.#evict();
    return {
      entry,
      current: () => identity.current(),
      release: () => identity.removeReader(onChange),
    };
  }

  /** How many identities are held, with readers or without. */
  get size(): number {
    return this.#identities.size;
  }

  /** What is held for `entry`; undefined when nobody has asked for it, or not for long. Changes nothing. */
  describe(entry: Entry): X509State | undefined {
    return this.#identities.get(identityKey(entry))?.describe();
  }

  /** What is held for all entries. Changes nothing. */
  describeAll(): readonly X509State[] {
    return Array.from(this.#identities.values(), (identity) => identity.describe());
  }

  /** The lives of the SVIDs that somebody reads, ended ones included: only those are renewed. */
  *lives(): Iterable<X509Life> {
    for (const identity of this.#identities.values()) if (identity.hasReaders && identity.life !== undefined) yield identity.life;
  }

  /**
   * Has every SVID that is read signed again within `withinMs`, spread over that time: its CA is not to be relied on any more. One
   * that nobody reads is replaced when somebody does.
   */
  replaceAll(withinMs: number): void {
    for (const identity of this.#identities.values()) identity.replaceWithin(withinMs);
  }

  /** Has whatever failed last tried again at once instead of at the end of its wait: what it failed for has come back. */
  retryFailed(): void {
    for (const identity of this.#identities.values()) identity.retryFailed();
  }

  /** Forgets what nobody reads: its CA is not to be relied on any more. Whoever comes for it waits for a new one. */
  dropUnread(): void {
    for (const [key, identity] of this.#identities) {
      if (identity.hasReaders) continue;
      identity.close();
      this.#identities.delete(key);
    }
  }

  close(): void {
    this.#stopStepping();
    this.#closing.abort(new SignetError('stopped', 'the agent stops'));
    for (const identity of this.#identities.values()) identity.close();
    this.#identities.clear();
  }

  #make(entry: Entry): X509Identity {
    return new X509Identity(entry, entry.x509TtlMs ?? this.#options.ttlMs, this.#options.keyType, this.#tools, this.#closing.signal);
  }

  #evict(): void {
    if (this.#identities.size <= this.#options.capacity) return;
    for (const [key, identity] of this.#identities) {
      if (this.#identities.size <= this.#options.capacity) return;
      if (identity.hasReaders) continue;
      identity.close();
      this.#identities.delete(key);
    }
  }
}

/** The life of one identity: made, renewed while somebody reads it, kept to its last second. */
class X509Identity {
  readonly #entry: Entry;
  readonly #ttlMs: number;
  readonly #keyType: KeyType;
  readonly #tools: X509Tools;
  readonly #signal: AbortSignal;
  readonly #readers = new Set<() => void>();
  #svid: X509Svid | undefined;
  #issuedAt = 0;
  #renewAt = 0;
  #failures = 0;
  /** On the monotonic clock, like every wait for a retry. */
  #retryAt = 0;
  #issuing = false;
  /** The SVID is to be replaced, whatever that gains. */
  #isOutdated = false;
  #alarm: Alarm | undefined;

  constructor(entry: Entry, ttlMs: number, keyType: KeyType, tools: X509Tools, signal: AbortSignal) {
    this.#entry = entry;
    this.#ttlMs = ttlMs;
    this.#keyType = keyType;
    this.#tools = tools;
    this.#signal = signal;
  }

  get hasReaders(): boolean {
    return this.#readers.size > 0;
  }

  get life(): X509Life | undefined {
    return this.#svid === undefined ? undefined : { issuedAt: this.#issuedAt, notAfter: this.#svid.notAfter };
  }

  addReader(onChange: () => void): void {
    this.#readers.add(onChange);
    this.look();
  }

  removeReader(onChange: () => void): void {
    this.#readers.delete(onChange);
    if (this.#readers.size === 0) this.#alarm?.cancel();
  }

  current(): X509Svid | undefined {
    return this.#svid !== undefined && this.#tools.clock.now() < this.#svid.notAfter ? this.#svid : undefined;
  }

  describe(): X509State {
    const svid = this.current();
    const readers = this.#readers.size;
    return {
      id: this.#entry.id,
      svid: svid === undefined ? undefined : { serial: svid.serial, notBefore: svid.notBefore, notAfter: svid.notAfter },
      renewAt: svid === undefined || readers === 0 ? undefined : this.#renewAt,
      readers,
      failures: this.#failures,
    };
  }

  close(): void {
    this.#alarm?.cancel();
    this.#readers.clear();
  }

  replaceWithin(withinMs: number): void {
    const { clock, random } = this.#tools;
    this.#isOutdated = true;
    this.#renewAt = Math.min(this.#renewAt, clock.now() + withinMs * random.fraction());
    this.look();
  }

  retryFailed(): void {
    if (this.#failures === 0) return;
    this.#retryAt = this.#tools.clock.monotonic();
    this.look();
  }

  /** Does what is due: issue at once, wait for the renewal, or nothing when nobody reads. */
  look(): void {
    if (this.#issuing || this.#signal.aborted || this.#readers.size === 0) return;
    this.#alarm?.cancel();
    const now = this.#tools.clock.now();
    if (!this.#isDue(now)) {
      this.#alarm = this.#tools.clock.at(this.#renewAt, () => this.look());
    } else if (this.#failures > 0) {
      // A failure is waited out: a new reader neither shortens nor prolongs it.
      this.#alarm = this.#tools.clock.after(Math.max(this.#retryAt - this.#tools.clock.monotonic(), 0), () => void this.#issue());
    } else {
      void this.#issue();
    }
  }

  #isDue(now: number): boolean {
    if (this.#svid === undefined || now >= this.#renewAt) return true;
    // After a step back of the clock, what was just issued is not valid yet for anybody.
    return now < this.#svid.notBefore;
  }

  async #issue(): Promise<void> {
    if (this.#issuing || this.#signal.aborted) return;
    this.#issuing = true;
    const isOutdated = this.#isOutdated;
    try {
      if (this.#isWorthIt()) await this.#renew();
      else this.#renewAt = this.#tools.clock.now() + Math.max(this.#ttlMs / 20, 1_000);
      this.#failures = 0;
    } catch (error) {
      this.#isOutdated ||= isOutdated;
      this.#failed(error);
    } finally {
      this.#issuing = false;
    }
    this.look();
  }

  #isWorthIt(): boolean {
    const { clock, signer } = this.#tools;
    const now = clock.now();
    if (this.#svid === undefined || this.#isOutdated || now < this.#svid.notBefore || now >= this.#svid.notAfter) return true;
    return isWorthRenewing(this.#svid.notAfter, now, this.#ttlMs, signer.horizon());
  }

  async #renew(): Promise<void> {
    const { clock, random, signer, newKeyPair } = this.#tools;
    const since = clock.monotonic();
    this.#isOutdated = false;
    const keys = await newKeyPair(this.#keyType);
    const signed = await signer.sign(this.#requestFor(keys), this.#signal);
    const renewal = this.#svid !== undefined;
    this.#svid = { ...signed, id: this.#entry.id, privateKey: keys.privateKey };
    this.#issuedAt = clock.now();
    // It may have become outdated while it was made.
    this.#renewAt = this.#isOutdated ? this.#issuedAt : renewalOf(this.#issuedAt, signed.notAfter, random);
    this.#tools.events.publish('issued', {
      kind: 'x509',
      spiffeId: this.#entry.id,
      serial: signed.serial,
      notAfter: signed.notAfter,
      renewal,
      durationMs: clock.monotonic() - since,
      ...boundPod(this.#entry),
    });
    for (const reader of [...this.#readers]) reader();
  }

  #requestFor(keys: EncodedKeyPair): X509Request {
    const { id, dnsNames } = this.#entry;
    const heldUntil = this.current()?.notAfter;
    return {
      id,
      publicKey: keys.publicKey,
      ttlMs: this.#ttlMs,
      dnsNames,
      csr: () => createLeafRequest(keys, { id, dnsNames }),
      ...(heldUntil === undefined ? {} : { heldUntil }),
    };
  }

  #failed(error: unknown): void {
    if (this.#signal.aborted) return;
    this.#failures += 1;
    const retryMs = backoffOf(this.#failures, this.#tools.random);
    this.#retryAt = this.#tools.clock.monotonic() + retryMs;
    this.#tools.events.publish('issuanceFailed', { kind: 'x509', spiffeId: this.#entry.id, error: messageOf(error), retryMs });
  }
}

/** What two entries must share to share an SVID: whoever may have it, and everything that stands in it. */
function identityKey(entry: Entry): string {
  return [entryKey(entry), String(entry.x509TtlMs), ...entry.dnsNames].join('\n');
}
