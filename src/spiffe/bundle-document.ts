import { X509Certificate } from 'node:crypto';
import type { JwtAuthority } from './bundle.ts';

/** All that a JWK of a SPIFFE bundle may have beside `use`, `kid` and `x5c` (SPIFFE Trust Domain and Bundle §4.2, TD-16). */
const PUBLIC_MEMBERS = ['kty', 'crv', 'x', 'y', 'n', 'e'] as const;

/** The `keys` of a bundle as a JWK Set: X.509 authorities (DER) first (SPIFFE Trust Domain and Bundle §4.2). */
export function bundleKeys(x509Authorities: readonly Buffer[], jwtAuthorities: readonly Pick<JwtAuthority, 'kid' | 'jwk'>[]): object[] {
  const x509 = x509Authorities.map((der) => {
    const jwk = new X509Certificate(der).publicKey.export({ format: 'jwk' });
    return { ...publicMembers(jwk), use: 'x509-svid', x5c: [der.toString('base64')] };
  });
  return [...x509, ...jwtAuthorities.map(({ kid, jwk }) => ({ ...publicMembers(jwk), use: 'jwt-svid', kid }))];
}

/** What of a JWK may be published; members that are no text, or an empty one, are left out. */
export function publicMembers(jwk: object): Record<string, string> {
  const members = jwk as Readonly<Record<string, unknown>>;
  return Object.fromEntries(
    PUBLIC_MEMBERS.flatMap((name) => {
      const value = members[name];
      return typeof value === 'string' && value !== '' ? [[name, value]] : [];
    }),
  );
}
