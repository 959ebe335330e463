import { idOfTrustDomain } from '../../spiffe/id.ts';
import type { Upstream, UpstreamAnswer, UpstreamRequest } from '../upstream.ts';
import { chainUp, isRoot } from '../wire/chain.ts';
import { IssuerWatch, readRootFiles, type IssuerWatchOptions, type IssuerWatchTools } from '../wire/issuer-watch.ts';
import { UpstreamError } from '../wire/upstream-error.ts';
import type { StepCaClient } from './client.ts';
import { Renewal } from './renewal.ts';

export interface StepCaIntermediateOptions extends IssuerWatchOptions {
  /** Whether node CAs renew themselves over mutual TLS. Default false. */
  readonly renew?: boolean;
}

export interface StepCaIntermediateTools extends IssuerWatchTools {
  /** Belongs to whoever passes it. */
  readonly client: Pick<StepCaClient, 'issuers' | 'sign' | 'rekey' | 'longestLife' | 'problem' | 'onReturn'>;
}

/** Node CAs from step-ca. What is asked for is not taken as given: the answer is for others to judge. */
export class StepCaIntermediate implements Upstream {
  readonly #options: StepCaIntermediateOptions;
  readonly #tools: StepCaIntermediateTools;
  readonly #issuers: IssuerWatch;
  readonly #renewal: Renewal;

  /** Begins to look at the roots. */
  constructor(options: StepCaIntermediateOptions, tools: StepCaIntermediateTools) {
    const { client } = tools;
    this.#options = options;
    this.#tools = tools;
    this.#issuers = new IssuerWatch({ where: 'step-ca', read: (signal) => client.issuers(signal), onReturn: (listener) => client.onReturn(listener) }, options, tools);
    this.#renewal = new Renewal(tools);
  }

  /**
   * Reads the files with further roots, and does nothing else.
   *
   * @throws SignetError `state_refused` naming the file and what is wrong.
   */
  static async check({ roots = [] }: IssuerWatchOptions): Promise<void> {
    await readRootFiles(roots);
  }

  get overlapMs(): number {
    return this.#issuers.overlapMs;
  }

  roots(): readonly Buffer[] {
    return this.#issuers.roots();
  }

  issuer(): Buffer | undefined {
    return this.#issuers.issuer();
  }

  problem(): string | undefined {
    return this.#tools.client.problem() ?? this.#issuers.problem();
  }

  onChange(listener: () => void): () => void {
    return this.#issuers.onChange(listener);
  }

  async sign(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamAnswer> {
    signal.throwIfAborted();
    if (this.roots().length === 0) await this.#issuers.look(signal);
    const csr = await request.csr();
    const { ttlMs, trustDomain } = request;
    const renew = (either: AbortSignal) => (this.#options.renew === true ? this.#renewal.renew(request, csr, either) : Promise.resolve(undefined));
    const [certificate, ...above] = await this.#tools.client.sign({ subject: idOfTrustDomain(trustDomain), csr, ttlMs }, renew, signal);
    if (certificate === undefined) throw new UpstreamError('malformed', 'step-ca has answered with an empty chain');
    return this.#answerOf(certificate, above, signal);
  }

  close(): Promise<void> {
    return this.#issuers.close();
  }

  async #answerOf(certificate: Buffer, above: readonly Buffer[], signal: AbortSignal): Promise<UpstreamAnswer> {
    const isKnown = (der: Buffer): boolean => this.#issuers.certificates().some((other) => other.equals(der));
    // What has signed is newer than what is known: then its root may be too.
    if (!above.every(isKnown)) await this.#issuers.look(signal);
    const roots = this.roots();
    const chain = chainUp(certificate, [...above, ...this.#issuers.certificates()], roots);
    return { chain: chain ?? [certificate, ...above.filter((der) => !isRoot(der))], roots };
  }
}
