import { X509Certificate } from 'node:crypto';
import * as v from 'valibot';
import type { Alarm, Clock } from '../clock.ts';
import { messageOf, SignetError } from '../errors.ts';
import type { Log } from '../log.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { profileProblem, readCa } from './ca-certificate.ts';
import { Moment, moment } from './jwt-signing-key.ts';
import { endOf, followRoots, knownRoot, usableFrom, type KnownRoot } from './known-roots.ts';
import { readPrivateFile, statePath, writePrivateFile } from './state-file.ts';

/** Whoever knows the roots of the CA above. */
export interface RootSource {
  /** Time until all nodes have a root that this one has got, in milliseconds. */
  readonly overlapMs: number;
  /** DER of the roots that it stands for now, each once; empty while nothing is known. */
  roots(): readonly Buffer[];
  /** Calls `listener` when they have changed. Returns the way to stop. */
  onChange(listener: () => void): () => void;
}

export interface FollowedRootsOptions {
  readonly trustDomain: TrustDomain;
  /** Must exist and be locked by this process. */
  readonly directory: string;
  /** Longest life of anything that any node has signed under a root, in milliseconds: so long it stays after the CA has left it. */
  readonly holdMs: number;
}

export interface FollowedRootsTools {
  readonly clock: Clock;
  readonly log: Log;
  readonly source: RootSource;
}

const FILE = 'followed-roots.json';
const StateText = v.strictObject({
  version: v.literal(1),
  trustDomain: v.string(),
  roots: v.array(v.strictObject({ certificate: v.string(), since: Moment, leftAt: v.nullable(Moment) })),
});

/**
 * The roots of a CA above that signs every SVID itself. They are there before anything under them is (FED-02) and stay until all of
 * it has ended (FED-04); and they survive a restart, so that a bundle can be served while the CA is away.
 */
export class FollowedRoots {
  readonly #options: FollowedRootsOptions;
  readonly #tools: FollowedRootsTools;
  readonly #listeners = new Set<() => void>();
  readonly #warned = new Set<string>();
  readonly #stops: readonly (() => void)[];
  #known: readonly KnownRoot[];
  #roots: readonly Buffer[] = [];
  #alarm: Alarm | undefined;
  #writing: Promise<void> = Promise.resolve();
  #isClosed = false;

  /** @throws SignetError `state_refused` for a damaged or foreign file. */
  constructor(options: FollowedRootsOptions, tools: FollowedRootsTools) {
    this.#options = options;
    this.#tools = tools;
    this.#known = readState(options);
    this.#stops = [tools.source.onChange(() => this.#follow()), tools.clock.onStep(() => this.#follow())];
    this.#follow();
  }

  /** DER of those in the bundle, the oldest first. */
  roots(): readonly Buffer[] {
    return this.#roots;
  }

  /** From when on something under `root` may sign; Infinity for one that is not in the bundle. Milliseconds since the Unix epoch. */
  usableFrom(root: Buffer): number {
    return usableFrom(this.#known, root, this.#tools.source.overlapMs);
  }

  /** Calls `listener` when the roots in the bundle have changed. Returns the way to stop. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Resolves when nothing is being written any more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#alarm?.cancel();
    for (const stop of this.#stops) stop();
    this.#listeners.clear();
    await this.#writing;
  }

  #follow(): void {
    const now = this.#tools.clock.now();
    const before = this.#known;
    const followed = followRoots(before, this.#good(), now);
    const live = followed.filter((root) => now < this.#endOf(root));
    this.#known = live.length === followed.length ? followed : live;
    this.#plan();
    if (this.#known === before && this.#roots.length > 0) return;
    this.#roots = this.#known.map(({ certificate }) => certificate);
    if (this.#known !== before) this.#save();
    for (const listener of [...this.#listeners]) listener();
  }

  /** A certificate that no verifier would take for a root of this trust domain is left out, and told once. */
  #good(): readonly Buffer[] {
    const { clock, log, source } = this.#tools;
    return source.roots().filter((der) => {
      const ca = readCa(der);
      const problem = clock.now() >= ca.notAfter ? undefined : profileProblem(ca, this.#options.trustDomain);
      if (problem !== undefined && !this.#warned.has(der.toString('latin1'))) {
        this.#warned.add(der.toString('latin1'));
        log.warn({ event: 'upstream.warning', reason: `the root "${ca.name}" is left out of the bundle: ${problem.what}. What to do: ${problem.remedy}` }, 'a root of the upstream is not believed');
      }
      return problem === undefined && clock.now() < ca.notAfter;
    });
  }

  #endOf(root: KnownRoot): number {
    return endOf(root, [], this.#options.holdMs + this.#tools.source.overlapMs);
  }

  #plan(): void {
    this.#alarm?.cancel();
    const next = Math.min(...this.#known.map((root) => this.#endOf(root)));
    if (Number.isFinite(next) && !this.#isClosed) this.#alarm = this.#tools.clock.at(next, () => this.#follow());
  }

  #save(): void {
    const { directory, trustDomain } = this.#options;
    const roots = this.#known.map(({ certificate, since, leftAt }) => ({
      certificate: new X509Certificate(certificate).toString(),
      since: moment(since),
      leftAt: leftAt === undefined ? null : moment(leftAt),
    }));
    const text = `${JSON.stringify({ version: 1, trustDomain, roots }, null, 2)}\n`;
    this.#writing = this.#writing.then(() => writePrivateFile(statePath(directory, FILE), text)).catch((error: unknown) => {
      this.#tools.log.warn({ event: 'upstream.warning', reason: messageOf(error) }, 'the roots cannot be kept; a restart while the upstream is away will find none');
    });
  }
}

function readState({ directory, trustDomain }: FollowedRootsOptions): readonly KnownRoot[] {
  const path = statePath(directory, FILE);
  const text = readPrivateFile(path);
  if (text === undefined) return [];
  try {
    const state = v.parse(StateText, JSON.parse(text));
    if (state.trustDomain !== trustDomain) throw new Error(`it belongs to the trust domain ${JSON.stringify(state.trustDomain)}, and this agent serves "${trustDomain}"`);
    return state.roots.map(({ certificate, since, leftAt }) => knownRoot(new X509Certificate(certificate).raw, Date.parse(since), leftAt === null ? undefined : Date.parse(leftAt)));
  } catch (error) {
    throw new SignetError('state_refused', `${path} is damaged or foreign: ${messageOf(error)}. What to do: move it away; the roots are then read from the CA above.`, { cause: error });
  }
}
