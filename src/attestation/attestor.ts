import type { Kernel } from '../kernel.ts';
import type { Selector } from '../spiffe/selector.ts';
import { assertSameProcess, type Caller } from './caller.ts';

/** Finds out facts about a caller. */
export interface Attestor {
  /** The type of its selectors: `unix`, `k8s`. */
  readonly name: string;
  /** All of its selectors, or a rejection: never a part of them because something could not be read. */
  attest(caller: Caller, signal: AbortSignal): Promise<readonly Selector[]>;
  /** The same at once, where nothing has to be waited for; else undefined. Left out: always undefined. @throws as `attest` rejects */
  attestNow?(caller: Caller): readonly Selector[] | undefined;
  /** What `attest` would say now of a caller that it attested; undefined when it does not know. Left out: it never changes. */
  current?(caller: Caller): readonly Selector[] | undefined;
  /** Calls `listener` with attested callers of whom `current` says something else now. Returns the way to stop. */
  onChange?(listener: (callers: readonly Caller[]) => void): () => void;
  /** The caller is gone: nothing is kept of it. */
  forget?(caller: Caller): void;
}

/** What all attestors together say of a caller. */
export class Attestation {
  readonly #attestors: readonly Attestor[];
  readonly #kernel: Kernel;
  /** Of each attestor, in their order. */
  readonly #found = new WeakMap<Caller, readonly (readonly Selector[])[]>();

  constructor(attestors: readonly Attestor[], kernel: Kernel) {
    this.#attestors = attestors;
    this.#kernel = kernel;
  }

  /**
   * The selectors of `caller`, sorted, each once. All attestors run side by side; the first that fails fails the whole, since a
   * caller with some of its selectors would look like one that owns less.
   *
   * @throws SignetError `caller_gone`, `caller_changed` or `caller_unknown` when it is not, before or afterwards, the process
   * that connected; whatever an attestor rejects with; the signal's reason.
   */
  async attest(caller: Caller, signal: AbortSignal): Promise<readonly Selector[]> {
    signal.throwIfAborted();
    assertSameProcess(this.#kernel, caller);
    const found = await Promise.all(this.#attestors.map((attestor) => attestor.attest(caller, signal)));
    signal.throwIfAborted();
    assertSameProcess(this.#kernel, caller);
    this.#found.set(caller, found);
    return sorted(found);
  }

  /**
   * The same at once, where no attestor has to wait for anything; else undefined.
   *
   * @throws as `attest` rejects
   */
  attestNow(caller: Caller): readonly Selector[] | undefined {
    const found: (readonly Selector[])[] = [];
    for (const attestor of this.#attestors) {
      const selectors = attestor.attestNow?.(caller);
      if (selectors === undefined) return undefined;
      found.push(selectors);
    }
    // Asked once, last: nothing was waited for.
    assertSameProcess(this.#kernel, caller);
    this.#found.set(caller, found);
    return sorted(found);
  }

  /** What `attest` would say now, as far as attestors follow it; undefined for one that was not attested, or was forgotten. */
  current(caller: Caller): readonly Selector[] | undefined {
    const found = this.#found.get(caller);
    if (found === undefined) return undefined;
    const now: (readonly Selector[])[] = [];
    for (const [index, attestor] of this.#attestors.entries()) {
      const selectors = attestor.current === undefined ? found[index] : attestor.current(caller);
      if (selectors === undefined) return undefined;
      now.push(selectors);
    }
    return sorted(now);
  }

  /** Calls `listener` with attested callers whose selectors have changed. Returns the way to stop. */
  onChange(listener: (callers: readonly Caller[]) => void): () => void {
    const stops = this.#attestors.map((attestor) => attestor.onChange?.(listener));
    return () => stops.forEach((stop) => stop?.());
  }

  forget(caller: Caller): void {
    this.#found.delete(caller);
    for (const attestor of this.#attestors) attestor.forget?.(caller);
  }
}

function sorted(found: readonly (readonly Selector[])[]): readonly Selector[] {
  return [...new Set(found.flat())].sort();
}
