import { X509Certificate } from 'node:crypto';
import { messageOf } from '../../errors.ts';
import type { Log } from '../../log.ts';
import type { UpstreamRequest } from '../upstream.ts';
import { hasFault } from '../wire/upstream-error.ts';
import type { SignedChain, StepCaClient } from './client.ts';

export interface RenewalTools {
  readonly client: Pick<StepCaClient, 'rekey' | 'longestLife'>;
  readonly log: Log;
}

/** What step-ca adds to a life (its back-date), and what it loses on the way. */
const LONGER_MS = 300_000;
const SHORTER_MS = 10_000;

/**
 * A node CA has its successor signed by itself, over mutual TLS, where it can: then the credential of the node is needed once only.
 * step-ca copies everything but key and dates, the name among it, so that what is asked for otherwise needs a token.
 */
export class Renewal {
  readonly #tools: RenewalTools;
  #last: Buffer | undefined;
  #told: string | undefined;

  constructor(tools: RenewalTools) {
    this.#tools = tools;
  }

  /**
   * Resolves with undefined when a token is needed.
   *
   * @throws UpstreamError when nothing can be asked at present, or the reason of the signal.
   */
  async renew({ follows, ttlMs, nameConstraint }: Pick<UpstreamRequest, 'follows' | 'ttlMs' | 'nameConstraint'>, csr: Buffer, signal: AbortSignal): Promise<SignedChain | undefined> {
    const [certificate] = follows?.chain ?? [];
    if (follows === undefined || certificate === undefined || follows.nameConstraint !== nameConstraint) return undefined;
    // What came of it last time was not used: it would be the same again.
    if (this.#last?.equals(certificate) === true) return undefined;
    if (!(await this.#isLongEnough(certificate, ttlMs, signal))) return undefined;
    try {
      const chain = await this.#tools.client.rekey(follows, csr, signal);
      this.#last = certificate;
      this.#told = undefined;
      return chain;
    } catch (error) {
      if (signal.aborted || hasFault(error, 'timed_out', 'unavailable')) throw error;
      this.#tell(messageOf(error));
      return undefined;
    }
  }

  async #isLongEnough(certificate: Buffer, ttlMs: number, signal: AbortSignal): Promise<boolean> {
    const { validFromDate, validToDate } = new X509Certificate(certificate);
    const lifeMs = validToDate.getTime() - validFromDate.getTime();
    if (lifeMs > ttlMs + LONGER_MS) return false;
    if (lifeMs >= ttlMs - SHORTER_MS) return true;
    return lifeMs >= (await this.#tools.client.longestLife(signal)) - SHORTER_MS;
  }

  #tell(reason: string): void {
    if (reason === this.#told) return;
    this.#told = reason;
    this.#tools.log.warn({ event: 'upstream.warning', reason }, 'the node CA cannot be renewed by itself; a token is used');
  }
}
