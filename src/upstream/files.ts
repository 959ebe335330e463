import { createHash } from 'node:crypto';
import type { Alarm, Clock } from '../clock.ts';
import { messageOf, SignetError } from '../errors.ts';
import type { EventBus } from '../events.ts';
import type { Log } from '../log.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { parseCaTexts, readCaTexts, refusedFile, type CaPaths, type CaTexts } from './ca-files.ts';
import type { CaTools, HeldCa, Upstream, UpstreamAnswer, UpstreamRequest } from './upstream.ts';

export interface FilesOptions {
  readonly trustDomain: TrustDomain;
  readonly files: CaPaths;
  /** How often the files are looked at, in milliseconds. Default 5 s. */
  readonly pollMs?: number;
  /**
   * How long it takes until a change of the files is on all nodes, in milliseconds. Default 90 s: by then a kubelet has brought a
   * changed Secret into its mounts.
   */
  readonly spreadMs?: number;
}

export interface FilesTools {
  readonly clock: Clock;
  readonly events: EventBus;
  readonly log: Log;
  readonly ca: CaTools;
}

const UPSTREAM = 'files';
const POLL_MS = 5_000;
const SPREAD_MS = 90_000;

/** A node CA begins before it is made, so that a machine whose clock is behind accepts it. */
const BACKDATE_MS = 300_000;

/**
 * A CA whose certificate and key are in files, such as a mounted Secret. What is wrong is told once and never used: the last good
 * files go on.
 *
 * The files are read whole at each look. inotify watches inodes: it sees neither what a link far up the path is turned to nor
 * changes that another machine makes on a network file system, and it must be set anew after each swap, in a race. Their times
 * alone miss an overwrite within one tick of the file system's clock. A few KiB every few seconds cost less than either mistake.
 */
export class FilesUpstream implements Upstream {
  readonly overlapMs: number;
  readonly #options: FilesOptions;
  readonly #tools: FilesTools;
  readonly #pollMs: number;
  readonly #listeners = new Set<() => void>();
  readonly #warned = new Set<string>();
  #ca: HeldCa | undefined;
  #digest = '';
  #problem: string | undefined;
  #told: string | undefined;
  #looking: Promise<void> | undefined;
  #alarm: Alarm | undefined;
  #isClosed = false;

