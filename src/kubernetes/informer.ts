import type { Clock } from '../clock.ts';
import { isSignetError, messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Random } from '../random.ts';
import type { ListWatch, Selection, WatchEvent } from './api-client.ts';
import { KubernetesError, hasStatus, isExpired, isFromTheFuture } from './api-error.ts';
import { BackOff } from './back-off.ts';
import { objectAt, textAt } from './json.ts';
import type { Resource } from './resources.ts';
import { Store, type ChangeListener, type Stored, type Trim } from './store.ts';

export interface InformerOptions<T> extends Selection {
  readonly client: ListWatch;
  readonly resource: Resource;
  /** The raw object is not kept. */
  readonly trim: Trim<T>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log?: Log;
  /** A new list, from the server's cache, after at most this time although nothing seems to be missing. Default 30 minutes. */
  readonly relistMs?: number;
  /** When to look again for a resource that the cluster does not know. Default 30,000 ms. */
  readonly absentMs?: number;
  /** What was known when another informer was asked for its `entries`: it counts until a list says otherwise. */
  readonly seed?: Iterable<readonly [string, Stored<T>]>;
}

const RELIST_MS = 30 * 60_000;
const ABSENT_MS = 30_000;
/** A watch that held this long was a working one, however it ended. */
const WORKING_WATCH_MS = 5_000;
/** The server ends a watch after this long, moved by up to half, so that a cluster's agents do not come back together. */
const WATCH_SECONDS = 300;

/**
 * A local copy of one resource, kept by list and watch. It survives any outage with what it has, and catches up when the server
 * is back. Changes are level-triggered: a listener learns of each difference between what was and what is, not of each event.
 */
export class Informer<T> {
  readonly #options: InformerOptions<T>;
  readonly #listeners = new Set<ChangeListener<T>>();
  readonly #store: Store<T>;
  readonly #backOff: BackOff;
  readonly #stop = new AbortController();
  #watching = new AbortController();
  readonly #firstSync = Promise.withResolvers<void>();
  #running: Promise<void> | undefined;
  /** From where to watch; '' when a list is needed first. */
  #resume = '';
  /** What the next list must not be older than: '0' anything, undefined the newest. */
  #notOlderThan: string | undefined = '0';
  #listedAt = 0;
  #relistAfterMs = 0;
  #lastContact: number | undefined;
  #failure: string | undefined;
  /** Why the list that was due last failed. */
  #notListed: string | undefined;
  #synced = false;
  #reloads = 0;
  #absentSince: number | undefined;

  constructor(options: InformerOptions<T>) {
    this.#options = options;
    this.#backOff = new BackOff(options.clock, options.random);
    this.#store = new Store(options.trim, (kind, item, before) => this.#emit(kind, item, before), options.seed);
    this.#firstSync.promise.catch(() => undefined);
  }

  /** True once a complete list has been taken in. Stays true in an outage. */
  get synced(): boolean {
    return this.#synced;
  }

  /** When the server last told us anything that counts, in milliseconds since the Unix epoch; undefined before the first time. */
  get lastContact(): number | undefined {
    return this.#lastContact;
  }

  /** Why the last attempt failed; undefined while list and watch work. */
  get failure(): string | undefined {
    return this.#failure;
  }

  get size(): number {
    return this.#store.size;
  }

  items(): Iterable<T> {
    return this.#store.items();
  }

  /** All that is known, to seed another informer with. */
  entries(): Iterable<readonly [string, Stored<T>]> {
    return this.#store.entries();
  }

  /** By name, or by `namespace/name`. */
  get(key: string): T | undefined {
    return this.#store.get(key);
  }

  /** Calls `listener` for each difference from now on. Returns the way to stop. */
  onChange(listener: ChangeListener<T>): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Resolves once synced; rejects when closed before. */
  whenSynced(): Promise<void> {
    return this.#firstSync.promise;
  }

  start(): void {
    this.#running ??= this.#run(this.#stop.signal);
  }

