import { SignetError } from '../errors.ts';
import type { Clock } from '../clock.ts';
import type { Random } from '../random.ts';
import { assertWorkload, type TrustDomain } from '../spiffe/id.ts';
import type { SignedX509, X509Request, X509Signer } from '../spiffe/signing.ts';
import { wholeSecond, type CertificateRequest, type Issuer } from './certificate.ts';
import { LeafMint } from './leaf-mint.ts';

/** What a signer on the node signs with at this moment. */
export interface IssuerSource {
  /** Resolves at once when there is an issuer; else when the one that is being made is there, or could not be made. */
  ready(): Promise<void>;
  /** @throws SignetError `authority_unavailable` when there is none. */
  issuer(): Issuer;
  /** The certificates between leaf and root, DER, leaf side first; empty under a root. */
  intermediates(): readonly Buffer[];
}

/** Clocks of peers differ: a leaf begins this much before it is made, though never before its issuer. */
const BACKDATE_MS = 60_000;

/** A leaf that would end sooner than this is of no use to anybody. */
const SHORTEST_LIFE_MS = 1_000;

/** Signs leaves with a CA key that is on this node. */
export class NodeX509Signer implements X509Signer {
  readonly #source: IssuerSource;
  readonly #trustDomain: TrustDomain;
  readonly #clock: Clock;
  readonly #mint: LeafMint;

  /** `more`: extensions in DER that every leaf has besides those of its profile. */
  constructor(source: IssuerSource, trustDomain: TrustDomain, clock: Clock, random: Random, more?: Buffer) {
    this.#source = source;
    this.#trustDomain = trustDomain;
    this.#clock = clock;
    this.#mint = new LeafMint(random, more);
  }

  horizon(): number {
    return this.#source.issuer().notAfter;
  }

  async sign(request: X509Request, signal: AbortSignal): Promise<SignedX509> {
    signal.throwIfAborted();
    await this.#source.ready();
    // Read together: another issuer may sign by the time the leaf is made.
    const issuer = this.#source.issuer();
    const intermediates = this.#source.intermediates();
    const asked = this.#plan(request, issuer);
    const { der, serial } = await this.#mint.mint(issuer, asked);
    return { chain: [der, ...intermediates], serial, notBefore: asked.notBefore, notAfter: asked.notAfter };
  }

  /** Refuses what this trust domain may not say (ID-27, XS-04) and fits the dates into the issuer's. */
  #plan(request: X509Request, issuer: Issuer): CertificateRequest {
    assertWorkload(request.id, this.#trustDomain);
    const now = this.#clock.now();
    const notBefore = Math.max(wholeSecond(now - BACKDATE_MS), issuer.notBefore);
    const notAfter = Math.min(wholeSecond(now + request.ttlMs), issuer.notAfter);
    if (notAfter - now < SHORTEST_LIFE_MS) {
      throw new SignetError('authority_unavailable', `the CA certificate ends at ${new Date(issuer.notAfter).toISOString()}: nothing can be signed with it`);
    }
    return { id: request.id, publicKey: request.publicKey, dnsNames: request.dnsNames, notBefore, notAfter };
  }
}