  private constructor(options: FilesOptions, tools: FilesTools) {
    this.#options = options;
    this.#tools = tools;
    this.#pollMs = options.pollMs ?? POLL_MS;
    this.overlapMs = 2 * Math.max(this.#pollMs, options.spreadMs ?? SPREAD_MS);
  }

  /**
   * Reads the files and judges them, and does nothing else.
   *
   * @throws SignetError `state_refused` naming the file, what is wrong and what to do.
   */
  static async check(options: FilesOptions, tools: Pick<FilesTools, 'clock' | 'ca'>): Promise<void> {
    judge(await readCaTexts(options.files), options, tools);
  }

  /** Reads the files and watches them. Files that are not good do not keep it from opening: see `problem` and `sign`. */
  static async open(options: FilesOptions, tools: FilesTools): Promise<FilesUpstream> {
    const upstream = new FilesUpstream(options, tools);
    await upstream.look();
    return upstream;
  }

  roots(): readonly Buffer[] {
    return this.#ca?.roots ?? [];
  }

  issuer(): Buffer | undefined {
    return this.#ca?.certificate;
  }

  problem(): string | undefined {
    return this.#problem;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Looks at the files now, one look at a time, and plans the next one. */
  look(): Promise<void> {
    this.#looking ??= this.#lookOnce().finally(() => {
      this.#looking = undefined;
      this.#alarm?.cancel();
      if (!this.#isClosed) this.#alarm = this.#tools.clock.after(this.#pollMs, () => void this.look());
    });
    return this.#looking;
  }

  async sign(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamAnswer> {
    signal.throwIfAborted();
    const { clock, events, ca: tools } = this.#tools;
    const began = clock.monotonic();
    const ca = this.#usable();
    const now = clock.now();
    const wanted = wholeSecond(now + request.ttlMs);
    const notAfter = Math.min(wanted, ca.notAfter);
    if (notAfter < wanted) this.#warnOnce(`the CA in ${this.#options.files.certificate}, or one above it, ends at ${iso(ca.notAfter)}: node CAs are shortened to that. What to do: renew it.`);
    const { trustDomain, publicKey, nameConstraint } = request;
    const notBefore = Math.max(wholeSecond(now - BACKDATE_MS), ca.notBefore);
    const der = await tools.signNodeCa(ca, { trustDomain, publicKey, nameConstraint, notBefore, notAfter });
    events.publish('upstreamAnswered', { upstream: UPSTREAM, durationMs: clock.monotonic() - began });
    return { chain: [der, ...ca.chain], roots: ca.roots };
  }

  /** Resolves when nothing is being read any more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#alarm?.cancel();
    this.#listeners.clear();
    await this.#looking;
  }

  async #lookOnce(): Promise<void> {
    const began = this.#tools.clock.monotonic();
    try {
      const texts = await readCaTexts(this.#options.files);
      if (this.#isClosed) return;
      const digest = digestOf(texts);
      const isSame = digest === this.#digest;
      if (isSame && this.#ca !== undefined && this.#tools.clock.now() < this.#ca.notAfter) return this.#accept(this.#ca);
      const ca = judge(texts, this.#options, this.#tools);
      this.#digest = digest;
      this.#tools.events.publish('upstreamAnswered', { upstream: UPSTREAM, durationMs: this.#tools.clock.monotonic() - began });
      this.#accept(ca);
    } catch (error) {
      this.#refuse(messageOf(error));
    }
  }

  #accept(ca: HeldCa): void {
    const isWorthAsking = ca !== this.#ca || this.#problem !== undefined;
    this.#ca = ca;
    this.#problem = undefined;
    this.#told = undefined;
    for (const warning of ca.warnings) this.#warnOnce(warning);
    if (isWorthAsking) for (const listener of [...this.#listeners]) listener();
  }

  #refuse(problem: string): void {
    this.#problem = problem;
    if (problem === this.#told || this.#isClosed) return;
    this.#told = problem;
    this.#tools.events.publish('upstreamFailed', { upstream: UPSTREAM, error: problem, retryMs: this.#pollMs });
  }

  /** The CA in use, which may have ended since it was read. */
  #usable(): HeldCa {
    const ca = this.#ca;
    if (ca === undefined) throw new SignetError('state_refused', this.#problem ?? 'the files of the CA have not been read yet');
    const now = this.#tools.clock.now();
    if (now < ca.notAfter) return ca;
    throw refusedFile('certificate', this.#options.files.certificate, `it, or one above it, has expired at ${iso(ca.notAfter)}`, 'renew it');
  }

  #warnOnce(warning: string): void {
    if (this.#warned.has(warning)) return;
    this.#warned.add(warning);
    this.#tools.log.warn({ event: 'upstream.warning', reason: warning }, 'the CA can be used, but it should be looked at');
  }
}

function judge(texts: CaTexts, options: FilesOptions, { clock, ca: tools }: Pick<FilesTools, 'clock' | 'ca'>): HeldCa {
  const { files, trustDomain } = options;
  const { certificates, privateKey, roots, warnings } = parseCaTexts(texts, files);
  const [certificate = Buffer.of(), ...others] = certificates;
  const result = tools.judgeCa({ certificate, others, privateKey, roots }, trustDomain, clock.now());
  if ('part' in result) {
    const path = result.part === 'roots' ? files.roots.join(', ') : files[result.part];
    throw refusedFile(result.part, path, result.what, result.remedy);
  }
  return { ...result, warnings: [...warnings, ...result.warnings] };
}

function digestOf({ certificate, key, roots, warnings }: CaTexts): string {
  return createHash('sha256').update(JSON.stringify([certificate, key, roots, warnings])).digest('hex');
}

/** X.509 times have no fractions. */
function wholeSecond(ms: number): number {
  return Math.floor(ms / 1000) * 1000;
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
