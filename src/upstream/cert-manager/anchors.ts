import type { Alarm } from '../../clock.ts';
import { messageOf, SignetError } from '../../errors.ts';
import type { ListWatch } from '../../kubernetes/api-client.ts';
import { Informer } from '../../kubernetes/informer.ts';
import { objectAt, textAt } from '../../kubernetes/json.ts';
import { named, namespacedPathOf, type Resource } from '../../kubernetes/resources.ts';
import { readPem } from '../../spiffe/pem.ts';
import { unlessAborted } from '../wire/abort.ts';
import { readRootFiles } from '../wire/issuer-watch.ts';
import { isRoot, once } from '../wire/chain.ts';
import { CertManagerError } from './cert-manager-error.ts';
import type { Trouble, TroubleTools } from './trouble.ts';

export interface ConfigMapKey {
  readonly namespace: string;
  readonly name: string;
  readonly key: string;
}

export interface AnchorsOptions {
  /** PEM files. */
  readonly files: readonly string[];
  /** A ConfigMap with PEM, such as trust-manager writes. */
  readonly configMap: ConfigMapKey | undefined;
  /** How often the files are looked at, in milliseconds. Default 10 s. */
  readonly pollMs?: number;
}

export interface AnchorsTools extends TroubleTools {
  /** Belongs to whoever passes it. */
  readonly client: ListWatch;
  readonly trouble: Trouble;
  /** What keeps a root (DER) from standing above the identities of the trust domain; undefined when nothing does. */
  readonly judgeRoot: (root: Buffer) => string | undefined;
}

const CONFIG_MAPS: Resource = { name: 'configmaps', path: '/api/v1/configmaps' };
const POLL_MS = 10_000;

/** Until all nodes have a changed ConfigMap by their watches, with room for one that has just broken off. */
const WATCH_SPREAD_MS = 60_000;
/** By then a kubelet has brought a changed ConfigMap or Secret into its mounts, twice. */
const FILES_SPREAD_MS = 180_000;

/** Different warnings that are told. */
const MOST_WARNINGS = 16;

/**
 * The roots that are believed: those that an operator has named, and no other. What cert-manager answers as the CA may be absent, and
 * whoever can write the status of a request could put any root there. What has been read stays while it cannot be read again.
 */
export class Anchors {
  /** Time until all nodes have a root that this one has got, in milliseconds. */
  readonly overlapMs: number;
  readonly #options: AnchorsOptions;
  readonly #tools: AnchorsTools;
  readonly #listeners = new Set<() => void>();
  readonly #warned = new Set<string>();
  readonly #known = Promise.withResolvers<void>();
  readonly #informer: Informer<string> | undefined;
  readonly #closing = new AbortController();
  #fromFiles: readonly Buffer[] | undefined;
  #fromMap: readonly Buffer[] | undefined;
  #roots: readonly Buffer[] = [];
  #filesProblem: string | undefined;
  #mapProblem: string | undefined;
  #problem: string | undefined;
  #reading: Promise<void> | undefined;
  #alarm: Alarm | undefined;

  /** Begins to read. */
  constructor(options: AnchorsOptions, tools: AnchorsTools) {
    this.#options = options;
    this.#tools = tools;
    this.overlapMs = options.files.length > 0 ? FILES_SPREAD_MS : WATCH_SPREAD_MS;
    this.#known.promise.catch(() => undefined);
    this.#informer = this.#follow();
    this.#read();
  }

  /**
   * Reads the files, and does nothing else.
   *
   * @throws SignetError `state_refused` naming the file and what is wrong.
   */
  static async check({ files }: Pick<AnchorsOptions, 'files'>): Promise<void> {
    await readRootFiles(files);
  }

  /** DER, each once; empty until all sources have been read: those of one alone would look like a loss of the others. */
  roots(): readonly Buffer[] {
    return this.#roots;
  }

