import type { Kernel } from '../kernel.ts';
import type { Selector } from '../spiffe/selector.ts';
import { assertSameProcess, type Caller } from './caller.ts';

/** Finds out facts about a caller. */
export interface Attestor {
  /** The type of its selectors: `unix`. */
  readonly name: string;
  /** All of its selectors, or a rejection: never a part of them because something could not be read. */
  attest(caller: Caller, signal: AbortSignal): Promise<readonly Selector[]>;
}

/** What all attestors together say of a caller. */
export class Attestation {
  readonly #attestors: readonly Attestor[];
  readonly #kernel: Kernel;

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
    return [...new Set(found.flat())].sort();
  }
}
