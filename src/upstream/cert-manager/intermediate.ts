import { X509Certificate } from 'node:crypto';
import { sleep } from '../../clock.ts';
import type { Upstream, UpstreamAnswer, UpstreamRequest } from '../upstream.ts';
import { chainUp } from '../wire/chain.ts';
import type { Anchors } from './anchors.ts';
import { certificatesIn, unknownRoot } from './answer.ts';
import { CertManagerError } from './cert-manager-error.ts';
import { issuerText, type IssuerRef } from './issuer-ref.ts';
import { PATIENCE } from './patience.ts';
import type { CertificateRequests } from './requests.ts';
import type { Trouble, TroubleTools } from './trouble.ts';

export interface IntermediateTools extends TroubleTools {
  /** These belong to whoever passes them. */
  readonly requests: Pick<CertificateRequests, 'issue'>;
  readonly anchors: Pick<Anchors, 'roots' | 'known' | 'onChange' | 'overlapMs'>;
  readonly trouble: Trouble;
}

/** cert-manager's certificates begin in the moment in which they are made: its clock may be ahead by so much, and is waited for. */
const AHEAD_MS = 300_000;

const SETTLE_MS = 300_000;

/** What an answer may take besides: the roots, and a clock that is ahead. */
const ROOM_MS = 60_000;

/** Node CAs from an issuer of the cluster's cert-manager. What is asked for is not taken as given: the answer is for others to judge. */
export class CertManagerIntermediate implements Upstream {
  /** Somebody may have to approve it. */
  readonly answerMs = PATIENCE.approval + 2 * PATIENCE.issuance + ROOM_MS;
  readonly settleMs = SETTLE_MS;
  readonly #issuer: IssuerRef;
  readonly #tools: IntermediateTools;

  constructor(issuer: IssuerRef, tools: IntermediateTools) {
    this.#issuer = issuer;
    this.#tools = tools;
  }

  get overlapMs(): number {
    return this.#tools.anchors.overlapMs;
  }

  roots(): readonly Buffer[] {
    return this.#tools.anchors.roots();
  }

  /** Not known before it has signed. */
  issuer(): undefined {
    return undefined;
  }

  problem(): string | undefined {
    return this.#tools.trouble.problem();
  }

  onChange(listener: () => void): () => void {
    const stops = [this.#tools.anchors.onChange(listener), this.#tools.trouble.onReturn(listener)];
    return () => stops.forEach((stop) => stop());
  }

  async sign(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamAnswer> {
    const { anchors, requests, trouble } = this.#tools;
    await anchors.known(signal);
    const { certificate: chain, ca } = await requests.issue({ csr: await request.csr('complete'), ttlMs: request.ttlMs, isCA: true }, signal);
    try {
      return await this.#answerOf(certificatesIn(chain), certificatesIn(ca), signal);
    } catch (error) {
      if (error instanceof CertManagerError) trouble.failed('sign', error);
      throw error;
    }
  }

  /** What it stands on belongs to whoever has made it. */
  close(): Promise<void> {
    return Promise.resolve();
  }

  async #answerOf([certificate, ...between]: readonly Buffer[], above: readonly Buffer[], signal: AbortSignal): Promise<UpstreamAnswer> {
    if (certificate === undefined) throw new CertManagerError('malformed', `what ${issuerText(this.#issuer)} has signed holds no certificate`);
    const roots = this.roots();
    const chain = chainUp(certificate, [...between, ...above], roots);
    if (chain === undefined) throw unknownRoot([certificate, ...between, ...above], issuerText(this.#issuer));
    await this.#untilValid(certificate, signal);
    return { chain, roots };
  }

  async #untilValid(certificate: Buffer, signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#tools;
    const from = new X509Certificate(certificate).validFromDate.getTime();
    const aheadMs = from - clock.now();
    if (aheadMs <= 0 || aheadMs > AHEAD_MS) return;
    const reason = `what ${issuerText(this.#issuer)} has signed begins in ${Math.ceil(aheadMs / 1_000)} s. What to do: set the clocks of this node and of cert-manager's right`;
    if (aheadMs > 1_000) log.warn({ event: 'upstream.warning', reason }, 'a clock is ahead of another');
    await sleep(clock, aheadMs, signal);
  }
}
