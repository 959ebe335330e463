import { sleep, type Clock } from '../../clock.ts';
import { SignetError, messageOf } from '../../errors.ts';
import type { KubernetesClient } from '../../kubernetes/api-client.ts';
import { KubernetesError, hasStatus } from '../../kubernetes/api-error.ts';
import { BackOff } from '../../kubernetes/back-off.ts';
import { LeaseElection } from '../../kubernetes/lease.ts';
import type { Log } from '../../log.ts';
import type { Random } from '../../random.ts';
import { ClusterTrustBundlePlace } from './cluster-trust-bundle.ts';
import { ConfigMapPlace } from './config-map.ts';
import { union, type PublicBundle } from './documents.ts';
import { OwnKnowledge, type OwnBundle } from './own-bundle.ts';
import type { Place } from './place.ts';

export interface BundlePublisherOptions {
  readonly client: Pick<KubernetesClient, 'get' | 'create' | 'apply'>;
  readonly bundle: OwnBundle;
  /** Of this process among all agents: the UID of its pod. */
  readonly identity: string;
  /** Of the agents: where their Lease is. */
  readonly namespace: string;
  /** Where the bundle goes as a ConfigMap; absent: nowhere. */
  readonly configMap?: ConfigMapTarget | undefined;
  /** Whether the roots go to a ClusterTrustBundle too, where the cluster has that kind. Default false. */
  readonly clusterTrustBundle?: boolean;
  /** In the SPIFFE bundle: how often a reader should look, default 300 s. */
  readonly refreshHintSeconds?: number;
  /** Default `signet-bundle`. */
  readonly leaseName?: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log?: Log | undefined;
}

export interface ConfigMapTarget {
  /** Default: that of the agents. */
  readonly namespace?: string | undefined;
  /** Default `signet-bundle`. */
  readonly name?: string | undefined;
  /** Key of the X.509 roots in PEM, default `bundle.pem`. */
  readonly pemKey?: string | undefined;
  /** Key of the SPIFFE bundle, default `bundle.spiffe`. */
  readonly spiffeKey?: string | undefined;
}

export const BUNDLE_LEASE = 'signet-bundle';
const CONFIG_MAP = 'signet-bundle';
const REFRESH_HINT_S = 300;
/** Many changes in a moment are one write. */
const QUIET_MS = 1_000;
/** How often a place is read without a change, in case somebody has removed or changed it; moved by up to a quarter. */
const VERIFY_MS = 600_000;
const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 60_000;

/**
 * Publishes the trust bundle of the own trust domain in the cluster, for those who have no Workload API at hand. One agent does
 * it, by Lease. It writes only what differs from what is there, so that a restart writes nothing, and never a bundle without a
 * root.
 */
export class BundlePublisher {
  readonly #options: BundlePublisherOptions;
  readonly #places: readonly Place[];
  readonly #election: LeaseElection;
  readonly #known: OwnKnowledge;
  readonly #stop: () => void;
  readonly #pauses = new Set<BackOff>();
  readonly #failures = new Map<Place, string>();
  /** Counts the changes of the own bundle. */
  #changes = 0;

  constructor(options: BundlePublisherOptions) {
    this.#options = options;
    const { client, bundle, namespace, identity, clock, random, log, leaseName = BUNDLE_LEASE } = options;
    this.#places = placesOf(options);
    this.#known = new OwnKnowledge(bundle.own(), clock);
    this.#stop = bundle.onChange(() => this.#changed());
    const hold = (signal: AbortSignal): Promise<void> => this.#hold(signal);
    this.#election = new LeaseElection({ client, namespace, name: leaseName, identity, hold, clock, random, log });
  }

  get isHolder(): boolean {
    return this.#election.isHolder;
  }

