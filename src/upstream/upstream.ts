import type { KeyObject } from 'node:crypto';
import type { TrustDomain } from '../spiffe/id.ts';

/**
 * A CA above the node that signs node CAs. How it does so is its own affair; whoever asked judges whether the answer is good. Each
 * publishes `upstreamAnswered` and `upstreamFailed`.
 */
export interface Upstream {
  /** Time until all nodes have a root that this one has got, in milliseconds. */
  readonly overlapMs: number;
  /** How long `sign` may take until it is taken to be away, in milliseconds. Default 30 s. */
  readonly answerMs?: number;
  /**
   * How old a node CA of it should be before it signs, where another one goes on meanwhile, in milliseconds: for one whose certificates
   * begin in the moment in which they are made, which verifiers with clocks that are behind refuse. Default 0.
   */
  readonly settleMs?: number;
  /** DER of the roots that it stands for now, each once; empty while nothing is known. */
  roots(): readonly Buffer[];
  /** DER of the CA that would sign now; undefined when it is not known beforehand. */
  issuer(): Buffer | undefined;
  /** What is wrong with it at present, even if it goes on signing with what it had; undefined when nothing is. */
  problem(): string | undefined;
  /** Calls `listener` when it is worth asking anew: roots or issuer have changed, or it has come back. Returns the way to stop. */
  onChange(listener: () => void): () => void;
  /** @throws SignetError `state_refused` when only an operator can help, `authority_unavailable` when it may pass. */
  sign(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamAnswer>;
  close(): Promise<void>;
}

export interface UpstreamRequest {
  readonly trustDomain: TrustDomain;
  readonly publicKey: KeyObject;
  /** How long the node CA should live, in milliseconds; it may get less. */
  readonly ttlMs: number;
  /** `uri`: its certificate says that it may sign URIs of the trust domain only (RFC 5280 §4.2.1.10). */
  readonly nameConstraint: 'none' | 'uri';
  /** The same as PKCS #10, in DER. `complete`: for a CA that takes name and constraint from there alone. Default `plain`. */
  csr(form?: 'plain' | 'complete'): Promise<Buffer>;
  /** The node CA that this one is to follow while that is good, for a CA that renews by it. */
  readonly follows?: FollowedNodeCa | undefined;
}

export interface FollowedNodeCa {
  /** DER: itself, then what lies between it and the root. */
  readonly chain: readonly Buffer[];
  readonly privateKey: KeyObject;
  /** What was asked for. */
  readonly nameConstraint: 'none' | 'uri';
}

export interface UpstreamAnswer {
  /** DER: the node CA, then what lies between it and the root, in that order; never the root. */
  readonly chain: readonly Buffer[];
  /** DER of the roots that it may end at. */
  readonly roots: readonly Buffer[];
}

/** A CA whose key this process holds. Certificates are DER, times milliseconds since the Unix epoch. */
export interface HeldCa {
  readonly certificate: Buffer;
  readonly privateKey: KeyObject;
  readonly subjectName: Buffer;
  readonly subjectKeyId: Buffer;
  /** Itself and what lies between it and the root; empty when it is the root. */
  readonly chain: readonly Buffer[];
  readonly roots: readonly Buffer[];
  readonly notBefore: number;
  /** The first end on the way to the root. */
  readonly notAfter: number;
  readonly warnings: readonly string[];
}

/** Why a CA is not used: which part of it, the end of a sentence about that part, and what an operator does. */
export interface RefusedCa {
  readonly part: 'certificate' | 'key' | 'roots';
  readonly what: string;
  readonly remedy: string;
}

/** What an upstream that signs by itself needs of whoever knows certificates. */
export interface CaTools {
  judgeCa(
    material: { certificate: Buffer; others: readonly Buffer[]; privateKey: KeyObject; roots: readonly Buffer[] },
    trustDomain: TrustDomain,
    now: number,
  ): HeldCa | RefusedCa;
  /** Resolves with the DER of a node CA, signed by `ca`. */
  signNodeCa(
    ca: HeldCa,
    request: { trustDomain: TrustDomain; publicKey: KeyObject; nameConstraint: 'none' | 'uri'; notBefore: number; notAfter: number },
  ): Promise<Buffer>;
}
