import type { Clock } from '../clock.ts';
import { messageOf } from '../errors.ts';
import type { KubernetesClient } from '../kubernetes/api-client.ts';
import { hasStatus, KubernetesError } from '../kubernetes/api-error.ts';
import { BackOff } from '../kubernetes/back-off.ts';
import { nodeUidOf, ownedByNode } from '../kubernetes/node-owner.ts';
import { apiVersionOf, NODE_KEY_SETS, pathOf, type Resource } from '../kubernetes/resources.ts';
import type { Log } from '../log.ts';
import type { Random } from '../random.ts';
import type { JwtAuthority } from '../spiffe/bundle.ts';
import { KeyPropagation } from './key-propagation.ts';
import { keySetName, type PublishedJwtKey } from './key-set.ts';
import { ToldKeys } from './told-keys.ts';

/** The keys of this node, as they are now. */
export interface OwnJwtKeys {
  /**
   * All that are in the bundle, those that sign later among them. A key that was given up before its time ends when it leaves the
   * bundle: so others learn of it.
   */
  keys(): readonly PublishedJwtKey[];
  /** What signs a set; undefined while there is no node CA. */
  signer(): KeySetSigner | undefined;
  /** Calls `listener` whenever either may have changed. Returns the way to stop. */
  onChange(listener: () => void): () => void;
}

export interface KeySetSigner {
  /** The same as long as the node CA is: a set is signed anew with another one. */
  readonly certificate: Buffer;
  /** A compact JWS. @throws Error when the set cannot be signed. */
  sign(set: UnsignedKeySet): string;
}

export interface UnsignedKeySet {
  readonly node: string;
  readonly instance: string;
  /** Milliseconds since the Unix epoch. */
  readonly issuedAt: number;
  readonly keys: readonly PublishedJwtKey[];
}

/** What the cluster is known to hold. */
export interface KnownKeySets {
  jwsOf(name: string): string | undefined;
  wasKnownBefore(kid: string): boolean;
  onObject(listener: (name: string) => void): () => void;
}

export interface JwtKeyPublisherOptions {
  readonly client: Pick<KubernetesClient, 'get' | 'apply'>;
  readonly node: string;
  /** See `instanceOf`. */
  readonly instance: string;
  readonly own: OwnJwtKeys;
  readonly known: KnownKeySets;
  /** Between the write of a key and its first token, default 2,000 ms: what the watches of all nodes take, with room. */
  readonly propagationMs?: number;
  /** A key that cannot be published signs nevertheless after this time, default 10,000 ms. */
  readonly patienceMs?: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log?: Log;
  /** Default `NODE_KEY_SETS`. */
  readonly resource?: Resource;
}

export interface JwtKeyPublisherStatus {
  /** True when the cluster has all keys of this node as they are now. */
  readonly published: boolean;
  /** When it was last written, in milliseconds since the Unix epoch. */
  readonly lastSuccess: number | undefined;
  /** Why it cannot be written. */
  readonly failing?: string;
}

const FIELD_MANAGER = 'signet-node-keys';
const PROPAGATION_MS = 2_000;
const PATIENCE_MS = 10_000;
/** What someone else has changed is set right after this, so that two who disagree do not write without end. */
const REPAIR_MS = 5_000;
/** Where the cluster lacks the CRD or the right, asking often does not help. */
const REFUSED_MS = 60_000;
/** How often to look whether there is something to publish now, in case nobody says so. It costs next to nothing. */
const ABSENT_MS = 1_000;
const LOOK_MS = 60_000;

/**
 * Publishes the public JWT keys of this node as an object of the cluster, before anything is signed with them, and whenever they or
 * the node CA change. Nothing is written at rest.
 */