  /** What keeps this agent from publishing, by place; empty for one that does not hold the Lease. */
  get failures(): ReadonlyMap<string, string> {
    return new Map([...this.#failures].map(([{ name }, reason]) => [name, reason]));
  }

  start(): void {
    if (this.#places.length > 0) this.#election.start();
  }

  /** Gives the Lease back. What was published stays. */
  async close(): Promise<void> {
    this.#stop();
    await this.#election.close();
  }

  #changed(): void {
    this.#known.learn(this.#options.bundle.own());
    this.#changes += 1;
    for (const pause of this.#pauses) pause.nudge();
  }

  async #hold(signal: AbortSignal): Promise<void> {
    const since = this.#options.clock.monotonic();
    try {
      await Promise.all(this.#places.map((place) => this.#follow(place, since, signal)));
    } finally {
      this.#failures.clear();
    }
  }

  /** Keeps one place right until `signal` aborts. */
  async #follow(place: Place, since: number, signal: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    const pause = new BackOff(clock, random);
    this.#pauses.add(pause);
    try {
      for (let failed = 0; ; ) {
        const changes = this.#changes;
        const { waitMs, isDone } = await this.#attempt(place, since, failed, signal);
        failed = isDone ? 0 : failed + 1;
        if (changes === this.#changes) await pause.rest(waitMs, signal);
        if (changes !== this.#changes) await sleep(clock, QUIET_MS, signal);
      }
    } finally {
      this.#pauses.delete(pause);
    }
  }

  async #attempt(place: Place, since: number, failed: number, signal: AbortSignal): Promise<{ waitMs: number; isDone: boolean }> {
    const { random } = this.#options;
    try {
      const waitMs = await this.#bring(place, since, signal);
      this.#works(place);
      return { waitMs, isDone: true };
    } catch (error) {
      signal.throwIfAborted();
      this.#fails(place, error);
      const askedMs = error instanceof KubernetesError ? (error.retryAfterMs ?? 0) : 0;
      const fullMs = Math.min(FIRST_RETRY_MS * 2 ** Math.min(failed, 10), LONGEST_RETRY_MS);
      return { waitMs: Math.max(fullMs * (0.5 + 0.5 * random.fraction()), Math.min(askedMs, LONGEST_RETRY_MS)), isDone: false };
    }
  }

  /** Makes one place say what it should. Resolves with how long that is known to be enough. */
  async #bring(place: Place, since: number, signal: AbortSignal): Promise<number> {
    const { clock, random, bundle } = this.#options;
    if (this.#known.bundle.roots.length === 0) {
      const problem = `the bundle of ${bundle.own().trustDomain} has no root yet, and an empty one is not published`;
      throw new SignetError('authority_unavailable', problem);
    }
    const until = await this.#write(place, since, signal).catch((error: unknown) => {
      // Somebody has written in between: what is right now depends on what.
      if (hasStatus(error, 409)) return this.#write(place, since, signal);
      throw error;
    });
    const idleMs = VERIFY_MS * (0.75 + 0.5 * random.fraction());
    return until === undefined ? idleMs : Math.min(idleMs, Math.max(until - clock.monotonic(), 0));
  }

  async #write(place: Place, since: number, signal: AbortSignal): Promise<number | undefined> {
    const standing = await place.read(signal);
    if (standing === undefined) return undefined;
    const { kept, until } = this.#known.keep(standing.published, since);
    const wanted = union(this.#known.bundle, kept);
    if (standing.says(wanted)) return until;
    await standing.replace(wanted, signal);
    this.#tell(place, wanted, kept);
    return until;
  }

  #tell(place: Place, { roots, jwtKeys }: PublicBundle, kept: PublicBundle): void {
    const { log, bundle } = this.#options;
    const { trustDomain } = bundle.own();
    const count = roots.length + jwtKeys.length;
    const fields = { event: 'bundle.published', path: place.name, trust_domain: trustDomain, count };
    const foreign = kept.roots.length + kept.jwtKeys.length;
    const more = foreign === 0 ? '' : `; ${foreign} of them published before, unknown to this agent and kept for a while`;
    log?.info(fields, `the trust bundle was published: ${roots.length} X.509 roots, ${jwtKeys.length} JWT keys${more}`);
  }

  #works(place: Place): void {
    if (!this.#failures.delete(place)) return;
    this.#options.log?.info({ event: 'bundle.publish_recovered', path: place.name }, 'the published trust bundle is right again');
  }

  /** Says a reason once, not each time. */
  #fails(place: Place, error: unknown): void {
    const reason = messageOf(error);
    if (this.#failures.get(place) === reason) return;
    this.#failures.set(place, reason);
    const fields = { event: 'bundle.publish_failed', path: place.name, reason };
    this.#options.log?.warn(fields, `the trust bundle cannot be published: ${reason}`);
  }
}

function placesOf(options: BundlePublisherOptions): Place[] {
  const { client, bundle, namespace, configMap, clusterTrustBundle = false, clock } = options;
  const { refreshHintSeconds = REFRESH_HINT_S } = options;
  const { trustDomain } = bundle.own();
  const places: Place[] = [];
  if (configMap !== undefined) {
    const { name = CONFIG_MAP, pemKey = 'bundle.pem', spiffeKey = 'bundle.spiffe' } = configMap;
    const at = { namespace: configMap.namespace ?? namespace, name, pemKey, spiffeKey };
    places.push(new ConfigMapPlace({ client, trustDomain, refreshHintSeconds, ...at }));
  }
  if (clusterTrustBundle) places.push(new ClusterTrustBundlePlace({ client, trustDomain, clock }));
  return places;
}
