import type { Alarm, Clock } from '../clock.ts';
import { messageOf } from '../errors.ts';
import type { ListWatch } from '../kubernetes/api-client.ts';
import { Informer } from '../kubernetes/informer.ts';
import { NODE_KEY_SETS, type Resource } from '../kubernetes/resources.ts';
import type { Log } from '../log.ts';
import type { Random } from '../random.ts';
import type { JwtAuthority } from '../spiffe/bundle.ts';
import type { BundleSource } from '../spiffe/signing.ts';
import type { JwtKeysOfOthers } from './composed-bundle.ts';
import { HeldKeys } from './held-keys.ts';
import { KeyKeeper } from './key-keeper.ts';
import { parseKeys, type KeyMemory } from './key-memory.ts';
import { keySetName, trimKeySet, type KeySet, type KeySetObject, type VerifyKeySet } from './key-set.ts';
import { RefusedSets } from './refused-sets.ts';

export interface ClusterJwtKeysOptions {
  readonly client: ListWatch;
  /** The own bundle without the keys of others: its roots decide whom to believe. */
  readonly own: BundleSource;
  readonly verify: VerifyKeySet;
  /** How long a key is kept that nobody publishes any more: the longest life of a token, default 24 hours. */
  readonly retentionMs?: number;
  readonly memory?: KeyMemory;
  readonly clock: Clock;
  readonly random: Random;
  readonly log?: Log;
  /** Default `NODE_KEY_SETS`. */
  readonly resource?: Resource;
}

/** For metrics and readiness. */
export interface ClusterJwtKeysStatus {
  /** False until the API server has told all sets once. */
  readonly synced: boolean;
  /** Objects that are believed, and those that are not. */
  readonly sets: number;
  readonly refused: number;
  /** Keys of other nodes, and of these those that nobody publishes any more. */
  readonly keys: number;
  readonly vanished: number;
  /** Why the API server cannot be followed. */
  readonly failing?: string;
}

interface Believed {
  readonly object: KeySetObject;
  readonly set: KeySet;
}

const RETENTION_MS = 24 * 3_600_000;
/** Objects that are looked at; ten agents for each of 200 nodes. */
const MOST_OBJECTS = 2_048;
/** Several changes within this time are one. */
const BATCH_MS = 100;
/** What is refused may come to be believed by the clock alone. */
const AGAIN_MS = 300_000;

/**
 * The JWT keys that all agents of the trust domain publish as objects of the cluster. A set that no node CA under a root of the own
 * bundle has signed is as if it were not there.
 */
export class ClusterJwtKeys implements JwtKeysOfOthers {
  readonly #options: ClusterJwtKeysOptions;
  readonly #informer: Informer<KeySetObject>;
  readonly #held: HeldKeys;
  readonly #believed = new Map<string, Believed>();
  readonly #refused = new Set<string>();
  readonly #refusals: RefusedSets;
  readonly #keeper: KeyKeeper;
  readonly #dirty = new Set<string>();
  readonly #listeners = new Set<() => void>();
  readonly #objectListeners = new Set<(name: string) => void>();
  readonly #kidsBefore: ReadonlySet<string>;
  readonly #known = Promise.withResolvers<void>();
  readonly #stops: readonly (() => void)[];
  #keys: readonly JwtAuthority[] = [];
  #isClosed = false;
  #work: Promise<void> | undefined;
  #workedAt = -Infinity;
  #batch: Alarm | undefined;
  #next: Alarm | undefined;
  #again: Alarm | undefined;

