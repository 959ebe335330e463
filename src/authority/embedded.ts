import type { Alarm, Clock } from '../clock.ts';
import { messageOf, SignetError } from '../errors.ts';
import type { EventBus } from '../events.ts';
import type { Random } from '../random.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import type { BundleSource } from '../spiffe/signing.ts';
import type { Issuer } from './certificate.ts';
import { EmbeddedKeys, newRoot } from './embedded-keys.ts';
import { formatState, parseState, type EmbeddedState, type X509Root } from './embedded-state.ts';
import { newJwtSigningKey, type JwtSigningKey } from './jwt-signing-key.ts';
import type { JwtKey, JwtKeySource } from './jwt-signer.ts';
import { addedTo, KeyOrders, notKept, RingOrders } from './key-orders.ts';
import { sameBundle } from './node-keys.ts';
import { REPLACED_WITHIN_MS, type AuthorityOrders } from './orders.ts';
import { readPrivateFile, statePath, writePrivateFile } from './state-file.ts';
import { dueStepOf } from './tainted.ts';
import type { IssuerSource } from './x509-signer.ts';

export interface EmbeddedOptions {
  readonly trustDomain: TrustDomain;
  /** Must exist and be locked by this process. */
  readonly dataDir: string;
  /** Life of the root and of the JWT keys. */
  readonly ttlMs: number;
}

interface Tools {
  readonly clock: Clock;
  readonly random: Random;
  readonly events: EventBus;
}

const FILE = 'embedded-authority.json';

/** What cannot be written is tried again, first after a second, at last every minute. */
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 60_000;

/**
 * The agent's own CA: a root and a JWT key in `dataDir`, rotated with overlap (see rotation.ts). New keys are written before they
 * sign. When they cannot be written the old ones go on; only when those have ended do unwritten ones sign, because an identity
 * that a restart replaces is better than none.
 */
export class EmbeddedAuthority implements IssuerSource, JwtKeySource, BundleSource {
  readonly #options: EmbeddedOptions;
  readonly #tools: Tools;
  readonly #path: string;
  readonly #listeners = new Set<(bundle: TrustBundle) => void>();
  readonly #stopStepping: () => void;
  readonly #keys: EmbeddedKeys;
  readonly #orders: KeyOrders;
  #bundle: TrustBundle;
  #active: { x509?: X509Root | undefined; jwt?: JwtSigningKey | undefined } = {};
  #failures = 0;
  #alarm: Alarm | undefined;
  #turning: Promise<void> | undefined;
  #writing: Promise<void> = Promise.resolve();
  #closed = false;

  private constructor(options: EmbeddedOptions, tools: Tools, state: EmbeddedState) {
    this.#options = options;
    this.#tools = tools;
    this.#path = statePath(options.dataDir, FILE);
    this.#keys = new EmbeddedKeys(state, tools.clock, options.ttlMs);
    this.#bundle = this.#keys.bundle(options.trustDomain);
    this.#orders = this.#makeOrders();
    this.#stopStepping = tools.clock.onStep(() => void this.#turn());
  }

  /**
   * Reads the state and judges it, without changing anything: what a start would stumble over is found before the agent takes
   * anything over.
   *
   * @throws SignetError `state_refused`
   */
  static check(options: EmbeddedOptions): void {
    readState(options);
  }

  /**
   * Reads or makes the keys.
   *
   * @throws SignetError `state_refused` for a damaged or foreign file, `state_unwritable` when first keys cannot be kept.
   */
  static async open(options: EmbeddedOptions, tools: Tools): Promise<EmbeddedAuthority> {
    const stored = readState(options);
    const authority = new EmbeddedAuthority(options, tools, stored ?? { x509: [], jwt: [] });
    await authority.#turn();
    if (!authority.#keys.isWritten && stored === undefined) {
      await authority.close();
      throw new SignetError('state_unwritable', `the first keys cannot be kept: ${authority.#path} cannot be written. What to do: make ${options.dataDir} writable for uid ${process.geteuid?.()}, with free space.`);
    }
    return authority;
  }

