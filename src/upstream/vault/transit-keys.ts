import type { KeyObject } from 'node:crypto';
import type { Alarm, Clock } from '../../clock.ts';
import { isSignetError, messageOf, SignetError } from '../../errors.ts';
import type { EventBus } from '../../events.ts';
import type { Log } from '../../log.ts';
import type { Random } from '../../random.ts';
import type { JwtAuthority } from '../../spiffe/bundle.ts';
import { unlessAborted } from '../wire/abort.ts';
import type { VaultClient } from './client.ts';
import { pathOf } from './path.ts';
import { endOfTokens, followVersions, readTransitKey, signingVersion, type KnownVersion } from './transit-versions.ts';

export interface TransitKeysOptions {
  /** `transit` */
  readonly mount: string;
  readonly key: string;
  /** Longest life of a token on any node, in milliseconds: so long after its last signature a public key stays. */
  readonly longestTtlMs: number;
  /** How often the versions are looked at, in milliseconds. Default 30 s. A new one signs after twice that. */
  readonly pollMs?: number;
}

/** Keeps the public keys over a restart. Rejections are told and have no other effect. */
export interface VersionStore {
  load(): Promise<readonly KnownVersion[]>;
  save(versions: readonly KnownVersion[]): Promise<void>;
}

export interface TransitKeysTools {
  readonly client: Pick<VaultClient, 'request' | 'onReturn'>;
  /** RFC 7638. */
  readonly jwtAuthority: (publicKey: KeyObject) => JwtAuthority;
  readonly store?: VersionStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly events: EventBus;
  readonly log: Log;
}

const POLL_MS = 30_000;
/** Part of each wait that is random, so that nodes do not come together. */
const JITTER = 1 / 5;
const PURPOSE = 'transit-key';
/** A key that cannot be used is told under a name of its own, since Vault itself answers. */
const KEY = 'vault-transit-key';

/** Follows the versions of a transit key. Only public keys come here. */
export class TransitKeys {
  readonly #options: TransitKeysOptions;
  readonly #tools: TransitKeysTools;
  readonly #pollMs: number;
  readonly #name: string;
  readonly #listeners = new Set<() => void>();
  readonly #warned = new Set<string>();
  readonly #closing = new AbortController();
  readonly #stops: readonly (() => void)[];
  #known: readonly KnownVersion[];
  #authorities: readonly JwtAuthority[] = [];
  #lowest = 0;
  #hasLooked = false;
  #problem: string | undefined;
  #looking: Promise<void> | undefined;
  #writing: Promise<void> = Promise.resolve();
  #alarms: readonly Alarm[] = [];

  private constructor(options: TransitKeysOptions, tools: TransitKeysTools, known: readonly KnownVersion[]) {
    this.#options = options;
    this.#tools = tools;
    this.#pollMs = options.pollMs ?? POLL_MS;
    this.#name = `${options.mount}/keys/${options.key}`;
    this.#known = known;
    this.#stops = [tools.client.onReturn(() => void this.lookQuietly()), tools.clock.onStep(() => this.#settle())];
    this.#settle();
  }

  /** Takes over what was kept and begins to look. Vault may be away. */
  static async open(options: TransitKeysOptions, tools: TransitKeysTools): Promise<TransitKeys> {
    let known: readonly KnownVersion[] = [];
    try {
      known = (await tools.store?.load()) ?? [];
    } catch (error) {
      tools.log.warn({ event: 'upstream.warning', reason: messageOf(error) }, 'the kept public keys of the transit key cannot be read');
    }
    const keys = new TransitKeys(options, tools, known);
    void keys.lookQuietly();
    return keys;
  }

  /** Every key that a live token can be signed with, the oldest first. */
  authorities(): readonly JwtAuthority[] {
    return this.#authorities;
  }

  /** Calls `listener` when `authorities` has changed. Returns the way to stop. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** What is wrong with the key itself. */
  problem(): string | undefined {
    return this.#problem;
  }

  /**
   * What to sign with now.
   *
   * @throws what looking has failed with; `authority_unavailable` when no version may sign; the signal's reason.
   */
  async signing(signal: AbortSignal): Promise<KnownVersion> {
    if (!this.#hasLooked && this.#known.length === 0) await this.look(signal);
    const found = signingVersion(this.#known, this.#lowest, 2 * this.#pollMs, this.#tools.clock.now());
    if (found !== undefined) return found;
    throw new SignetError('authority_unavailable', `no version of the transit key ${this.#name} may sign: min_encryption_version is ${this.#lowest}`);
  }

  /** Looks now, one look at a time, and plans the next one. */
  look(signal?: AbortSignal): Promise<void> {
    this.#looking ??= this.#lookOnce().finally(() => {
      this.#looking = undefined;
      this.#plan();
    });
    return signal === undefined ? this.#looking : unlessAborted(this.#looking, signal);
  }