  /** Resolves when there are roots. @throws CertManagerError `no_roots` when `signal` is aborted before. */
  async known(signal: AbortSignal): Promise<void> {
    if (this.#roots.length > 0) return;
    try {
      await unlessAborted(this.#known.promise, signal);
    } catch (error) {
      throw this.#roots.length > 0 ? error : new CertManagerError('no_roots', this.#problem ?? 'the roots are not known yet', { cause: error });
    }
  }

  /** Calls `listener` when the roots have changed. Returns the way to stop. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Resolves when nothing is being read any more. */
  async close(): Promise<void> {
    const stopped = new SignetError('stopped', 'the agent stops');
    this.#closing.abort(stopped);
    this.#known.reject(stopped);
    this.#alarm?.cancel();
    this.#listeners.clear();
    await Promise.all([this.#reading, this.#informer?.close()]);
  }

  #follow(): Informer<string> | undefined {
    const { configMap } = this.#options;
    if (configMap === undefined) return undefined;
    const { client, clock, random, log } = this.#tools;
    const resource = { ...CONFIG_MAPS, path: namespacedPathOf(CONFIG_MAPS, configMap.namespace) };
    const trim = (raw: Parameters<typeof objectAt>[0]): string => textAt(objectAt(raw, 'data'), configMap.key);
    const informer = new Informer<string>({ client, resource, fieldSelector: named(configMap.name), trim, clock, random, log });
    informer.onChange((kind, text) => {
      if (kind !== 'removed') this.#readMap(text);
    });
    informer.start();
    void informer.whenSynced().then(() => this.#look(), () => undefined);
    return informer;
  }

  #read(): void {
    this.#reading = this.#readFiles().finally(() => {
      if (this.#closing.signal.aborted) return;
      this.#look();
      this.#alarm = this.#tools.clock.after(this.#options.pollMs ?? POLL_MS, () => this.#read());
    });
  }

  async #readFiles(): Promise<void> {
    try {
      this.#fromFiles = await readRootFiles(this.#options.files);
      this.#filesProblem = undefined;
    } catch (error) {
      this.#filesProblem = messageOf(error);
    }
  }

  #readMap(text: string): void {
    try {
      const ders = readPem(text).filter(({ label }) => label === 'CERTIFICATE').map(({ der }) => der);
      if (ders.length === 0) throw new Error('it holds no certificate in PEM');
      if (!ders.every(isRoot)) throw new Error('it holds a certificate that is not self-signed');
      this.#fromMap = ders;
      this.#mapProblem = undefined;
    } catch (error) {
      this.#mapProblem = `the roots in ${this.#mapName} cannot be used: ${messageOf(error)}. What to do: write the roots there as PEM`;
    }
    this.#look();
  }

  get #mapName(): string {
    const { namespace = '', name = '', key = '' } = this.#options.configMap ?? {};
    return `the ConfigMap ${namespace}/${name} (${key})`;
  }

  /** Why what there is may not be all. */
  #standing(): string | undefined {
    const informer = this.#informer;
    if (this.#filesProblem !== undefined) return this.#filesProblem;
    if (this.#mapProblem !== undefined) return this.#mapProblem;
    if (informer === undefined) return undefined;
    if (informer.failure !== undefined) return `${this.#mapName} is not told: ${informer.failure}`;
    if (informer.synced && informer.size === 0) return `${this.#mapName} does not exist. What to do: make it, or name another one in authority.certManager.rootsConfigMap`;
    return undefined;
  }

  #look(): void {
    if (this.#closing.signal.aborted) return;
    const { trouble } = this.#tools;
    const problem = this.#standing();
    if (problem !== undefined && problem !== this.#problem) trouble.failed('roots', new CertManagerError('no_roots', this.#roots.length === 0 ? problem : `${problem}; the last good roots go on`));
    if (problem === undefined && this.#problem !== undefined) trouble.succeeded('roots', 0);
    this.#problem = problem;
    this.#compose();
  }

  #compose(): void {
    const { files, configMap } = this.#options;
    const isWhole = (files.length === 0 || this.#fromFiles !== undefined) && (configMap === undefined || this.#fromMap !== undefined);
    if (!isWhole) return;
    const next = once([...(this.#fromFiles ?? []), ...(this.#fromMap ?? [])]).filter((root) => this.#isGood(root));
    if (isSame(next, this.#roots)) return;
    this.#roots = next;
    if (next.length > 0) this.#known.resolve();
    for (const listener of [...this.#listeners]) listener();
  }

  /** What cannot be a root of this trust domain is left out. */
  #isGood(root: Buffer): boolean {
    const problem = this.#tools.judgeRoot(root);
    if (problem === undefined) return true;
    const text = `a root of authority.certManager is left out: ${problem}`;
    if (!this.#warned.has(text) && this.#warned.size < MOST_WARNINGS) {
      this.#tools.log.warn({ event: 'upstream.warning', reason: text }, 'a root is not believed');
    }
    this.#warned.add(text);
    return false;
  }
}

function isSame(a: readonly Buffer[], b: readonly Buffer[]): boolean {
  return a.length === b.length && a.every((one, index) => b[index]?.equals(one) === true);
}
