import { X509Certificate } from 'node:crypto';
import { SignetError } from '../../errors.ts';
import { assertWorkload, type TrustDomain } from '../../spiffe/id.ts';
import type { SignedX509, X509Request, X509Signer } from '../../spiffe/signing.ts';
import { Guard, type GuardOptions, type GuardState, type UpstreamFault } from '../guard.ts';
import type { JudgeLeaf } from '../vault/per-svid.ts';
import { certificatesIn, unknownRoot } from './answer.ts';
import { CertManagerError, hasFault } from './cert-manager-error.ts';
import { issuerText, type IssuerRef } from './issuer-ref.ts';
import type { CertificateRequests } from './requests.ts';
import type { Trouble, TroubleTools } from './trouble.ts';

export interface PerSvidOptions {
  readonly trustDomain: TrustDomain;
  readonly issuer: IssuerRef;
  readonly guard?: Partial<GuardOptions>;
}

/** Whom the own bundle believes. */
export interface SvidRoots {
  /** DER of the roots in the own bundle. */
  roots(): readonly Buffer[];
  /** From when on everybody has `root`, in milliseconds since the Unix epoch. */
  usableFrom(root: Buffer): number;
}

export interface PerSvidTools extends TroubleTools {
  /** These belong to whoever passes them. */
  readonly requests: Pick<CertificateRequests, 'issue'>;
  readonly roots: SvidRoots;
  readonly known: (signal: AbortSignal) => Promise<void>;
  readonly trouble: Trouble;
  readonly judgeLeaf: JudgeLeaf;
}

/**
 * cert-manager 1.19 signs some three requests a second for the whole cluster (its client's limit), so that one node takes no more than
 * its part. An attempt is given its time: one that is made anew each minute keeps a busy controller from ever catching up.
 */
const GUARD: Partial<GuardOptions> = { concurrency: 8, perSecond: 2, burst: 20, attemptMs: 300_000 };

/** A leaf may not end after its issuer; the clock of cert-manager may be ahead of ours. */
const END_MARGIN_MS = 30_000;
const SHORTEST_LIFE_MS = 1_000;

/** cert-manager has answered, with a no to this one request, or not in the way that it should now. */
class RefusedRequestError extends SignetError {}

/**
 * Has each X.509-SVID signed by an issuer of the cluster's cert-manager: no key that signs is on this node. The issuer decides what
 * stands in the certificate, so that each one is judged before it is released.
 */
export class CertManagerX509Signer implements X509Signer {
  readonly #options: PerSvidOptions;
  readonly #tools: PerSvidTools;
  readonly #guard: Guard;
  readonly #stop: () => void;
  /** The root under which everything stands at present, and the first end on the way to it. */
  #root: Buffer | undefined;
  #end = Infinity;

  constructor(options: PerSvidOptions, tools: PerSvidTools) {
    this.#options = options;
    this.#tools = tools;
    this.#guard = new Guard({ ...GUARD, ...options.guard }, { clock: tools.clock, random: tools.random, faultOf });
    this.#stop = tools.trouble.onReturn(() => this.#guard.wake());
  }

  /** Not known: renewal is planned from each certificate. */
  horizon(): number {
    return Infinity;
  }

  async sign(request: X509Request, signal: AbortSignal): Promise<SignedX509> {
    const { trustDomain } = this.#options;
    assertWorkload(request.id, trustDomain);
    let csr: Promise<Buffer> | undefined;
    const work = {
      do: async (inner: AbortSignal) => this.#ask(request, await (csr ??= request.csr()), inner),
      ...(request.heldUntil === undefined ? {} : { heldUntil: request.heldUntil }),
    };
    return this.#guard.run(work, signal);
  }

  /** What signing fails with at present; undefined when it does not. */
  problem(): string | undefined {
    return this.#tools.trouble.problem() ?? this.#guard.state().problem;
  }

  state(): GuardState {
    return this.#guard.state();
  }

  /** Calls `listener` when signing works again after it has failed. Returns the way to stop. */
  onRecover(listener: () => void): () => void {
    return this.#guard.onRecover(listener);
  }

  close(): void {
    this.#stop();
    this.#guard.close();
  }

  /** cert-manager lets a leaf outlive its issuer. Once it is known when that ends, less is asked for. */
  async #ask(request: X509Request, csr: Buffer, signal: AbortSignal): Promise<SignedX509> {
    const before = this.#end;
    try {
      return await this.#askOnce(request, csr, signal);
    } catch (error) {
      if (this.#end === before || signal.aborted) throw error;
      return this.#askOnce(request, csr, signal);
    }
  }

