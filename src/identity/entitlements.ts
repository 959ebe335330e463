import type { Clock } from '../clock.ts';
import { SignetError } from '../errors.ts';
import type { Entry } from '../spiffe/entry.ts';
import type { Selector } from '../spiffe/selector.ts';

/** The least that is needed of whoever attests. `C` is the caller of one connection. */
export interface CallerAttestation<C extends object> {
  attest(caller: C, signal: AbortSignal): Promise<readonly Selector[]>;
  /** The same at once, where nothing has to be waited for; else undefined. @throws as `attest` rejects */
  attestNow?(caller: C): readonly Selector[] | undefined;
  /** What would be said now of a caller that was attested, as far as it can change; undefined when it is not known any more. */
  current?(caller: C): readonly Selector[] | undefined;
  /** Calls `listener` with the attested callers of whom something else is to be said now. */
  onChange?(listener: (callers: readonly C[]) => void): () => void;
  /** The caller is gone. */
  forget?(caller: C): void;
}

export interface EntryMatcher {
  match(selectors: readonly Selector[]): readonly Entry[];
  onChange(listener: () => void): () => void;
  /** Resolves when `match` can be believed for such a caller; rejects as the signal does. Left out: always. */
  whenKnown?(selectors: readonly Selector[], signal: AbortSignal): Promise<void>;
  /** False while "none" may only mean that something is not known yet. Left out: true. */
  isComplete?(selectors: readonly Selector[]): boolean;
}

/** Attestors read the kernel's tables and, at worst, hash one large program. */
const ATTESTATION_TIMEOUT_MS = 5_000;

export interface EntitlementsOptions<C> {
  /** Bound of one attestation, its waiting for whatever is not known yet included. Default 5,000 ms. */
  readonly timeoutMs?: number;
  /** Told of each attestation: the caller's selectors, or undefined where it could not be attested. Must not throw. */
  readonly onAttested?: (caller: C, selectors: readonly Selector[] | undefined, durationMs: number) => void;
}

interface Follower {
  readonly listener: () => void;
  entries: readonly Entry[] | undefined;
}

/**
 * Which entries a caller holds now. A caller is attested once for its connection; what that entitles it to is worked out again
 * whenever the entries change, or what is known of the caller.
 */
export class Entitlements<C extends object> {
  readonly #attestation: CallerAttestation<C>;
  readonly #matcher: EntryMatcher;
  readonly #options: EntitlementsOptions<C>;
  readonly #clock: Clock;
  readonly #attested = new WeakMap<C, readonly Selector[]>();
  readonly #attesting = new WeakMap<C, Promise<void>>();
  readonly #gone = new WeakSet<C>();
  readonly #followers = new Map<C, Set<Follower>>();
  readonly #stops: readonly (() => void)[];
  #matched = new WeakMap<C, readonly Entry[]>();

