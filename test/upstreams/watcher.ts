import { X509Certificate } from 'node:crypto';
import { WorkloadApiClient } from '../../src/client/workload-api-client.ts';
import type { X509Context, X509Identity } from '../../src/client/responses.ts';
import { trustDomainOf } from '../../src/spiffe/id.ts';

/** What a workload holds: one of its identities, and whom it believes. */
export interface Held {
  readonly identity: X509Identity;
  readonly roots: readonly Buffer[];
  /** End of the leaf, milliseconds since the Unix epoch. */
  readonly notAfter: number;
}

/** A workload's stream of X.509 contexts on a connection of its own, which the client keeps up by itself. */
export class Watcher {
  updates = 0;
  leastLifeMs = Infinity;
  longestGapMs = 0;
  readonly interruptions: string[] = [];
  /** Resolves with the first update. */
  readonly first: Promise<void>;
  onUpdate: () => void = () => undefined;
  readonly #id: string;
  readonly #client: WorkloadApiClient;
  #newest: Held | undefined;
  #brokenAt: number | undefined;

  constructor({ socket, id }: { readonly socket: string; readonly id: string }, signal: AbortSignal) {
    this.#id = id;
    this.#client = new WorkloadApiClient({ endpoint: `unix://${socket}` });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.first = promise;
    this.#follow(signal, resolve).catch(reject);
  }

  get newest(): Held {
    if (this.#newest === undefined) throw new Error(`${this.#id} was never given`);
    return this.#newest;
  }

  get isBroken(): boolean {
    return this.#brokenAt !== undefined;
  }

  /** Notes how long what is held will live. */
  look(): void {
    this.leastLifeMs = Math.min(this.leastLifeMs, this.newest.notAfter - Date.now());
  }

  async #follow(signal: AbortSignal, begun: () => void): Promise<void> {
    const onTrouble = (error: Error): void => {
      this.interruptions.push('code' in error ? String(error.code) : error.message);
      this.#brokenAt ??= performance.now();
    };
    for await (const context of this.#client.watchX509({ signal, onTrouble })) {
      this.#take(context);
      begun();
    }
  }

  #take({ identities, bundles }: X509Context): void {
    const identity = identities.find(({ id }) => id === this.#id);
    // A withdrawal would show as a certificate that ends.
    if (identity === undefined) return void this.interruptions.push('withdrawn');
    const [leaf] = identity.chain;
    if (leaf === undefined) throw new Error(`${this.#id} has no certificate`);
    this.#newest = { identity, roots: bundles.get(trustDomainOf(identity.id)) ?? [], notAfter: new X509Certificate(leaf).validToDate.getTime() };
    this.updates += 1;
    if (this.#brokenAt !== undefined) this.longestGapMs = Math.max(this.longestGapMs, performance.now() - this.#brokenAt);
    this.#brokenAt = undefined;
    this.onUpdate();
  }
}