  /** The client tells what has failed. */
  async lookQuietly(): Promise<void> {
    await this.look().catch(() => undefined);
  }

  /** Resolves when nothing is asked or written any more. */
  async close(): Promise<void> {
    this.#closing.abort(new SignetError('stopped', 'the agent stops'));
    for (const stop of this.#stops) stop();
    for (const alarm of this.#alarms) alarm.cancel();
    this.#listeners.clear();
    await this.#looking?.catch(() => undefined);
    await this.#writing;
  }

  async #lookOnce(): Promise<void> {
    const { client, clock, events, jwtAuthority } = this.#tools;
    const began = clock.monotonic();
    const { signal } = this.#closing;
    signal.throwIfAborted();
    const { data } = await client.request('GET', pathOf(this.#options.mount, 'keys', this.#options.key), { signal, purpose: PURPOSE });
    signal.throwIfAborted();
    try {
      const told = readTransitKey(data, this.#name);
      for (const warning of told.warnings) this.#warnOnce(warning);
      this.#lowest = told.lowest;
      this.#hasLooked = true;
      this.#change(followVersions(this.#known, told.versions, jwtAuthority, clock.now()));
      if (this.#problem !== undefined) events.publish('upstreamAnswered', { upstream: KEY, durationMs: clock.monotonic() - began });
      this.#problem = undefined;
    } catch (error) {
      if (isSignetError(error)) this.#tell(error.message);
      throw error;
    }
  }

  #change(known: readonly KnownVersion[]): void {
    const before = JSON.stringify(this.#known.map(kept));
    this.#known = known;
    this.#settle();
    if (JSON.stringify(this.#known.map(kept)) !== before) this.#save();
  }

  /** Leaves out what no live token can be signed with, and publishes the rest. */
  #settle(): void {
    const { longestTtlMs } = this.#options;
    const now = this.#tools.clock.now();
    const isLive = (one: KnownVersion): boolean => now < endOfTokens(one, this.#known, longestTtlMs, 2 * this.#pollMs);
    // What Vault still names comes back at each look: it is kept, but not published.
    this.#known = this.#known.filter((one) => one.goneAt === undefined || isLive(one));
    const authorities = this.#known.filter(isLive).map(({ authority }) => authority);
    const isSame = authorities.length === this.#authorities.length && authorities.every(({ kid }, index) => kid === this.#authorities[index]?.kid);
    if (isSame) return;
    this.#authorities = authorities;
    for (const listener of [...this.#listeners]) listener();
  }

  #save(): void {
    const { store, log } = this.#tools;
    if (store === undefined) return;
    const versions = this.#known;
    this.#writing = this.#writing.then(() => store.save(versions)).catch((error: unknown) => {
      log.warn({ event: 'upstream.warning', reason: messageOf(error) }, 'the public keys of the transit key cannot be kept; after a restart those that Vault has trimmed will be missing');
    });
  }

  #tell(problem: string): void {
    if (problem === this.#problem) return;
    this.#problem = problem;
    this.#tools.events.publish('upstreamFailed', { upstream: KEY, error: problem, retryMs: this.#pollMs });
  }

  #warnOnce(warning: string): void {
    if (this.#warned.has(warning)) return;
    this.#warned.add(warning);
    this.#tools.log.warn({ event: 'upstream.warning', reason: warning }, 'the transit key can be used, but it should be looked at');
  }

  #plan(): void {
    for (const alarm of this.#alarms) alarm.cancel();
    if (this.#closing.signal.aborted) return;
    const { clock, random } = this.#tools;
    const ends = this.#known.map((one) => endOfTokens(one, this.#known, this.#options.longestTtlMs, 2 * this.#pollMs)).filter((end) => end > clock.now());
    const next = Math.min(...ends);
    this.#alarms = [
      clock.after(this.#pollMs * (1 - JITTER * random.fraction()), () => void this.lookQuietly()),
      ...(Number.isFinite(next) ? [clock.at(next, () => this.#settle())] : []),
    ];
  }
}

function kept({ version, authority, since, goneAt }: KnownVersion): unknown {
  return [version, authority.kid, since, goneAt];
}
