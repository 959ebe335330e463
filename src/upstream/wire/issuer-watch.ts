import type { Alarm, Clock } from '../../clock.ts';
import { messageOf, SignetError } from '../../errors.ts';
import type { Log } from '../../log.ts';
import type { Random } from '../../random.ts';
import { readPem } from '../../spiffe/pem.ts';
import { unlessAborted } from './abort.ts';
import { isRoot, once } from './chain.ts';
import { readSmallFile } from './small-file.ts';

/** What an upstream stands for now. Certificates are DER. */
export interface KnownIssuers {
  /** The one that would sign now; undefined when the upstream does not tell. */
  readonly issuer: Buffer | undefined;
  /** All that it has named, each once. */
  readonly certificates: readonly Buffer[];
  /** Those of them that are roots. */
  readonly roots: readonly Buffer[];
}

/** Who is asked. */
export interface IssuerReader {
  /** For messages: `pki of Vault`. */
  readonly where: string;
  /** @throws UpstreamError, or the reason of the signal. */
  read(signal: AbortSignal): Promise<KnownIssuers>;
  /** Calls `listener` when it is worth asking again after something failed. Returns the way to stop. */
  onReturn(listener: () => void): () => void;
}

export interface IssuerWatchOptions {
  /** PEM files with roots that are believed besides. */
  readonly roots?: readonly string[];
  /** How often the issuers are looked at, in milliseconds. Default 30 s. */
  readonly pollMs?: number;
}

export interface IssuerWatchTools {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** What keeps a root (DER) from standing above the identities of the trust domain; undefined when nothing does. Default: all pass. */
  readonly judgeRoot?: (root: Buffer) => string | undefined;
}

const POLL_MS = 30_000;

/** Part of each wait that is random, so that the nodes of a cluster do not come together. */
const JITTER = 1 / 5;

/** Different warnings that are told. */
const MOST_WARNINGS = 16;

/** Follows the issuers of an upstream, and the files with further roots. What has been found stays while it is away. */
export class IssuerWatch {
  /** Time until all nodes have a root that this one has got, in milliseconds. */
  readonly overlapMs: number;
  readonly #reader: IssuerReader;
  readonly #options: IssuerWatchOptions;
  readonly #tools: IssuerWatchTools;
  readonly #pollMs: number;
  readonly #listeners = new Set<() => void>();
  readonly #closing = new AbortController();
  readonly #stopListening: () => void;
  readonly #warned = new Set<string>();
  #known: KnownIssuers | undefined;
  #roots: readonly Buffer[] = [];
  #fromFiles: readonly Buffer[] = [];
  #problem: string | undefined;
  #looking: Promise<void> | undefined;
  #alarm: Alarm | undefined;

  /** Begins to look. */
  constructor(reader: IssuerReader, options: IssuerWatchOptions, tools: IssuerWatchTools) {
    this.#reader = reader;
    this.#options = options;
    this.#tools = tools;
    this.#pollMs = options.pollMs ?? POLL_MS;
    this.overlapMs = 2 * this.#pollMs;
    this.#stopListening = reader.onReturn(() => void this.look().then(() => this.#tell(), () => undefined));
    void this.#lookQuietly();
  }

  /** All roots, DER, each once; empty while the upstream has not been asked: those of the files alone would look like a loss of the others. */
  roots(): readonly Buffer[] {
    return this.#roots;
  }

  /** DER of the one that would sign now. */
  issuer(): Buffer | undefined {
    return this.#known?.issuer;
  }

  /** DER of all that the upstream has named. */
  certificates(): readonly Buffer[] {
    return this.#known?.certificates ?? [];
  }

  /** What is wrong with the files. */
  problem(): string | undefined {
    return this.#problem;
  }

  /** Calls `listener` when roots or issuer have changed, or it is worth asking the upstream again. Returns the way to stop. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * Looks now, one look at a time, and plans the next one.
   *
   * @throws UpstreamError, or the reason of the signal, which does not end the look for others.
   */
  look(signal?: AbortSignal): Promise<void> {
    this.#looking ??= this.#lookOnce().finally(() => {
      this.#looking = undefined;
      this.#plan();
    });
    return signal === undefined ? this.#looking : unlessAborted(this.#looking, signal);
  }

  /** Resolves when nothing is being asked any more. */
  async close(): Promise<void> {
    this.#closing.abort(new SignetError('stopped', 'the agent stops'));
    this.#stopListening();
    this.#alarm?.cancel();
    this.#listeners.clear();
    await this.#looking?.catch(() => undefined);
  }

  /** Whoever is asked tells what has failed. */
  async #lookQuietly(): Promise<void> {
    await this.look().catch(() => undefined);
  }

  async #lookOnce(): Promise<void> {
    const before = [this.issuer(), ...this.roots()];
    await this.#readFiles();
    const known = await this.#reader.read(this.#closing.signal);
    this.#closing.signal.throwIfAborted();
    this.#known = known;
    this.#roots = once([...known.roots, ...this.#fromFiles]).filter((root) => this.#isGood(root));
    if (!isSame(before, [this.issuer(), ...this.roots()])) this.#tell();
  }

  async #readFiles(): Promise<void> {
    try {
      this.#fromFiles = await readRootFiles(this.#options.roots ?? []);
      this.#problem = undefined;
    } catch (error) {
      const problem = messageOf(error);
      if (problem !== this.#problem) this.#warn(problem, 'the last good roots go on');
      this.#problem = problem;
    }
  }

  /** Whoever may write above chooses the issuers; what cannot be a root of this trust domain is left out. */
  #isGood(root: Buffer): boolean {
    const problem = this.#tools.judgeRoot?.(root);
    if (problem === undefined) return true;
    const text = `a root in ${this.#reader.where} is left out: ${problem}`;
    if (!this.#warned.has(text) && this.#warned.size < MOST_WARNINGS) this.#warn(text, 'a root is not believed');
    this.#warned.add(text);
    return false;
  }

  #warn(reason: string, message: string): void {
    this.#tools.log.warn({ event: 'upstream.warning', reason }, message);
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  #plan(): void {
    this.#alarm?.cancel();
    if (this.#closing.signal.aborted) return;
    const { clock, random } = this.#tools;
    this.#alarm = clock.after(this.#pollMs * (1 - JITTER * random.fraction()), () => void this.#lookQuietly());
  }
}

/**
 * The roots in PEM files.
 *
 * @throws SignetError `state_refused` naming the file and what is wrong.
 */
export async function readRootFiles(paths: readonly string[]): Promise<readonly Buffer[]> {
  const roots: Buffer[] = [];
  for (const path of paths) roots.push(...(await readRootFile(path)));
  return roots;
}

async function readRootFile(path: string): Promise<Buffer[]> {
  try {
    const text = await readSmallFile('roots', path);
    const ders = readPem(text).filter(({ label }) => label === 'CERTIFICATE').map(({ der }) => der);
    if (ders.length === 0) throw new Error('it holds no certificate in PEM');
    if (!ders.every(isRoot)) throw new Error('it holds a certificate that is not self-signed');
    return ders;
  } catch (error) {
    const text = `the root certificates ${path} cannot be used: ${messageOf(error)}. What to do: write the roots there as PEM`;
    throw new SignetError('state_refused', text, { cause: error });
  }
}

function isSame(a: readonly (Buffer | undefined)[], b: readonly (Buffer | undefined)[]): boolean {
  return a.length === b.length && a.every((one, index) => one === b[index] || (one !== undefined && b[index]?.equals(one) === true));
}