export class JwtKeyPublisher {
  readonly #options: JwtKeyPublisherOptions;
  readonly #resource: Resource;
  readonly #name: string;
  readonly #stop = new AbortController();
  readonly #backOff: BackOff;
  readonly #stops: readonly (() => void)[];
  readonly #propagation: KeyPropagation;
  readonly #told = new ToldKeys();
  #running: Promise<void> | undefined;
  #wake = Promise.withResolvers<void>();
  /** What was written last. */
  #written: { readonly wanted: string; readonly jws: string } | undefined;
  /** True when the watch has told of the object since it was written. */
  #isObserved = false;
  /** When the object is written anew although its content is what it was; monotonic. */
  #repairAt: number | undefined;
  #owner: string | undefined;
  #lastSuccess: number | undefined;
  #failure: string | undefined;

  /** @throws KubernetesError `invalid_config` where the name of the node leaves no room for that of the object. */
  constructor(options: JwtKeyPublisherOptions) {
    this.#options = options;
    this.#resource = options.resource ?? NODE_KEY_SETS;
    const name = keySetName(options.node, options.instance);
    if (name === undefined) {
      const asked = JSON.stringify(`${options.node}.${options.instance}`);
      throw new KubernetesError('invalid_config', `${asked} is no name for an object: a node's name has at most 240 bytes here`);
    }
    this.#name = name;
    this.#backOff = new BackOff(options.clock, options.random);
    const { clock, known, propagationMs = PROPAGATION_MS, patienceMs = PATIENCE_MS } = options;
    const wasKnownBefore = (kid: string): boolean => known.wasKnownBefore(kid);
    this.#propagation = new KeyPropagation({ clock, propagationMs, patienceMs, wasKnownBefore });
    this.#stops = [
      options.own.onChange(() => this.#changed()),
      options.known.onObject((other) => {
        if (other === name) this.#observed();
      }),
    ];
    this.#noteWanted();
  }

  /** The name of the object. */
  get name(): string {
    return this.#name;
  }

  get status(): JwtKeyPublisherStatus {
    const published = this.#written !== undefined && this.#written.wanted === this.#wanted();
    return { published, lastSuccess: this.#lastSuccess, ...(this.#failure === undefined ? {} : { failing: this.#failure }) };
  }

  /** True when all nodes have had the time to hear of this key. */
  isPublished(kid: string): boolean {
    return this.#propagation.isPublished(kid);
  }

  /**
   * True when a key may sign: it is published, or has waited long enough for that. A token that other nodes cannot verify yet is
   * worth more than none: it is good on this node, and on the others as soon as they hear of the key.
   */
  isReady(kid: string): boolean {
    return this.#propagation.isReady(kid);
  }

  /** Resolves when `isReady(kid)`, at once when it is; also when closed. */
  ready(kid: string): Promise<void> {
    return this.#propagation.ready(kid);
  }

  start(): void {
    this.#running ??= this.#run(this.#stop.signal);
  }

  /** Writes nothing any more. The object stays: the next agent of this node goes on with it. */
  async close(): Promise<void> {
    this.#stop.abort(new KubernetesError('stopped', 'the publisher of JWT keys was closed'));
    for (const stop of this.#stops) stop();
    this.#wake.resolve();
    this.#propagation.close();
    await this.#running;
  }

  #changed(): void {
    this.#noteWanted();
    this.#backOff.nudge();
    this.#wake.resolve();
  }

  #observed(): void {
    this.#isObserved = true;
    this.#wake.resolve();
  }

