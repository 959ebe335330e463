import type { Alarm, Clock } from '../../clock.ts';
import { messageOf, SignetError } from '../../errors.ts';
import type { KubernetesClient } from '../../kubernetes/api-client.ts';
import { hasStatus } from '../../kubernetes/api-error.ts';
import { objectAt, textAt } from '../../kubernetes/json.ts';
import type { Log } from '../../log.ts';
import { CERTIFICATE_REQUESTS, INSTANCE_LABEL } from './certificate-request.ts';

export interface LeftoversOptions {
  /** Of the collection. */
  readonly path: string;
  readonly instance: string;
  /** False for what nobody waits for and nobody should see. */
  readonly isWanted: (name: string) => boolean;
}

export interface LeftoversTools {
  readonly clock: Clock;
  readonly log: Log;
  readonly client: Pick<KubernetesClient, 'delete' | 'list'>;
}

/** Names that are kept in mind. What is not is found again at the next start. */
const MOST_NAMES = 1_000;
const RETRY_MS = 30_000;
/** Deleting at the end of the agent must not hold it up. */
const FAREWELL_MS = 2_000;

/** Deletes requests that have served, one at a time, until it has worked. */
export class Leftovers {
  readonly #options: LeftoversOptions;
  readonly #tools: LeftoversTools;
  /** What may be there, and whether it is to go. */
  readonly #names = new Map<string, 'noted' | 'over'>();
  readonly #closing = new AbortController();
  #isSearchDue = false;
  #sweeping: Promise<void> | undefined;
  #alarm: Alarm | undefined;
  #told: string | undefined;

  constructor(options: LeftoversOptions, tools: LeftoversTools) {
    this.#options = options;
    this.#tools = tools;
  }

  /** Looks for those of a predecessor, which has died with them. */
  find(): void {
    this.#isSearchDue = true;
    this.#sweep();
  }

  /** There may be one of this name from now on. */
  note(name: string): void {
    if (this.#names.size < MOST_NAMES) this.#names.set(name, 'noted');
  }

  /** It stays. */
  forget(name: string): void {
    this.#names.delete(name);
  }

  remove(name: string): void {
    this.#names.set(name, 'over');
    this.#sweep();
  }

  /** Resolves when nothing is being deleted any more. */
  async close(): Promise<void> {
    this.#alarm?.cancel();
    for (const name of this.#names.keys()) this.#names.set(name, 'over');
    const late = this.#tools.clock.after(FAREWELL_MS, () => this.#closing.abort(new SignetError('stopped', 'the agent stops')));
    await this.#sweeping;
    await this.#sweepAll();
    late.cancel();
    this.#closing.abort(new SignetError('stopped', 'the agent stops'));
    this.#alarm?.cancel();
  }

  #sweep(): void {
    this.#sweeping ??= this.#sweepAll().then((isDone) => {
      this.#sweeping = undefined;
      // Something may have been added after the last look.
      if (isDone && this.#next() !== undefined) this.#sweep();
    });
  }

  /** Resolves with false when it has to be tried again. */
  async #sweepAll(): Promise<boolean> {
    this.#alarm?.cancel();
    try {
      if (this.#isSearchDue) await this.#search();
      for (let name = this.#next(); name !== undefined; name = this.#next()) await this.#delete(name);
      this.#told = undefined;
      return true;
    } catch (error) {
      if (this.#closing.signal.aborted) return false;
      this.#tell(messageOf(error));
      this.#alarm = this.#tools.clock.after(RETRY_MS, () => this.#sweep());
      return false;
    }
  }

  #next(): string | undefined {
    for (const [name, state] of this.#names) if (state === 'over') return name;
    return undefined;
  }

  async #search(): Promise<void> {
    const { path, instance, isWanted } = this.#options;
    const { client, log } = this.#tools;
    let found = 0;
    const options = { labelSelector: `${INSTANCE_LABEL}=${instance}`, signal: this.#closing.signal };
    await client.list({ ...CERTIFICATE_REQUESTS, path }, options, (raw) => {
      const name = textAt(objectAt(raw, 'metadata'), 'name');
      if (name === '' || isWanted(name) || this.#names.has(name) || this.#names.size >= MOST_NAMES) return;
      found += 1;
      this.#names.set(name, 'over');
    });
    this.#isSearchDue = false;
    if (found > 0) log.info({ event: 'upstream.leftovers', count: found }, 'CertificateRequests that a predecessor has left are deleted');
  }

  async #delete(name: string): Promise<void> {
    try {
      await this.#tools.client.delete(`${this.#options.path}/${name}`, { signal: this.#closing.signal });
    } catch (error) {
      if (!hasStatus(error, 404)) throw error;
    }
    this.#names.delete(name);
  }

  #tell(reason: string): void {
    if (reason === this.#told) return;
    this.#told = reason;
    this.#tools.log.warn({ event: 'upstream.warning', reason }, 'CertificateRequests that have served cannot be deleted; it is tried again');
  }
}
