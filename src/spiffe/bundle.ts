import type { KeyObject } from 'node:crypto';
import type { TrustDomain } from './id.ts';

/** A key that JWT-SVIDs of the trust domain are signed with. */
export interface JwtAuthority {
  /** RFC 7638 thumbprint. */
  readonly kid: string;
  readonly publicKey: KeyObject;
  /** The public key as RFC 7517 members (`kty`, `crv`, `x`, `y` or `n`, `e`), without `kid` and `use`. */
  readonly jwk: Readonly<Record<string, string>>;
}

/** What proves identities of one trust domain. Immutable: a change is a new value. */
export interface TrustBundle {
  readonly trustDomain: TrustDomain;
  /** DER of each CA certificate. */
  readonly x509Authorities: readonly Buffer[];
  readonly jwtAuthorities: readonly JwtAuthority[];
}
