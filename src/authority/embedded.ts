import type { Alarm, Clock } from '../clock.ts';
import { messageOf, SignetError } from '../errors.ts';
import type { EventBus } from '../events.ts';
import type { Random } from '../random.ts';
import type { TrustBundle } from '../spiffe/bundle.ts';
import { idOfTrustDomain, type TrustDomain } from '../spiffe/id.ts';
import type { BundleSource } from '../spiffe/signing.ts';
import { createRoot, issuerFrom, wholeSecond, type Issuer } from './certificate.ts';
import { formatState, parseState, type EmbeddedState, type X509Root } from './embedded-state.ts';
import { BACKDATE_MS, newJwtSigningKey, type JwtSigningKey } from './jwt-signing-key.ts';
import { jwtAuthority, newKeyPair } from './keys.ts';
import type { JwtKey, JwtKeySource } from './jwt-signer.ts';
import { activationOf, activeOf, dueStep, nextChange, publishedOf, type Rotating } from './rotation.ts';
import { readPrivateFile, statePath, writePrivateFile } from './state-file.ts';
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
  #state: EmbeddedState;
  #bundle: TrustBundle;
  #active: { x509?: X509Root | undefined; jwt?: JwtSigningKey | undefined } = {};
  #unwritten = false;
  readonly #written = new WeakSet<Rotating>();
  #failures = 0;
  #alarm: Alarm | undefined;
  #turning: Promise<void> | undefined;
  #closed = false;

  private constructor(options: EmbeddedOptions, tools: Tools, state: EmbeddedState) {
    this.#options = options;
    this.#tools = tools;
    for (const one of [...state.x509, ...state.jwt]) this.#written.add(one);
    this.#path = statePath(options.dataDir, FILE);
    this.#state = state;
    this.#bundle = bundleOf(options.trustDomain, state, tools.clock.now());
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
    if (authority.#unwritten && stored === undefined) {
      await authority.close();
      throw new SignetError('state_unwritable', `the first keys cannot be kept: ${authority.#path} cannot be written. What to do: make ${options.dataDir} writable for uid ${process.geteuid?.()}, with free space.`);
    }
    return authority;
  }

  async ready(): Promise<void> {
    if (this.#activeOf(this.#state.x509) === undefined || this.#activeOf(this.#state.jwt) === undefined) await this.#turning;
  }

  issuer(): Issuer {
    const root = this.#activeOf(this.#state.x509);
    if (root === undefined) throw new SignetError('authority_unavailable', 'there is no CA certificate that is valid now');
    return root;
  }

  intermediates(): readonly Buffer[] {
    return [];
  }

  jwtKey(): JwtKey {
    const key = this.#activeOf(this.#state.jwt);
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
    const x509Step = dueStep(this.#state.x509, clock.now());
    const root = x509Step === 'none' ? undefined : await this.#newRoot(x509Step === 'prepare');
    const jwtStep = dueStep(this.#state.jwt, clock.now());
    const key = jwtStep === 'none' ? undefined : await newJwtSigningKey(clock.now(), this.#options.ttlMs, jwtStep === 'prepare');
    // Whoever has closed this one may have handed the directory to a successor.
    if (this.#closed) return;
    // From here to the publication nothing waits: a key that is not public must not sign (FED-03).
    this.#add(root, key);
    this.#retire();
    this.#tellActive();
    this.#publish();
    if (this.#unwritten) {
      await this.#write();
    }
    this.#failures = 0;
  }

  #add(root: X509Root | undefined, key: JwtSigningKey | undefined): void {
    if (root === undefined && key === undefined) return;
    const { x509, jwt } = this.#state;
    this.#state = { x509: root === undefined ? x509 : [...x509, root], jwt: key === undefined ? jwt : [...jwt, key] };
    this.#unwritten = true;
    if (root !== undefined) this.#tell('x509', 'prepared', root.subject, root.notAfter);
    if (key !== undefined) this.#tell('jwt', 'prepared', key.kid, key.notAfter);
  }

  async #write(): Promise<void> {
    const { x509, jwt } = this.#state;
    await writePrivateFile(this.#path, formatState(this.#state, this.#options.trustDomain));
    for (const one of [...x509, ...jwt]) this.#written.add(one);
    this.#unwritten = false;
    this.#tellActive();
  }

  /** A key that is not written yet signs only when no other can. */
  #activeOf<T extends Rotating>(all: readonly T[]): T | undefined {
    const now = this.#tools.clock.now();
    return activeOf(all.filter((one) => this.#written.has(one)), now) ?? activeOf(all, now);
  }

  async #newRoot(later: boolean): Promise<X509Root> {
    const now = this.#tools.clock.now();
    const keys = await newKeyPair('ec-p256');
    const activatesAt = later ? activationOf(now, this.#options.ttlMs) : now;
    const dates = { notBefore: wholeSecond(now - BACKDATE_MS), notAfter: wholeSecond(activatesAt + this.#options.ttlMs) };
    const certificate = await createRoot(keys, { id: idOfTrustDomain(this.#options.trustDomain), ...dates }, this.#tools.random);
    return { ...issuerFrom(certificate, keys), activatesAt };
  }

  #retire(): void {
    const now = this.#tools.clock.now();
    const x509 = publishedOf(this.#state.x509, now);
    const jwt = publishedOf(this.#state.jwt, now);
    if (x509.length === this.#state.x509.length && jwt.length === this.#state.jwt.length) return;
    for (const root of this.#state.x509) if (!x509.includes(root)) this.#tell('x509', 'retired', root.subject, root.notAfter);
    for (const key of this.#state.jwt) if (!jwt.includes(key)) this.#tell('jwt', 'retired', key.kid, key.notAfter);
    this.#state = { x509, jwt };
    this.#unwritten = true;
  }

  #tellActive(): void {
    const root = this.#activeOf(this.#state.x509);
    const key = this.#activeOf(this.#state.jwt);
    if (root !== undefined && root !== this.#active.x509) this.#tell('x509', 'activated', root.subject, root.notAfter);
    if (key !== undefined && key !== this.#active.jwt) this.#tell('jwt', 'activated', key.kid, key.notAfter);
    this.#active = { x509: root, jwt: key };
  }

  #publish(): void {
    const bundle = bundleOf(this.#options.trustDomain, this.#state, this.#tools.clock.now());
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
    // The clock may have stepped while keys were made: what has become due meanwhile is not among the moments to come.
    if (dueStep(this.#state.x509, now) !== 'none' || dueStep(this.#state.jwt, now) !== 'none') {
      this.#alarm = clock.after(0, () => void this.#turn());
      return;
    }
    const next = Math.min(nextChange(this.#state.x509, now), nextChange(this.#state.jwt, now));
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

function bundleOf(trustDomain: TrustDomain, state: EmbeddedState, now: number): TrustBundle {
  return {
    trustDomain,
    x509Authorities: publishedOf(state.x509, now).map((root) => root.certificate),
    jwtAuthorities: publishedOf(state.jwt, now).map((key) => jwtAuthority(key.publicKey)),
  };
}

function sameBundle(a: TrustBundle, b: TrustBundle): boolean {
  return (
    a.x509Authorities.length === b.x509Authorities.length &&
    a.x509Authorities.every((der, index) => b.x509Authorities[index]?.equals(der)) &&
    a.jwtAuthorities.map((key) => key.kid).join() === b.jwtAuthorities.map((key) => key.kid).join()
  );
}
