import type { KeyObject } from 'node:crypto';
import type { TrustDomain } from '../spiffe/id.ts';
import type { NameConstraint } from './name-constraints.ts';

/**
 * A CA above the node that signs node CAs. It is asked seldom, may be away for long, and what it answers is judged. It publishes
 * `upstreamAnswered` and `upstreamFailed` itself.
 */
export interface IntermediateSource {
  /**
   * How long a root must have been in the own bundle before a CA under it may sign, in milliseconds: what it takes, with room,
   * until all nodes of the trust domain have that root.
   */
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
  /** What is wrong with it at present, although it may go on signing with what it had; undefined when nothing is. */
  problem(): string | undefined;
  /** Calls `listener` when roots or issuer have changed, or it has come back: it is worth asking now. Returns the way to stop. */
  onChange(listener: () => void): () => void;
  /**
   * Signs a node CA.
   *
   * @throws SignetError `state_refused` when only an operator can help, `authority_unavailable` when it may pass, or the signal's
   * reason.
   */
  sign(request: IntermediateAsked, signal: AbortSignal): Promise<IntermediateAnswer>;
}

export interface IntermediateAsked {
  readonly trustDomain: TrustDomain;
  readonly publicKey: KeyObject;
  /** How long it should live; less is taken. */
  readonly ttlMs: number;
  readonly nameConstraint: NameConstraint;
  /** The node CA that signs now, for a CA that renews by it; undefined where there is none, or its key is not to be relied on. */
  readonly follows?: { readonly chain: readonly Buffer[]; readonly privateKey: KeyObject; readonly nameConstraint: NameConstraint } | undefined;
  /**
   * A PKCS #10 request for the same, in DER, for a CA that wants to see that the key is held. `complete`: with a common name and the
   * name constraint, for a CA that takes them from there alone. Default `plain`.
   */
  csr(form?: 'plain' | 'complete'): Promise<Buffer>;
}

export interface IntermediateAnswer {
  /** DER: the node CA, then what lies between it and the root, in that order; never the root. */
  readonly chain: readonly Buffer[];
  /** DER of the roots that it may end at. */
  readonly roots: readonly Buffer[];
}
