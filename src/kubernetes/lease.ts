import { sleep, type Clock } from '../clock.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Random } from '../random.ts';
import type { KubernetesClient } from './api-client.ts';
import { KubernetesError, hasStatus } from './api-error.ts';
import { BackOff } from './back-off.ts';
import type { JsonObject } from './json.ts';
import { Deadline, type Moment } from './lease-deadline.ts';
import { microTime, seenOf, type Seen } from './lease-record.ts';
import { LEASES, apiVersionOf, namespacedPathOf } from './resources.ts';

export interface LeaseElectionOptions {
  readonly client: Pick<KubernetesClient, 'get' | 'create' | 'apply'>;
  readonly namespace: string;
  readonly name: string;
  /** Of this process among all candidates, for example the UID of its pod. One that runs again under it may go on at once. */
  readonly identity: string;
  /** The work of the holder. Its signal aborts when the Lease is lost or given up; it must end soon after that. */
  readonly hold: (signal: AbortSignal) => Promise<void>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log?: Log | undefined;
  /** After which others may take a Lease that is not renewed, default 120,000 ms. The holder stops after two thirds of it. */
  readonly durationMs?: number;
  /** How often the others look, default 300,000 ms, moved by up to half. Sooner in the first minutes. */
  readonly pollMs?: number;
}

const FIELD_MANAGER = 'signet-lease';
const DURATION_MS = 120_000;
const POLL_MS = 300_000;
const FIRST_POLL_MS = 15_000;
const RELEASE_MS = 2_000;

/**
 * One holder among many processes, by a Lease object (coordination.k8s.io/v1). Nobody compares its clock with another's: a Lease
 * counts as given up when a candidate has seen the same record for its whole duration by its own monotonic clock, and the holder
 * stops on its own after two thirds of it, by whichever of monotonic and wall time is further. Two may still hold for a moment
 * when a request is held up on its way, so the work of a holder must be harmless when it is done twice.
 */
export class LeaseElection {
  readonly #options: LeaseElectionOptions;
  readonly #path: string;
  readonly #durationMs: number;
  readonly #pollMs: number;
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;
  #isHolder = false;
  #watched: { readonly key: string; readonly since: number } | undefined;
  #nextPollMs = FIRST_POLL_MS;
  #failure: string | undefined;

  constructor(options: LeaseElectionOptions) {
    this.#options = options;
    this.#path = namespacedPathOf(LEASES, options.namespace, options.name);
    this.#durationMs = options.durationMs ?? DURATION_MS;
    this.#pollMs = options.pollMs ?? POLL_MS;
  }

  get isHolder(): boolean {
    return this.#isHolder;
  }

  start(): void {
    this.#running ??= this.#run(this.#stop.signal).catch(() => undefined);
  }

  /** Ends the work if it is ours, then gives the Lease back, within about 2 s. */
  async close(): Promise<void> {
    this.#stop.abort(new KubernetesError('stopped', `the election ${this.#options.name} was closed`));
    await this.#running;
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    // The agents of a cluster start together.
    await sleep(clock, FIRST_POLL_MS * random.fraction(), signal);
    for (;;) {
      const startedAt = { monotonic: clock.monotonic(), wall: clock.now() };
      const waitMs = await this.#campaign(startedAt, signal);
      await sleep(clock, waitMs, signal);
    }
  }

