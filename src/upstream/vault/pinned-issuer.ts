import { X509Certificate } from 'node:crypto';
import type { Alarm, Clock } from '../../clock.ts';
import { SignetError } from '../../errors.ts';
import { textAt } from '../../kubernetes/json.ts';
import { chainUp } from '../wire/chain.ts';
import type { IssuerWatch } from './issuer-watch.ts';
import { certificatesAt, type OpenReader } from './issuers.ts';
import { pathOf } from './path.ts';
import { VaultError } from './vault-error.ts';

/** Times are milliseconds since the Unix epoch. */
interface Pinned {
  /** It does not change with the default. */
  readonly id: string;
  /** DER */
  readonly certificate: Buffer;
  readonly root: Buffer;
  /** The first end on the way to its root. */
  readonly notAfter: number;
}

/** What signs now. */
export interface PinnedTo {
  /** What it is asked by: as configured, which is all that a narrow policy allows, or by its ID once that leads to another one. */
  readonly ref: string;
  /** The first end on the way to its root, in milliseconds since the Unix epoch. */
  readonly notAfter: number;
}

export interface PinnedIssuerOptions {
  readonly mount: string;
  /** `default`, or the name or ID of an issuer. */
  readonly issuer: string;
}

export interface PinnedIssuerTools {
  readonly client: OpenReader;
  readonly clock: Clock;
  readonly watch: Pick<IssuerWatch, 'issuer' | 'certificates' | 'look' | 'onChange'>;
  /** The roots in the own bundle. */
  readonly bundle: {
    roots(): readonly Buffer[];
    usableFrom(root: Buffer): number;
    onChange(listener: () => void): () => void;
  };
}

const PURPOSE = 'roots';

/**
 * The issuer that signs SVIDs. When Vault's default becomes one under another root, the one before goes on until everybody has that
 * root: an SVID that nobody can verify is of no use.
 */
export class PinnedIssuer {
  readonly #options: PinnedIssuerOptions;
  readonly #tools: PinnedIssuerTools;
  readonly #listeners = new Set<(change: { readonly isReplaced: boolean }) => void>();
  readonly #stops: readonly (() => void)[];
  readonly #closing = new AbortController();
  #active: Pinned | undefined;
  #following: Promise<void> | undefined;
  #isStale = false;
  #alarm: Alarm | undefined;

  constructor(options: PinnedIssuerOptions, tools: PinnedIssuerTools) {
    this.#options = options;
    this.#tools = tools;
    const follow = (): void => void this.#follow().catch(() => undefined);
    this.#stops = [tools.watch.onChange(follow), tools.bundle.onChange(follow)];
  }

  /**
   * What signs now.
   *
   * @throws VaultError, SignetError `authority_unavailable` when none stands under a root of the bundle, or the signal's reason.
   */
  async issuer(signal: AbortSignal): Promise<PinnedTo> {
    if (this.#active === undefined) {
      await this.refresh(signal);
      signal.throwIfAborted();
    }
    if (this.#active !== undefined) return this.#refer(this.#active);
    throw new SignetError('authority_unavailable', `the issuer ${this.#options.issuer} of ${this.#options.mount} does not stand under a root of the bundle. What to do: name the file with its root in authority.vault.pki.roots`);
  }

  /** Looks at the issuers now: what was signed was not signed by the one that was asked. */
  async refresh(signal: AbortSignal): Promise<void> {
    await this.#tools.watch.look(signal);
    await this.#follow();
  }

  /** Calls `listener` when another issuer signs from now on: leaves should be renewed soon. Returns the way to stop. */
  onIssuerChange(listener: (change: { readonly isReplaced: boolean }) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  close(): void {
    this.#closing.abort(new SignetError('stopped', 'the agent stops'));
    for (const stop of this.#stops) stop();
    this.#alarm?.cancel();
    this.#listeners.clear();
  }

  #refer({ id, certificate, notAfter }: Pinned): PinnedTo {
    const isNamed = this.#tools.watch.issuer()?.equals(certificate) === true;
    return { ref: isNamed ? this.#options.issuer : id, notAfter };
  }

  /** One at a time; what changes meanwhile is looked at after it. */
  #follow(): Promise<void> {
    this.#isStale = this.#following !== undefined;
    this.#following ??= this.#followOnce().finally(() => {
      this.#following = undefined;
      if (this.#isStale && !this.#closing.signal.aborted) void this.#follow().catch(() => undefined);
    });
    return this.#following;
  }

  async #followOnce(): Promise<void> {
    this.#alarm?.cancel();
    const named = this.#tools.watch.issuer();
    if (named === undefined || this.#active?.certificate.equals(named) === true) return;
    const next = await this.#read();
    this.#closing.signal.throwIfAborted();
    if (next === undefined || this.#active?.id === next.id) return;
    const { clock, bundle } = this.#tools;
    const isAtOnce = this.#active === undefined || this.#active.root.equals(next.root) || clock.now() >= this.#active.notAfter;
    const from = isAtOnce ? clock.now() : bundle.usableFrom(next.root);
    if (from <= clock.now()) this.#activate(next);
    else if (Number.isFinite(from)) this.#alarm = clock.at(from, () => void this.#follow().catch(() => undefined));
  }

  async #read(): Promise<Pinned | undefined> {
    const { client, watch, bundle } = this.#tools;
    const { mount, issuer } = this.#options;
    const { signal } = this.#closing;
    const { data } = await client.requestOpen('GET', pathOf(mount, 'issuer', issuer, 'json'), { signal, purpose: PURPOSE });
    const [certificate] = certificatesAt(data, 'certificate');
    const id = textAt(data, 'issuer_id');
    if (certificate === undefined || id === '') throw new VaultError('malformed', `the answer of Vault does not name the issuer ${issuer} of ${mount}`);
    const chain = chainUp(certificate, watch.certificates(), bundle.roots())?.map((der) => new X509Certificate(der));
    const last = chain?.at(-1);
    const root = bundle.roots().map((der) => new X509Certificate(der)).find((one) => last?.checkIssued(one) === true && last.verify(one.publicKey));
    if (chain === undefined || root === undefined) return undefined;
    return { id, certificate, root: root.raw, notAfter: Math.min(...[...chain, root].map(({ validToDate }) => validToDate.getTime())) };
  }

  #activate(next: Pinned): void {
    const isReplaced = this.#active !== undefined;
    this.#active = next;
    if (isReplaced) for (const listener of [...this.#listeners]) listener({ isReplaced });
  }
}
