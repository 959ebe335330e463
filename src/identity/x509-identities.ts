import type { KeyObject } from 'node:crypto';
import type { Alarm, Clock } from '../clock.ts';
import { messageOf, SignetError } from '../errors.ts';
import type { EventBus } from '../events.ts';
import type { Random } from '../random.ts';
import { entryKey, type Entry } from '../spiffe/entry.ts';
import type { KeyType } from '../spiffe/key-type.ts';
import type { X509Signer } from '../spiffe/signing.ts';
import type { X509Svid } from '../spiffe/svid.ts';
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
  readonly newKeyPair: (type: KeyType) => Promise<{ publicKey: KeyObject; privateKey: KeyObject }>;
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
  #renewAt = 0;
  #failures = 0;
  /** On the monotonic clock, like every wait for a retry. */
  #retryAt = 0;
  #issuing = false;
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

  close(): void {
    this.#alarm?.cancel();
    this.#readers.clear();
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
    try {
      if (this.#isWorthIt()) await this.#renew();
      else this.#renewAt = this.#tools.clock.now() + Math.max(this.#ttlMs / 20, 1_000);
      this.#failures = 0;
    } catch (error) {
      this.#failed(error);
    } finally {
      this.#issuing = false;
    }
    this.look();
  }

  #isWorthIt(): boolean {
    const { clock, signer } = this.#tools;
    const now = clock.now();
    if (this.#svid === undefined || now < this.#svid.notBefore || now >= this.#svid.notAfter) return true;
    return isWorthRenewing(this.#svid.notAfter, now, this.#ttlMs, signer.horizon());
  }

  async #renew(): Promise<void> {
    const { clock, random, signer, newKeyPair } = this.#tools;
    const keys = await newKeyPair(this.#keyType);
    const request = { id: this.#entry.id, publicKey: keys.publicKey, ttlMs: this.#ttlMs, dnsNames: this.#entry.dnsNames };
    const signed = await signer.sign(request, this.#signal);
    const renewal = this.#svid !== undefined;
    this.#svid = { ...signed, id: this.#entry.id, privateKey: keys.privateKey.export({ format: 'der', type: 'pkcs8' }) };
    this.#renewAt = renewalOf(clock.now(), signed.notAfter, random);
    this.#tools.events.publish('issued', { kind: 'x509', spiffeId: this.#entry.id, serial: signed.serial, notAfter: signed.notAfter, renewal });
    for (const reader of [...this.#readers]) reader();
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