  async #askOnce(request: X509Request, csr: Buffer, signal: AbortSignal): Promise<SignedX509> {
    const { requests, known, trouble, clock } = this.#tools;
    await known(signal);
    const ttlMs = Math.min(request.ttlMs, this.#end - END_MARGIN_MS - clock.now());
    // What was known of the issuer may have been renewed since.
    const askedMs = ttlMs < SHORTEST_LIFE_MS ? request.ttlMs : ttlMs;
    const { certificate, ca } = await requests.issue({ csr, ttlMs: askedMs, isCA: false }, signal);
    try {
      return this.#judge([...certificatesIn(certificate), ...certificatesIn(ca)], { ...request, ttlMs: askedMs });
    } catch (error) {
      if (!(error instanceof RefusedRequestError)) trouble.failed('sign', error);
      throw error;
    }
  }

  #judge([leaf, ...others]: readonly Buffer[], request: X509Request): SignedX509 {
    const { roots, judgeLeaf, clock } = this.#tools;
    const { trustDomain, issuer } = this.#options;
    if (leaf === undefined) throw new CertManagerError('malformed', `what ${issuerText(issuer)} has signed holds no certificate`);
    const { id, publicKey, dnsNames, ttlMs } = request;
    const judged = judgeLeaf({ leaf, others }, { trustDomain, id, publicKey, dnsNames, ttlMs, roots: roots.roots() }, clock.now());
    this.#end = endAbove([...others, ...roots.roots()], leaf);
    if ('signed' in judged) return this.#release(judged.signed, request);
    if (this.#end < new X509Certificate(leaf).validToDate.getTime()) {
      throw new CertManagerError('failed', `${issuerText(issuer)}, or a CA above it, ends at ${new Date(this.#end).toISOString()}, before what it has signed. What to do: renew it`);
    }
    if (judged.problems.some(({ part, what }) => part === 'issuer' && /not among those that are believed|no root that is given|does not hold its issuer/.test(what))) throw unknownRoot([leaf, ...others], issuerText(issuer));
    throw new CertManagerError('failed', `what ${issuerText(issuer)} has signed is refused: ${judged.problems.map(({ what }) => what).join('; ')}`);
  }

  /** A root that is new here may be unknown elsewhere: whoever still has an SVID goes on with that until everybody has it. */
  #release(signed: SignedX509, { heldUntil }: X509Request): SignedX509 {
    const { roots, clock } = this.#tools;
    const last = signed.chain.at(-1);
    const root = roots.roots().find((der) => last !== undefined && isIssuedBy(last, der));
    if (root === undefined || this.#root?.equals(root) === true) return signed;
    const usableFrom = this.#root === undefined ? clock.now() : roots.usableFrom(root);
    if (usableFrom > clock.now() && heldUntil !== undefined && heldUntil > usableFrom) {
      throw new RefusedRequestError('authority_unavailable', `the issuer stands under a new root, which may not be everywhere before ${new Date(usableFrom).toISOString()}; the SVID that there is goes on until then`);
    }
    if (usableFrom <= clock.now()) this.#root = root;
    return signed;
  }
}

/** A no to one request may be about its names: others are asked for nevertheless. */
function faultOf(error: unknown): UpstreamFault | undefined {
  if (error instanceof RefusedRequestError || hasFault(error, 'denied', 'failed', 'invalid_request', 'rejected')) return undefined;
  return { retryAfterMs: error instanceof CertManagerError ? error.retryAfterMs : undefined };
}

/** The first end of the CAs above `leaf`, by what stands beside it. */
function endAbove(ders: readonly Buffer[], leaf: Buffer): number {
  let end = Infinity;
  let child = new X509Certificate(leaf);
  for (let level = 0; level < 8; level += 1) {
    const parent = ders.map((der) => new X509Certificate(der)).find((one) => child.checkIssued(one) && child.verify(one.publicKey));
    if (parent === undefined) return end;
    end = Math.min(end, parent.validToDate.getTime());
    if (parent.raw.equals(child.raw)) return end;
    child = parent;
  }
  return end;
}

function isIssuedBy(child: Buffer, parent: Buffer): boolean {
  const [one, other] = [new X509Certificate(child), new X509Certificate(parent)];
  return one.checkIssued(other) && one.verify(other.publicKey);
}
