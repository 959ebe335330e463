import type { Clock } from '../clock.ts';
import { SignetError } from '../errors.ts';
import type { Entry } from '../spiffe/entry.ts';
import type { Selector } from '../spiffe/selector.ts';

/** The least that is needed of whoever attests. `C` is the caller of one connection. */
export interface CallerAttestation<C extends object> {
  attest(caller: C, signal: AbortSignal): Promise<readonly Selector[]>;
}

export interface EntryMatcher {
  match(selectors: readonly Selector[]): readonly Entry[];
  onChange(listener: () => void): () => void;
}

/** Attestors read the kernel's tables and, at worst, hash one large program. */
const ATTESTATION_TIMEOUT_MS = 5_000;

/**
 * Which entries a caller holds now. A caller is attested once for its connection; what its selectors entitle it to is worked out
 * again whenever the entries change.
 */
export class Entitlements<C extends object> {
  readonly #attestation: CallerAttestation<C>;
  readonly #matcher: EntryMatcher;
  readonly #attested = new WeakMap<C, readonly Selector[]>();
  readonly #attesting = new WeakMap<C, Promise<void>>();
  readonly #clock: Clock;
  readonly #stop: () => void;
  #matched = new WeakMap<C, readonly Entry[]>();

  constructor(attestation: CallerAttestation<C>, matcher: EntryMatcher, clock: Clock) {
    this.#clock = clock;
    this.#attestation = attestation;
    this.#matcher = matcher;
    // Registered before any stream is: whoever asks after a change gets the new answer.
    this.#stop = matcher.onChange(() => {
      this.#matched = new WeakMap();
    });
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

  /** The entries of a caller, the default identity first; none is an answer too. Rejects as the attestors do, or `timed_out`. */
  async of(caller: C): Promise<readonly Entry[]> {
    const known = this.known(caller);
    if (known !== undefined) return known;
    let attesting = this.#attesting.get(caller);
    if (attesting === undefined) {
      attesting = this.#attest(caller).finally(() => this.#attesting.delete(caller));
      this.#attesting.set(caller, attesting);
    }
    await attesting;
    return this.known(caller) ?? [];
  }

  onChange(listener: () => void): () => void {
    return this.#matcher.onChange(listener);
  }

  async #attest(caller: C): Promise<void> {
    const bound = new AbortController();
    const alarm = this.#clock.after(ATTESTATION_TIMEOUT_MS, () => bound.abort(new SignetError('timed_out', 'the attestation took too long')));
    try {
      this.#attested.set(caller, await this.#attestation.attest(caller, bound.signal));
    } finally {
      alarm.cancel();
    }
  }

  close(): void {
    this.#stop();
  }
}
