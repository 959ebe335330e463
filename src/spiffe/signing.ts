import type { TrustBundle } from './bundle.ts';
import type { SpiffeId } from './id.ts';

/**
 * The waist: everything that signs implements these, and nothing else knows how it is done. A signer never returns what it was
 * not asked for, and rejects with SignetError `authority_unavailable` when it cannot sign now.
 */
export interface X509Signer {
  sign(request: X509Request, signal: AbortSignal): Promise<SignedX509>;
  /** The end that nothing signed now can outlive, in milliseconds since the Unix epoch; Infinity when it is not known. */
  horizon(): number;
}

export interface X509Request {
  readonly id: SpiffeId;
  /** The workload's public key: SubjectPublicKeyInfo in DER. */
  readonly publicKey: Buffer;
  readonly ttlMs: number;
  readonly dnsNames: readonly string[];
  /**
   * A PKCS #10 request for the same in DER, signed with the workload's private key, for a CA that wants to see that it is held
   * (RFC 2986 §4). Made when it is asked for: the key itself stays with whoever asks.
   */
  csr(): Promise<Buffer>;
  /** When the SVID that this one replaces ends, in milliseconds since the Unix epoch; absent when the workload has none. */
  readonly heldUntil?: number;
}

export interface SignedX509 {
  /** DER, leaf first, without the root. */
  readonly chain: readonly Buffer[];
  readonly serial: string;
  /** Milliseconds since the Unix epoch. */
  readonly notBefore: number;
  readonly notAfter: number;
}

export interface JwtSigner {
  sign(request: JwtRequest, signal: AbortSignal): Promise<SignedJwt>;
}

export interface JwtRequest {
  readonly id: SpiffeId;
  /** In the order in which they go into `aud`. */
  readonly audience: readonly string[];
  readonly ttlMs: number;
  /** When the token that this one replaces ends, in milliseconds since the Unix epoch; absent when the caller waits for this one. */
  readonly heldUntil?: number;
}

export interface SignedJwt {
  readonly token: string;
  readonly kid: string;
  /** Milliseconds since the Unix epoch. */
  readonly issuedAt: number;
  readonly expiresAt: number;
}

export interface BundleSource {
  /** The bundle of the own trust domain as it is now. */
  current(): TrustBundle;
  /** Calls `listener` at each change. Returns the way to stop. */
  onChange(listener: (bundle: TrustBundle) => void): () => void;
}