  /** Tries again at once where it waits: after a failure, or for a resource that the cluster does not know yet. */
  nudge(): void {
    this.#backOff.nudge();
  }

  /** Asks for everything again, because `trim` keeps more now. What is known stays until the answer is there. */
  reload(): void {
    this.#reloads += 1;
    this.#forget();
    this.#watching.abort(new KubernetesError('stopped', 'the list is asked for again'));
    this.nudge();
  }

  async close(): Promise<void> {
    const reason = new KubernetesError('stopped', `the informer of ${this.#options.resource.name} was closed`);
    this.#stop.abort(reason);
    this.#firstSync.reject(reason);
    await this.#running;
  }

  #forget(): void {
    this.#store.forgetVersions();
    this.#resume = '';
  }

  get #absentMs(): number {
    return this.#options.absentMs ?? ABSENT_MS;
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const reloads = this.#reloads;
        if (this.#resume === '') await this.#list(signal);
        else if (this.#isListDue) await this.#listAnew(signal);
        if (reloads !== this.#reloads) this.#forget();
        else if (this.#resume !== '') await this.#watch(signal);
        else await this.#backOff.rest(this.#absentMs, signal);
      } catch (error) {
        if (!signal.aborted) await this.#recover(error, signal).catch(() => undefined);
      }
    }
  }

  get #isListDue(): boolean {
    return this.#options.clock.monotonic() - this.#listedAt >= this.#relistAfterMs;
  }

  /** Nothing is known to be missing: a list that fails now is tried again after the next watch, which may well work. */
  async #listAnew(signal: AbortSignal): Promise<void> {
    try {
      await this.#list(signal);
    } catch (error) {
      if (signal.aborted || isExpired(error) || isFromTheFuture(error)) throw error;
      this.#sayNotListed(messageOf(error));
    }
  }

  #sayNotListed(reason: string): void {
    if (this.#notListed === reason) return;
    this.#notListed = reason;
    const { log, resource } = this.#options;
    log?.warn({ event: 'kubernetes.not_listed', reason }, `${resource.name} cannot be listed anew, the watch goes on: ${reason}`);
  }

  async #list(signal: AbortSignal): Promise<void> {
    let [version, objects] = await this.#fetch(this.#notOlderThan, signal);
    // What a cache or a server that just starts calls nothing would withdraw everything: ask etcd.
    const isSudden = objects.size === 0 && this.#store.size > 0;
    if (isSudden && version !== undefined) [version, objects] = await this.#fetch(undefined, signal);
    if (version === undefined) return this.#absent();
    this.#absentSince = undefined;
    this.#notListed = undefined;
    this.#listedAt = this.#options.clock.monotonic();
    this.#relistAfterMs = (this.#options.relistMs ?? RELIST_MS) * (0.75 + 0.5 * this.#options.random.fraction());
    this.#resume = version;
    this.#notOlderThan = version === '' ? '0' : version;
    this.#takeIn(objects);
  }

  /** The version and the trimmed objects of a complete list; no version where the cluster does not know the resource. */
  async #fetch(resourceVersion: string | undefined, signal: AbortSignal): Promise<[string | undefined, Map<string, Stored<T>>]> {
    const { client, resource, fieldSelector, labelSelector } = this.#options;
    const objects = new Map<string, Stored<T>>();
    const selection = { fieldSelector, labelSelector, resourceVersion, signal };
    try {
      const version = await client.list(resource, selection, (raw) => this.#store.collect(raw, objects));
      return [version, objects];
    } catch (error) {
      if (resource.optional === true && hasStatus(error, 404)) return [undefined, objects];
      throw error;
    }
  }

  /** A 404 where there have been objects counts only when it lasts: a starting server says it too. */
  #absent(): void {
    const now = this.#options.clock.monotonic();
    this.#absentSince ??= now;
    const isSure = this.#store.size === 0 || now - this.#absentSince >= this.#absentMs;
    this.#resume = '';
    this.#notOlderThan = '0';
    if (isSure) this.#takeIn(new Map());
    else this.#contact();
  }

  #takeIn(objects: Map<string, Stored<T>>): void {
    this.#contact();
    this.#store.replace(objects);
    if (this.#synced) return;
    this.#synced = true;
    this.#firstSync.resolve();
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const { client, resource, fieldSelector, labelSelector, clock, random } = this.#options;
    const timeoutSeconds = Math.round(WATCH_SECONDS * (1 + 0.5 * random.fraction()));
    const watching = (this.#watching = new AbortController());
    const either = AbortSignal.any([signal, watching.signal]);
    const selection = { fieldSelector, labelSelector, resourceVersion: this.#resume, timeoutSeconds, signal: either };
    let openedAt = Infinity;
    const onOpen = (): void => {
      openedAt = clock.monotonic();
      this.#contact();
    };
    try {
      for await (const event of client.watch(resource, { ...selection, onOpen })) {
        if (watching.signal.aborted) return;
        this.#apply(event);
      }
    } catch (error) {
      // A server without progress notifications sends no bookmark before the first event of a resource. Silence after an answer is
      // no failure then: the next watch finds out whether anybody is there.
      const isQuiet = isSignetError(error, 'timed_out') && openedAt !== Infinity;
      if (!watching.signal.aborted && !isQuiet) throw error;
    } finally {
      if (clock.monotonic() - openedAt >= WORKING_WATCH_MS) this.#backOff.reset();
    }
    if (watching.signal.aborted) return;
    // A server that accepts watches only to end them must not be asked in a tight loop.
    if (clock.monotonic() - openedAt < WORKING_WATCH_MS) await this.#backOff.failed(signal);
  }

  #apply({ type, object }: WatchEvent): void {
    this.#contact();
    if (type === 'DELETED') this.#store.remove(object);
    else if (type !== 'BOOKMARK') this.#store.upsert(object, type === 'ADDED');
    const version = textAt(objectAt(object, 'metadata'), 'resourceVersion');
    if (version === '') return;
    this.#resume = version;
    this.#notOlderThan = version;
  }

  async #recover(error: unknown, signal: AbortSignal): Promise<void> {
    const isListOld = this.#options.clock.monotonic() - this.#listedAt >= WORKING_WATCH_MS;
    // After an outage the version to resume from is often gone: the server is back, and a new list is due now.
    const isListDue = isExpired(error) && this.#resume !== '' && isListOld;
    if (isExpired(error) || isFromTheFuture(error)) {
      // A list that says so itself cannot be served from any cache.
      if (this.#resume === '' || isFromTheFuture(error)) this.#notOlderThan = undefined;
      this.#resume = '';
    }
    if (this.#options.resource.optional === true && hasStatus(error, 404)) this.#resume = '';
    if (isListDue) return;
    this.#fail(messageOf(error));
    await this.#backOff.failed(signal, error instanceof KubernetesError ? error.retryAfterMs : undefined);
  }

  #contact(): void {
    this.#lastContact = this.#options.clock.now();
    if (this.#failure === undefined) return;
    this.#failure = undefined;
    this.#options.log?.info({ event: 'kubernetes.recovered' }, `the API server tells about ${this.#options.resource.name} again`);
  }

  /** Says a reason once, not each time. */
  #fail(reason: string): void {
    if (this.#failure === reason) return;
    this.#failure = reason;
    const { log, resource } = this.#options;
    log?.warn({ event: 'kubernetes.failed', reason, count: this.#store.size }, `cannot follow ${resource.name}: ${reason}`);
  }

  #emit: ChangeListener<T> = (kind, item, before) => {
    for (const listener of [...this.#listeners]) {
      try {
        listener(kind, item, before);
      } catch (error) {
        // One listener's mistake must not cost the others their events, nor end the watch.
        const fields = { event: 'kubernetes.listener_failed', err: messageOf(error) };
        this.#options.log?.error(fields, 'a listener of an informer failed');
      }
    }
  };
}
