import type { Alarm, Clock } from '../../clock.ts';
import { SignetError } from '../../errors.ts';
import { unlessAborted } from '../wire/abort.ts';
import type { Lease, TokenSource } from './auth.ts';

export interface TokenKeeperParts {
  readonly clock: Clock;
  readonly source: TokenSource;
  /** Told after each login and renewal. */
  readonly onSuccess: (durationMs: number) => void;
  readonly onFailure: (error: unknown) => void;
}

interface Held extends Lease {
  /** Monotonic milliseconds, as is the other. */
  readonly since: number;
  readonly endsAt: number;
  /** What the login gave: less from a renewal means that the end of all renewals is near. */
  readonly fullMs: number;
}

/** The part of a token's life after which it is renewed. */
const RENEW_AT = 2 / 3;

/** Node's timers overflow after 24.8 days. */
const LATEST_RENEWAL_MS = 10 * 86_400_000;

/** After a failed login callers get its error for so long, instead of a login each. */
const FAILED_MS = 1_000;

/** A token that may not do something is replaced by a new one, which may have other policies: first after this age, later seldom. */
const FIRST_SUSPICION_MS = 5_000;
const LAST_SUSPICION_MS = 60_000;

/** Keeps one token: logs in when it is first wanted, renews at two thirds of its life, and logs in anew when that does not help. */
export class TokenKeeper {
  readonly #parts: TokenKeeperParts;
  readonly #closing = new AbortController();
  #held: Held | undefined;
  #flight: Promise<string> | undefined;
  #failure: { readonly error: unknown; readonly at: number } | undefined;
  #alarm: Alarm | undefined;
  #suspicionMs = FIRST_SUSPICION_MS;

  constructor(parts: TokenKeeperParts) {
    this.#parts = parts;
  }

  /** @throws VaultError of the login, or the reason of the signal. */
  async get(signal: AbortSignal): Promise<string> {
    signal.throwIfAborted();
    const held = this.#valid();
    if (held !== undefined) return held.token;
    const { clock } = this.#parts;
    if (this.#flight === undefined && this.#failure !== undefined && clock.monotonic() - this.#failure.at < FAILED_MS) throw this.#failure.error;
    return unlessAborted(this.#refresh(), signal);
  }

  /**
   * Another token after `token` was refused, or undefined when another one would not help.
   *
   * @param isInvalid whether Vault does not know the token at all; else it may not do something.
   */
  async replace(token: string, isInvalid: boolean, signal: AbortSignal): Promise<string | undefined> {
    const held = this.#held;
    if (held === undefined || held.token !== token) return this.get(signal);
    if (isInvalid) {
      this.#drop();
      return this.get(signal);
    }
    if (this.#parts.clock.monotonic() - held.since < this.#suspicionMs) return undefined;
    this.#suspicionMs = Math.min(this.#suspicionMs * 2, LAST_SUSPICION_MS);
    return unlessAborted(this.#refresh('login'), signal);
  }

  /** The token has just been good for something that may be refused. */
  trust(): void {
    this.#suspicionMs = FIRST_SUSPICION_MS;
  }

  /** It is worth trying again what has failed. */
  nudge(): void {
    if (this.#failure !== undefined) this.#refresh().catch(() => undefined);
  }

  close(): void {
    this.#closing.abort(new SignetError('stopped', 'the connection to Vault is closed'));
    this.#drop();
  }

  #valid(): Held | undefined {
    return this.#held !== undefined && this.#parts.clock.monotonic() < this.#held.endsAt ? this.#held : undefined;
  }

  #drop(): void {
    this.#alarm?.cancel();
    this.#held = undefined;
  }

  /** One at a time, for all who wait. */
  #refresh(how: 'login' | 'renew' = 'renew'): Promise<string> {
    this.#flight ??= this.#refreshOnce(how).finally(() => void (this.#flight = undefined));
    return this.#flight;
  }

  async #refreshOnce(how: 'login' | 'renew'): Promise<string> {
    const { clock, onSuccess, onFailure } = this.#parts;
    const began = clock.monotonic();
    try {
      const held = await this.#lease(how);
      this.#closing.signal.throwIfAborted();
      this.#failure = undefined;
      this.#hold(held);
      onSuccess(clock.monotonic() - began);
      return held.token;
    } catch (error) {
      if (!this.#closing.signal.aborted) {
        this.#failure = { error, at: clock.monotonic() };
        onFailure(error);
      }
      throw error;
    }
  }

  async #lease(how: 'login' | 'renew'): Promise<Held> {
    const { clock, source } = this.#parts;
    const { signal } = this.#closing;
    const held = this.#valid();
    if (how === 'renew' && held?.isRenewable === true) {
      const renewed = await source.renew(held.token, signal).catch(() => undefined);
      // Less than half of what it was: its longest life is near, and each further renewal would bring less.
      if (renewed !== undefined && renewed.lifeMs >= held.fullMs / 2) return heldFrom(renewed, clock.monotonic(), held.fullMs);
    }
    const lease = await source.login(signal);
    return heldFrom(lease, clock.monotonic(), lease.lifeMs);
  }

  #hold(held: Held): void {
    this.#alarm?.cancel();
    this.#held = held;
    if (!Number.isFinite(held.lifeMs)) return;
    const inMs = Math.min(held.lifeMs * RENEW_AT, LATEST_RENEWAL_MS);
    this.#alarm = this.#parts.clock.after(inMs, () => void this.#refresh().catch(() => undefined));
  }
}

function heldFrom(lease: Lease, now: number, fullMs: number): Held {
  return { ...lease, since: now, endsAt: now + lease.lifeMs, fullMs };
}