  /** Looks, takes the Lease if it is free, and does the work for as long as it is ours. Resolves with how long to wait then. */
  async #campaign(startedAt: Moment, signal: AbortSignal): Promise<number> {
    try {
      const seen = await this.#read(signal);
      if (seen !== undefined && !this.#isFree(seen, startedAt.monotonic)) return this.#untilNextPoll(seen);
      const held = seen === undefined ? await this.#create(signal) : await this.#write(seen, signal);
      this.#works();
      await this.#reign(held, startedAt, signal);
    } catch (error) {
      signal.throwIfAborted();
      // A conflict is a race that another one has won.
      if (!hasStatus(error, 409)) this.#fails(error);
      const askedMs = error instanceof KubernetesError ? (error.retryAfterMs ?? 0) : 0;
      return Math.max(this.#untilNextPoll(undefined), Math.min(askedMs, this.#pollMs));
    }
    return this.#untilNextPoll(undefined);
  }

  async #read(signal: AbortSignal): Promise<Seen | undefined> {
    try {
      const seen = seenOf(await this.#options.client.get(this.#path, { signal }));
      this.#works();
      return seen;
    } catch (error) {
      if (hasStatus(error, 404)) return undefined;
      throw error;
    }
  }

  #isFree(seen: Seen, askedAt: number): boolean {
    if (seen.holder === '' || seen.holder === this.#options.identity) return true;
    if (this.#watched?.key === seen.key) return askedAt - this.#watched.since >= seen.durationMs;
    this.#watched = { key: seen.key, since: this.#options.clock.monotonic() };
    return false;
  }

  /** A record that looks old is looked at again when it could be known to be. */
  #untilNextPoll(seen: Seen | undefined): number {
    const { clock, random } = this.#options;
    const baseMs = this.#nextPollMs;
    this.#nextPollMs = Math.min(2 * baseMs, this.#pollMs);
    const waitMs = baseMs * (0.5 + random.fraction());
    const looksOld = seen?.renewedAt !== undefined && clock.now() - seen.renewedAt > seen.durationMs;
    return looksOld ? Math.min(waitMs, seen.durationMs * (1 + 0.1 * random.fraction())) : waitMs;
  }

  async #create(signal: AbortSignal): Promise<Seen> {
    const { client, namespace } = this.#options;
    return seenOf(await client.create(namespacedPathOf(LEASES, namespace), this.#object(undefined), { signal }));
  }

  /** Takes or renews. @throws KubernetesError 409 when the Lease is not any more what was seen. */
  async #write(seen: Seen, signal: AbortSignal): Promise<Seen> {
    const options = { fieldManager: FIELD_MANAGER, force: true, signal };
    return seenOf(await this.#options.client.apply(this.#path, this.#object(seen), options));
  }

  #object(seen: Seen | undefined): JsonObject {
    const { clock, identity } = this.#options;
    const now = microTime(clock.now());
    const isOurs = seen?.holder === identity;
    return this.#withSpec(seen, {
      holderIdentity: identity,
      leaseDurationSeconds: Math.max(1, Math.round(this.#durationMs / 1_000)),
      acquireTime: isOurs && seen.acquireTime !== '' ? seen.acquireTime : now,
      renewTime: now,
      leaseTransitions: (seen?.transitions ?? 0) + (isOurs || seen === undefined ? 0 : 1),
    });
  }

  /** With the version that was seen, so that of two writers one is refused. */
  #withSpec(seen: Seen | undefined, spec: JsonObject): JsonObject {
    const version = seen === undefined ? {} : { uid: seen.uid, resourceVersion: seen.resourceVersion };
    return { apiVersion: apiVersionOf(LEASES), kind: 'Lease', metadata: { name: this.#options.name, ...version }, spec };
  }

  async #reign(held: Seen, startedAt: Moment, signal: AbortSignal): Promise<void> {
    const { clock, hold, log, name } = this.#options;
    const deadline = new Deadline(clock, (2 / 3) * this.#durationMs, `the Lease ${name} could not be renewed in time`);
    const ended = new AbortController();
    const term = AbortSignal.any([signal, deadline.signal, ended.signal]);
    const tenure: Tenure = { held };
    deadline.extend(startedAt);
    this.#isHolder = true;
    log?.info({ event: 'lease.acquired' }, `this agent holds the Lease ${name}`);
    const work = Promise.resolve(hold(term)).catch((error: unknown) => this.#stopped(term, error));
    try {
      await Promise.race([work, this.#renew(tenure, deadline, term)]);
    } finally {
      deadline.cancel();
      ended.abort(new KubernetesError('stopped', `the Lease ${name} is held no more`));
      this.#isHolder = false;
      await work;
    }
    this.#nextPollMs = FIRST_POLL_MS;
    log?.info({ event: 'lease.ended', reason: messageOf(term.reason) }, `this agent no longer holds the Lease ${name}`);
    if (!deadline.signal.aborted && !tenure.isLost) await this.#release(tenure.held);
  }

  /** Ends when the Lease is lost or `term` is over. */
  async #renew(tenure: Tenure, deadline: Deadline, term: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    const backOff = new BackOff(clock, random);
    let waitMs = this.#renewMs();
    while (!term.aborted) {
      try {
        await sleep(clock, waitMs, term);
        const startedAt = { monotonic: clock.monotonic(), wall: clock.now() };
        tenure.held = await this.#write(tenure.held, term);
        deadline.extend(startedAt);
        this.#works();
        backOff.reset();
        waitMs = this.#renewMs();
      } catch (error) {
        if (term.aborted) return;
        waitMs = 0;
        if (hasStatus(error, 409, 422) && (await this.#isTaken(tenure, term))) return;
        this.#fails(error);
        await backOff.failed(term, error instanceof KubernetesError ? error.retryAfterMs : undefined).catch(() => undefined);
      }
    }
  }

  /** After a conflict: whose is it now? Something else than an election may have touched the object, too. */
  async #isTaken(tenure: Tenure, term: AbortSignal): Promise<boolean> {
    const seen = await this.#read(term).catch(() => tenure.held);
    if (seen?.holder !== this.#options.identity) tenure.isLost = true;
    else tenure.held = seen;
    return tenure.isLost === true;
  }

  async #release(held: Seen): Promise<void> {
    const { client, clock } = this.#options;
    const limit = new AbortController();
    const late = new KubernetesError('timed_out', 'the Lease was not given back in time');
    const alarm = clock.after(RELEASE_MS, () => limit.abort(late));
    const now = microTime(clock.now());
    const spec = { leaseDurationSeconds: 1, acquireTime: now, renewTime: now, leaseTransitions: held.transitions };
    const options = { fieldManager: FIELD_MANAGER, force: true, signal: limit.signal };
    await client.apply(this.#path, this.#withSpec(held, spec), options).catch((error: unknown) => this.#fails(error));
    alarm.cancel();
  }

  #renewMs(): number {
    return (this.#durationMs / 3) * (0.9 + 0.2 * this.#options.random.fraction());
  }

  #stopped(term: AbortSignal, error: unknown): void {
    if (!term.aborted) this.#fails(error);
  }

  #works(): void {
    this.#failure = undefined;
  }

  /** Says a reason once, not each time. */
  #fails(error: unknown): void {
    const reason = messageOf(error);
    if (this.#failure === reason) return;
    this.#failure = reason;
    this.#options.log?.warn({ event: 'lease.failed', reason }, `cannot take part in the Lease ${this.#options.name}: ${reason}`);
  }
}

interface Tenure {
  held: Seen;
  isLost?: boolean;
}
