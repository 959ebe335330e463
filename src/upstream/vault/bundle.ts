import type { JwtAuthority, TrustBundle } from '../../spiffe/bundle.ts';
import type { TrustDomain } from '../../spiffe/id.ts';
import type { BundleSource } from '../../spiffe/signing.ts';

/** Where the X.509 roots of a bundle come from. */
export interface RootsPart {
  roots(): readonly Buffer[];
  onChange(listener: () => void): () => void;
}

/** Where its JWT authorities come from. */
export interface JwtPart {
  authorities(): readonly JwtAuthority[];
  onChange(listener: () => void): () => void;
}

/** A bundle whose X.509 roots and JWT keys come from different places, such as Vault's PKI and transit engines. */
export class TwoPartBundle implements BundleSource {
  readonly #trustDomain: TrustDomain;
  readonly #x509: RootsPart;
  readonly #jwt: JwtPart;
  readonly #listeners = new Set<(bundle: TrustBundle) => void>();
  readonly #stops: readonly (() => void)[];
  #bundle: TrustBundle;

  constructor(trustDomain: TrustDomain, x509: RootsPart, jwt: JwtPart) {
    this.#trustDomain = trustDomain;
    this.#x509 = x509;
    this.#jwt = jwt;
    this.#bundle = this.#compose();
    this.#stops = [x509, jwt].map((part) => part.onChange(() => this.#follow()));
  }

  current(): TrustBundle {
    return this.#bundle;
  }

  onChange(listener: (bundle: TrustBundle) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  close(): void {
    for (const stop of this.#stops) stop();
    this.#listeners.clear();
  }

  #compose(): TrustBundle {
    return { trustDomain: this.#trustDomain, x509Authorities: this.#x509.roots(), jwtAuthorities: this.#jwt.authorities() };
  }

  #follow(): void {
    const next = this.#compose();
    if (isSame(next, this.#bundle)) return;
    this.#bundle = next;
    for (const listener of [...this.#listeners]) listener(next);
  }
}

function isSame(one: TrustBundle, other: TrustBundle): boolean {
  const isSameList = <T>(a: readonly T[], b: readonly T[], equal: (x: T, y: T | undefined) => boolean): boolean =>
    a.length === b.length && a.every((item, index) => equal(item, b[index]));
  return (
    isSameList(one.x509Authorities, other.x509Authorities, (a, b) => b !== undefined && a.equals(b)) &&
    isSameList(one.jwtAuthorities, other.jwtAuthorities, (a, b) => a.kid === b?.kid)
  );
}
