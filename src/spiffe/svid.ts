import type { SpiffeId } from './id.ts';

/** One X.509-SVID with its key, as the Workload API hands it out. Times are milliseconds since the Unix epoch. */
export interface X509Svid {
  readonly id: SpiffeId;
  /** DER, leaf first, then intermediates; never the root (X509-SVID §3.1, Workload API §5.2.1). */
  readonly chain: readonly Buffer[];
  /** Unencrypted PKCS#8 DER. */
  readonly privateKey: Buffer;
  readonly serial: string;
  readonly notBefore: number;
  readonly notAfter: number;
}

/** One JWT-SVID. Times are milliseconds since the Unix epoch. */
export interface JwtSvid {
  readonly id: SpiffeId;
  /** JWS compact serialization. */
  readonly token: string;
  readonly issuedAt: number;
  readonly expiresAt: number;
}