  /** The rotation by hand. */
  get orders(): AuthorityOrders {
    return this.#orders;
  }

  async ready(): Promise<void> {
    if (!this.#lacksKey()) return;
    await this.#turning;
    // The clock may have stepped while that turn made keys: what has become due since is made for whoever waits, not at the next alarm.
    if (this.#lacksKey() && this.#failures === 0 && !this.#closed) await this.#turn();
  }

  #lacksKey(): boolean {
    return this.#keys.root === undefined || this.#keys.jwt === undefined;
  }

  issuer(): Issuer {
    const { root } = this.#keys;
    if (root === undefined) throw new SignetError('authority_unavailable', 'there is no CA certificate that is valid now');
    return root;
  }

  intermediates(): readonly Buffer[] {
    return [];
  }

  jwtKey(): JwtKey {
    const key = this.#keys.jwt;
    if (key === undefined) throw new SignetError('authority_unavailable', 'there is no JWT key that is valid now');
    return key;
  }

  current(): TrustBundle {
    return this.#bundle;
  }

  onChange(listener: (bundle: TrustBundle) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Resolves when nothing is being written any more: before that the directory must not go to a successor. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#alarm?.cancel();
    this.#stopStepping();
    await this.#turning;
    await this.#writing.catch(() => undefined);
  }

  #makeOrders(): KeyOrders {
    const keep = (): Promise<void> => this.#keep();
    const x509 = new RingOrders<X509Root>({
      ring: () => this.#keys.x509Ring,
      make: () => this.#newRoot(true),
      adopt: (all) => this.#adopt({ x509: all }),
      keep,
      replace: () => this.#orders.tellTaint({ kind: 'x509', withinMs: REPLACED_WITHIN_MS }),
    });
    const jwt = new RingOrders<JwtSigningKey>({
      ring: () => this.#keys.jwtRing,
      make: () => newJwtSigningKey(this.#tools.clock.now(), this.#options.ttlMs, true),
      adopt: (all) => this.#adopt({ jwt: all }),
      keep,
      replace: ({ kid }) => this.#orders.tellTaint({ kind: 'jwt', kid }),
    });
    return new KeyOrders({ x509, jwt });
  }

  /** One at a time: does what is due, tells the changes and plans the next turn. */
  #turn(): Promise<void> {
    this.#turning ??= this.#makeWhatIsDue()
      .catch((error: unknown) => this.#failed(error))
      .finally(() => {
        this.#turning = undefined;
        this.#plan();
      });
    return this.#turning;
  }

  async #makeWhatIsDue(): Promise<void> {
    const { clock } = this.#tools;
    const x509Step = dueStepOf(this.#keys.state.x509, clock.now());
    const root = x509Step === 'none' ? undefined : await this.#newRoot(x509Step === 'prepare');
    const jwtStep = dueStepOf(this.#keys.state.jwt, clock.now());
    const key = jwtStep === 'none' ? undefined : await newJwtSigningKey(clock.now(), this.#options.ttlMs, jwtStep === 'prepare');
    // Whoever has closed this one may have handed the directory to a successor.
    if (this.#closed) return;
    // From here to the publication nothing waits: a key that is not public must not sign (FED-03).
    this.#adoptDue(root, key);
    if (!this.#keys.isWritten) await this.#write();
    if (this.#failures > 0) this.#tools.events.publish('authorityRecovered', {});
    this.#failures = 0;
  }

  /** What an operator has had made meanwhile is not made a second time. */
  #adoptDue(root: X509Root | undefined, key: JwtSigningKey | undefined): void {
    const now = this.#tools.clock.now();
    const { x509, jwt } = this.#keys.state;
    const isRootDue = root !== undefined && dueStepOf(x509, now) !== 'none';
    const isKeyDue = key !== undefined && dueStepOf(jwt, now) !== 'none';
    this.#change({ x509: isRootDue ? [...x509, root] : x509, jwt: isKeyDue ? [...jwt, key] : jwt });
  }

  /** Takes over what an operator has ordered. */
  #adopt(part: Partial<EmbeddedState>): void {
    if (this.#closed) throw new SignetError('stopped', 'the agent stops');
    this.#change({ ...this.#keys.state, ...part });
  }

  /** Takes `state` over and publishes it, without waiting for anything. */
  #change(state: EmbeddedState): void {
    const before = this.#keys.state;
    const gone = this.#keys.change(state);
    const { x509, jwt } = this.#keys.state;
    for (const root of addedTo(before.x509, x509)) this.#tell('x509', 'prepared', root.subject, root.notAfter);
    for (const key of addedTo(before.jwt, jwt)) this.#tell('jwt', 'prepared', key.kid, key.notAfter);
    for (const root of gone.x509) this.#tell('x509', 'retired', root.subject, root.notAfter);
    for (const key of gone.jwt) this.#tell('jwt', 'retired', key.kid, key.notAfter);
    this.#tellActive();
    this.#publish();
  }

  /** Writes what was ordered; what cannot be written is tried again in turn. */
  async #keep(): Promise<void> {
    try {
      await this.#write();
    } catch (error) {
      this.#failed(error);
      throw notKept(error);
    } finally {
      if (this.#turning === undefined) this.#plan();
    }
  }

  /** One at a time: what has changed meanwhile is written too. */
  #write(): Promise<void> {
    this.#writing = this.#writing.catch(() => undefined).then(() => this.#writeState());
    return this.#writing;
  }

  async #writeState(): Promise<void> {
    if (this.#keys.isWritten) return;
    const { state } = this.#keys;
    await writePrivateFile(this.#path, formatState(state, this.#options.trustDomain));
    this.#keys.noteWritten(state);
    this.#tellActive();
  }

  #newRoot(later: boolean): Promise<X509Root> {
    return newRoot(this.#options, later, this.#tools);
  }

  #tellActive(): void {
    const { root, jwt: key } = this.#keys;
    if (root !== undefined && root !== this.#active.x509) this.#tell('x509', 'activated', root.subject, root.notAfter);
    if (key !== undefined && key !== this.#active.jwt) this.#tell('jwt', 'activated', key.kid, key.notAfter);
    this.#active = { x509: root, jwt: key };
  }

  #publish(): void {
    const bundle = this.#keys.bundle(this.#options.trustDomain);
    if (sameBundle(bundle, this.#bundle)) return;
    this.#bundle = bundle;
    for (const listener of [...this.#listeners]) listener(bundle);
  }

  #failed(error: unknown): void {
    this.#failures += 1;
    this.#tools.events.publish('authorityFailed', { error: messageOf(error), retryMs: this.#retryMs() });
  }

  #plan(): void {
    this.#alarm?.cancel();
    if (this.#closed) return;
    const { clock } = this.#tools;
    if (this.#failures > 0) {
      this.#alarm = clock.after(this.#retryMs(), () => void this.#turn());
      return;
    }
    const now = clock.now();
    const { x509, jwt } = this.#keys.state;
    // The clock may have stepped while keys were made: what has become due meanwhile is not among the moments to come.
    if (dueStepOf(x509, now) !== 'none' || dueStepOf(jwt, now) !== 'none') {
      this.#alarm = clock.after(0, () => void this.#turn());
      return;
    }
    const next = this.#keys.nextChange();
    if (Number.isFinite(next)) this.#alarm = clock.at(next, () => void this.#turn());
  }

  #retryMs(): number {
    return Math.min(FIRST_RETRY_MS * 2 ** (this.#failures - 1), LAST_RETRY_MS);
  }

  #tell(kind: 'x509' | 'jwt', step: 'prepared' | 'activated' | 'retired', id: string, notAfter: number): void {
    this.#tools.events.publish('authorityRotated', { kind, step, id, notAfter });
  }
}

function readState(options: EmbeddedOptions): EmbeddedState | undefined {
  const path = statePath(options.dataDir, FILE);
  const text = readPrivateFile(path);
  return text === undefined ? undefined : parseState(text, options.trustDomain, path);
}