  #noteWanted(): void {
    this.#propagation.want(new Set(this.#keys().map(({ kid }) => kid)));
  }

  #keys(): readonly PublishedJwtKey[] {
    return this.#told.live(this.#options.own.keys(), this.#options.clock.now());
  }

  #withGivenUp(keys: readonly PublishedJwtKey[]): readonly PublishedJwtKey[] {
    return this.#told.withGivenUp(keys, this.#options.clock.now());
  }

  /** What there is to publish, in text; '' while there is nothing. */
  #wanted(): string {
    const signer = this.#options.own.signer();
    const keys = this.#keys();
    if (signer === undefined || keys.length === 0) return '';
    const ends = this.#withGivenUp(keys).map(({ kid, notAfter }) => `${kid} ${notAfter}`);
    return `${signer.certificate.toString('base64')} ${ends.join()}`;
  }

  async #run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#wake = Promise.withResolvers<void>();
      try {
        const wanted = this.#wanted();
        if (wanted !== '' && wanted !== this.#written?.wanted) await this.#publish(wanted, signal);
        else if (this.#isForeign()) await this.#repair();
        else await this.#rest(wanted === '' ? ABSENT_MS : LOOK_MS);
      } catch (error) {
        if (!signal.aborted) await this.#failed(error, signal).catch(() => undefined);
      }
    }
  }

  /** True when the cluster is known to hold something else than what was written. */
  #isForeign(): boolean {
    const isObserved = this.#isObserved && this.#written !== undefined;
    const isForeign = isObserved && this.#options.known.jwsOf(this.#name) !== this.#written?.jws;
    if (!isForeign) this.#repairAt = undefined;
    return isForeign;
  }

  async #rest(ms: number): Promise<void> {
    const alarm = this.#options.clock.after(ms, () => this.#wake.resolve());
    await this.#wake.promise;
    alarm.cancel();
  }

  /** What the watch tells may be older than what was written: only what it still says later counts. */
  async #repair(): Promise<void> {
    const now = this.#options.clock.monotonic();
    this.#repairAt ??= now + REPAIR_MS;
    if (now < this.#repairAt) return this.#rest(this.#repairAt - now);
    this.#written = undefined;
    // The garbage collector takes away what belongs to a Node that has been made anew.
    this.#owner = undefined;
  }

  async #publish(wanted: string, signal: AbortSignal): Promise<void> {
    const { own, node, instance, client, clock } = this.#options;
    const keys = this.#keys();
    const jws = own.signer()?.sign({ node, instance, issuedAt: clock.now(), keys: this.#withGivenUp(keys) });
    if (jws === undefined) return;
    this.#owner ??= await this.#nodeUid(signal);
    const metadata = ownedByNode(this.#name, node, this.#owner);
    const object = { apiVersion: apiVersionOf(this.#resource), kind: 'NodeKeySet', metadata, spec: { node, instance, jws } };
    this.#isObserved = false;
    // Before the answer: it may be lost on its way.
    this.#told.note(keys);
    await client.apply(pathOf(this.#resource, this.#name), object, { fieldManager: FIELD_MANAGER, force: true, signal });
    this.#written = { wanted, jws };
    this.#repairAt = undefined;
    this.#worked(keys);
  }

  /** With the Node goes the object. Whoever may not read Nodes publishes nevertheless. */
  async #nodeUid(signal: AbortSignal): Promise<string | undefined> {
    try {
      return await nodeUidOf(this.#options.client, this.#options.node, signal);
    } catch (error) {
      if (hasStatus(error, 403)) return undefined;
      throw error;
    }
  }

  #worked(keys: readonly JwtAuthority[]): void {
    const { clock, log } = this.#options;
    this.#propagation.published(keys.map(({ kid }) => kid));
    if (this.#failure !== undefined) log?.info({ event: 'jwt_keys.published' }, 'the JWT keys of this node are published again');
    this.#failure = undefined;
    this.#lastSuccess = clock.now();
    this.#backOff.reset();
  }

  async #failed(error: unknown, signal: AbortSignal): Promise<void> {
    const reason = messageOf(error);
    if (this.#failure !== reason) {
      const effect = 'other nodes cannot verify tokens that are signed with new ones';
      const fields = { event: 'jwt_keys.not_published', reason };
      this.#options.log?.warn(fields, `the JWT keys of this node cannot be published, so that ${effect}: ${reason}`);
    }
    this.#failure = reason;
    if (hasStatus(error, 403, 404, 422)) return this.#backOff.rest(REFUSED_MS, signal);
    await this.#backOff.failed(signal, error instanceof KubernetesError ? error.retryAfterMs : undefined);
  }
}