  constructor(attestation: CallerAttestation<C>, matcher: EntryMatcher, clock: Clock, options: EntitlementsOptions<C> = {}) {
    this.#clock = clock;
    this.#attestation = attestation;
    this.#matcher = matcher;
    this.#options = options;
    const stopMatcher = matcher.onChange(() => this.#entriesChanged());
    const stopAttestation = attestation.onChange?.((callers) => this.#callersChanged(callers));
    this.#stops = [stopMatcher, stopAttestation ?? (() => undefined)];
  }

  /** The entries of a caller that was attested, or undefined for one that was not yet. */
  known(caller: C): readonly Entry[] | undefined {
    const known = this.#matched.get(caller);
    if (known !== undefined) return known;
    const selectors = this.#attested.get(caller);
    if (selectors === undefined) return undefined;
    const entries = this.#matcher.match(selectors);
    this.#matched.set(caller, entries);
    return entries;
  }

  /**
   * The entries of a caller, the default identity first; none is an answer too. Rejects as the attestors do, with `timed_out`, or
   * with `unavailable` where none would only mean that something is not known yet.
   */
  async of(caller: C): Promise<readonly Entry[]> {
    const known = this.known(caller);
    if (known !== undefined) return this.#believed(caller, known);
    let attesting = this.#attesting.get(caller);
    if (attesting === undefined) {
      attesting = this.#attest(caller).finally(() => this.#attesting.delete(caller));
      this.#attesting.set(caller, attesting);
    }
    await attesting;
    return this.#believed(caller, this.known(caller) ?? []);
  }

  /**
   * The same at once, where nothing has to be waited for; else undefined.
   *
   * @throws as `of` rejects
   */
  ofNow(caller: C): readonly Entry[] | undefined {
    const known = this.known(caller);
    if (known !== undefined) return this.#believed(caller, known);
    if (this.#matcher.whenKnown !== undefined || this.#attesting.has(caller) || this.#gone.has(caller)) return undefined;
    const since = this.#clock.monotonic();
    const selectors = this.#attestation.attestNow?.(caller);
    if (selectors === undefined) return undefined;
    this.#attested.set(caller, selectors);
    this.#options.onAttested?.(caller, selectors, this.#clock.monotonic() - since);
    return this.#believed(caller, this.known(caller) ?? []);
  }

  /** False while "no entries" may only mean that something is not known yet. */
  isComplete(caller: C): boolean {
    return this.#matcher.isComplete?.(this.#attested.get(caller) ?? []) ?? true;
  }

  /** Calls `listener` whenever the entries of `caller` have become others. Returns the way to stop. */
  follow(caller: C, listener: () => void): () => void {
    const follower: Follower = { listener, entries: this.#sure(caller) };
    const followers = this.#followers.get(caller) ?? new Set();
    this.#followers.set(caller, followers.add(follower));
    return () => {
      followers.delete(follower);
      if (followers.size === 0 && this.#followers.get(caller) === followers) this.#followers.delete(caller);
    };
  }

  /** Lets go of a caller whose connection is closed. */
  forget(caller: C): void {
    this.#gone.add(caller);
    this.#followers.delete(caller);
    this.#attested.delete(caller);
    this.#matched.delete(caller);
    this.#attestation.forget?.(caller);
  }

  close(): void {
    for (const stop of this.#stops) stop();
    this.#followers.clear();
  }

  /** None that may still become some is no answer: once it is sure, it is told. */
  #sure(caller: C): readonly Entry[] | undefined {
    const entries = this.known(caller);
    return entries?.length === 0 && !this.isComplete(caller) ? undefined : entries;
  }

  #believed(caller: C, entries: readonly Entry[]): readonly Entry[] {
    if (entries.length > 0 || this.isComplete(caller)) return entries;
    throw new SignetError('unavailable', 'nothing is known to apply to the caller, but the rules of the cluster are not complete yet');
  }

  async #attest(caller: C): Promise<void> {
    const { timeoutMs = ATTESTATION_TIMEOUT_MS, onAttested } = this.#options;
    const since = this.#clock.monotonic();
    const bound = new AbortController();
    const alarm = this.#clock.after(timeoutMs, () => bound.abort(new SignetError('timed_out', 'the attestation took too long')));
    let selectors: readonly Selector[] | undefined;
    try {
      selectors = await this.#attestation.attest(caller, bound.signal);
      await this.#matcher.whenKnown?.(selectors, bound.signal);
      // Meanwhile more may have become known of the caller.
      this.#attested.set(caller, this.#attestation.current?.(caller) ?? selectors);
    } finally {
      alarm.cancel();
      onAttested?.(caller, selectors, this.#clock.monotonic() - since);
      // It went while it was attested: what the attestors hold of it since then is let go of too.
      if (this.#gone.has(caller)) this.#attestation.forget?.(caller);
    }
  }

  #callersChanged(callers: readonly C[]): void {
    for (const caller of callers) {
      if (!this.#attested.has(caller)) continue;
      const selectors = this.#attestation.current?.(caller);
      if (selectors !== undefined) this.#attested.set(caller, selectors);
      this.#matched.delete(caller);
      this.#tell(caller);
    }
  }

  #entriesChanged(): void {
    this.#matched = new WeakMap();
    for (const caller of [...this.#followers.keys()]) this.#tell(caller);
  }

  #tell(caller: C): void {
    const entries = this.#sure(caller);
    for (const follower of [...(this.#followers.get(caller) ?? [])]) {
      if (sameEntries(follower.entries, entries)) continue;
      follower.entries = entries;
      follower.listener();
    }
  }
}

function sameEntries(a: readonly Entry[] | undefined, b: readonly Entry[] | undefined): boolean {
  if (a === b) return true;
  return a !== undefined && b !== undefined && a.length === b.length && a.every((entry, index) => entry === b[index]);
}
