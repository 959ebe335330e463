import type { ExecutionContext } from 'ava';

/** The lines of README.md's contract, as far as the proofs read them. */
export interface X509Line {
  readonly id: string;
  readonly hint: string | null;
  readonly chain: number;
  readonly bundle: number;
  readonly notAfter: number;
}

export interface TokenLine {
  readonly sub: string;
  readonly aud: readonly string[];
}

export interface JwtLine {
  readonly local: TokenLine;
  readonly remote: TokenLine;
  readonly refused: { readonly local: string; readonly remote: string };
}

export interface BundlesLine {
  readonly x509: Readonly<Record<string, number>>;
  readonly jwt: Readonly<Record<string, readonly string[]>>;
}

/** Trust domain name of a SPIFFE ID. */
export function trustDomainOf(id: string): string {
  return new URL(id).host;
}

export function assertX509(t: ExecutionContext, line: X509Line, id: string, hint: string | null | undefined): void {
  t.is(line.id, id);
  if (hint !== undefined) t.is(line.hint, hint);
  t.true(line.chain >= 1, 'at least the leaf');
  t.true(line.bundle >= 1, 'at least one authority');
  t.true(line.notAfter * 1000 > Date.now(), 'not expired');
}

export function assertJwt(t: ExecutionContext, line: JwtLine, id: string, audience: string): void {
  const expected = { sub: id, aud: [audience] };
  t.deepEqual(line.local, expected);
  t.deepEqual(line.remote, expected);
  t.not(line.refused.local, '', 'local validation refuses another audience');
  t.regex(line.refused.remote, /invalid_?argument/i, 'ValidateJWTSVID refuses another audience with InvalidArgument');
}

export function assertBundles(t: ExecutionContext, line: BundlesLine, id: string): void {
  const name = trustDomainOf(id);
  t.true((line.x509[name] ?? 0) >= 1, 'at least one X.509 authority');
  t.true((line.jwt[name] ?? []).length >= 1, 'at least one JWT authority');
}