  constructor(options: ClusterJwtKeysOptions) {
    this.#options = options;
    const { client, clock, random, log, own, resource = NODE_KEY_SETS } = options;
    this.#held = new HeldKeys(options.retentionMs ?? RETENTION_MS);
    this.#refusals = new RefusedSets(clock, log);
    this.#keeper = new KeyKeeper(options.memory, () => this.#held.keys(), clock, log);
    const kept = parseKeys(options.memory?.read());
    this.#held.restore(kept);
    this.#kidsBefore = new Set(kept.map(({ key }) => key.kid));
    const tools = { clock, random, ...(log === undefined ? {} : { log }) };
    this.#informer = new Informer<KeySetObject>({ client, resource, trim: trimKeySet, ...tools });
    this.#stops = [
      this.#informer.onChange((_kind, { name }) => this.#mark(name)),
      own.onChange(() => this.#lookAgain()),
      clock.onStep(() => this.#lookAgain()),
    ];
    this.#informer.whenSynced().then(() => this.#soon(), () => this.#known.resolve());
    this.#settle();
    if (kept.length > 0) this.#known.resolve();
  }

  /** Those of this node among them; by `kid`. The same array as long as nothing changes. */
  keys(): readonly JwtAuthority[] {
    return this.#keys;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** True when a set with this key was known before this process began: everybody has had the time to hear of it. */
  wasKnownBefore(kid: string): boolean {
    return this.#kidsBefore.has(kid);
  }

  /** What the object `name` holds as far as it is known; undefined where there is none. */
  jwsOf(name: string): string | undefined {
    return this.#informer.get(name)?.jws;
  }

  /** Calls `listener` with the name of each object that has come, changed or gone. Returns the way to stop. */
  onObject(listener: (name: string) => void): () => void {
    this.#objectListeners.add(listener);
    return () => void this.#objectListeners.delete(listener);
  }

  /** Resolves when the keys of others are known: from the API server, or from before a restart. Also when closed. */
  whenKnown(): Promise<void> {
    return this.#known.promise;
  }

  get status(): ClusterJwtKeysStatus {
    const { synced, failure } = this.#informer;
    const { size: keys, vanished } = this.#held;
    const failing = failure === undefined ? {} : { failing: failure };
    return { synced, sets: this.#believed.size, refused: this.#refused.size, keys, vanished, ...failing };
  }

  start(): void {
    this.#informer.start();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const stop of this.#stops) stop();
    for (const alarm of [this.#batch, this.#next, this.#again]) alarm?.cancel();
    await Promise.all([this.#informer.close(), this.#work]);
    await this.#keeper.close();
  }

  #mark(name: string): void {
    for (const listener of [...this.#objectListeners]) listener(name);
    this.#dirty.add(name);
    this.#soon();
  }

  /** Everything that is not believed, and what was believed by a root that is gone. */
  #lookAgain(): void {
    for (const name of this.#refused) this.#dirty.add(name);
    for (const [name, { set }] of this.#believed) if (!this.#isGood(set)) this.#dirty.add(name);
    this.#soon();
  }

  #isGood({ root, chainNotAfter }: KeySet): boolean {
    return this.#options.clock.now() < chainNotAfter && this.#roots.some((one) => one.equals(root));
  }

  get #roots(): readonly Buffer[] {
    return this.#options.own.current().x509Authorities;
  }

  /** At once after a quiet time; else what comes meanwhile is looked at together. */
  #soon(): void {
    if (this.#isClosed || this.#work !== undefined || this.#batch !== undefined) return;
    const { clock } = this.#options;
    const waitMs = Math.max(this.#workedAt + BATCH_MS - clock.monotonic(), 0);
    const begin = (): void => {
      this.#batch = undefined;
      this.#work = this.#lookAtAll().finally(() => this.#worked());
    };
    if (waitMs === 0) begin();
    else this.#batch = clock.after(waitMs, begin);
  }

  #worked(): void {
    this.#work = undefined;
    this.#workedAt = this.#options.clock.monotonic();
    if (this.#dirty.size > 0) this.#soon();
  }

  get #isComplete(): boolean {
    return this.#informer.synced && this.#dirty.size === 0;
  }

  /** Other work gets its turn after each set: the first list may bring hundreds. */
  async #lookAtAll(): Promise<void> {
    await nextTurn();
    const names = [...this.#dirty];
    this.#dirty.clear();
    for (const name of names) {
      if (this.#isClosed) return;
      if (this.#lookAt(name)) await nextTurn();
    }
    if (this.#isClosed) return;
    if (this.#isComplete) this.#held.endMemory(this.#options.clock.now());
    this.#settle();
    if (this.#isComplete) this.#known.resolve();
  }

  /** True when it was dear. */
  #lookAt(name: string): boolean {
    const object = this.#informer.get(name);
    const before = this.#believed.get(name);
    if (object === undefined) {
      this.#drop(name);
      return false;
    }
    if (before !== undefined && before.object.jws === object.jws && this.#isGood(before.set)) return false;
    try {
      this.#believe(object, this.#verify(object));
    } catch (error) {
      this.#refuse(object, messageOf(error));
    }
    return true;
  }

  #verify({ name, jws }: KeySetObject): KeySet {
    const { own, verify, clock } = this.#options;
    const isKnown = this.#believed.has(name) || this.#refused.has(name);
    const isFull = this.#believed.size + this.#refused.size >= MOST_OBJECTS;
    if (isFull && !isKnown) throw new Error(`there are more than ${MOST_OBJECTS} key sets`);
    if (jws === undefined) throw new Error('it holds no text, or a text that is too large');
    const { x509Authorities: roots, trustDomain } = own.current();
    const set = verify(jws, { roots, trustDomain }, clock.now());
    if (keySetName(set.node, set.instance) === name) return set;
    throw new Error(`it is that of ${JSON.stringify(`${set.node}.${set.instance}`)}`);
  }

  #believe(object: KeySetObject, set: KeySet): void {
    this.#refused.delete(object.name);
    this.#believed.set(object.name, { object, set });
    const surplus = this.#held.hold(object.name, set, this.#options.clock.now());
    if (surplus > 0) this.#refusals.tell(object.name, `there is no room for ${surplus} of its keys: its node has too many, or all have`);
  }

  /** Its keys are kept for a while: tokens that were signed with them when it was believed may still be about. */
  #refuse(object: KeySetObject, reason: string): void {
    this.#drop(object.name);
    if (this.#refused.size < MOST_OBJECTS) this.#refused.add(object.name);
    this.#again ??= this.#options.clock.after(AGAIN_MS, () => {
      this.#again = undefined;
      this.#lookAgain();
    });
    this.#refusals.tell(object.name, reason);
  }

  #drop(name: string): void {
    this.#refused.delete(name);
    if (this.#believed.delete(name)) this.#held.letGo(name, this.#options.clock.now());
  }

  /** Makes what is held what is told. */
  #settle(): void {
    const { clock } = this.#options;
    this.#held.prune(this.#roots, clock.now());
    this.#next?.cancel();
    const ends = [...this.#believed.values()].map(({ set }) => set.chainNotAfter);
    const next = Math.min(this.#held.nextEnd(), ...ends);
    this.#next = next === Infinity ? undefined : clock.at(next, () => this.#lookAgain());
    this.#keeper.changed();
    const keys = this.#held.keys().map(({ key }) => key);
    const isSame = keys.length === this.#keys.length && keys.every(({ kid }, index) => kid === this.#keys[index]?.kid);
    if (isSame) return;
    this.#keys = keys;
    for (const listener of [...this.#listeners]) listener();
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
