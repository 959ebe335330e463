import type { JwtBundles, X509BundleContext } from '../client/responses.ts';
import type { WorkloadApiClient } from '../client/workload-api-client.ts';
import { WorkloadApiError } from '../client/workload-api-error.ts';
import { messageOf } from '../errors.ts';
import { bundleKeys } from '../spiffe/bundle-document.ts';
import type { JwtAuthority } from '../spiffe/bundle.ts';
import { parseTrustDomain, trustDomainOf, type TrustDomain } from '../spiffe/id.ts';
import { toPem } from '../spiffe/pem.ts';
import { viewCertificate } from './certificates.ts';
import type { Context } from './command.ts';
import { EXIT, type ExitCode } from './exit-codes.ts';
import { describeBundles } from './identities.ts';
import { jsonDocument, printable, table, type Paint } from './render.ts';
import { CommandError, UsageError } from './usage-error.ts';

const FORMATS = ['pem', 'jwks', 'spiffe'] as const;

export async function fetchBundle({ args, io, paint, print, client }: Context): Promise<ExitCode> {
  const json = args.json;
  const format = args.choice('format', FORMATS);
  if (json && format !== undefined) {
    throw new UsageError('--format and --output json exclude each other: a format is a document already');
  }
  const wanted = parseWanted(args.text('trust-domain'));
  const api = await client();
  const x509 = await api.fetchX509Bundles({ signal: io.signal });
  if (format === 'pem') {
    await print(pemDocument(x509, await chooseOne(api, x509, wanted, io.signal)));
    return EXIT.ok;
  }
  const jwt = await fetchJwtBundles(api, format !== undefined, io.signal);
  if (format !== undefined) {
    const trustDomain = await chooseOne(api, x509, wanted, io.signal);
    await print(jsonDocument(format === 'jwks' ? jwksDocument(jwt, trustDomain) : spiffeDocument(x509, jwt, trustDomain)));
    return EXIT.ok;
  }
  const trustDomains = chooseAll(x509, jwt, wanted);
  await print(json ? jsonDocument(viewAll(x509, jwt, trustDomains)) : describeAll(x509, jwt, trustDomains, io.now(), paint));
  return EXIT.ok;
}

function parseWanted(text: string | undefined): TrustDomain | undefined {
  try {
    return text === undefined ? undefined : parseTrustDomain(text);
  } catch (error) {
    throw new UsageError(`--trust-domain: ${messageOf(error)}`, { cause: error });
  }
}

/** Where the JWT profile is off, a person still wants to see the X.509 authorities; a document must be complete. */
async function fetchJwtBundles(api: WorkloadApiClient, needed: boolean, signal: AbortSignal): Promise<JwtBundles> {
  try {
    return await api.fetchJwtBundles({ signal });
  } catch (error) {
    if (!needed && error instanceof WorkloadApiError && error.code === 'unimplemented') return new Map();
    throw error;
  }
}

/**
 * The one trust domain that a document is about: a file that mixes the authorities of several would let each of them speak for
 * all. Without a wish it is the caller's own.
 */
async function chooseOne(
  api: WorkloadApiClient,
  { bundles }: X509BundleContext,
  wanted: TrustDomain | undefined,
  signal: AbortSignal,
): Promise<TrustDomain> {
  const [only, ...others] = bundles.keys();
  if (wanted === undefined && only !== undefined && others.length === 0) return only;
  const [identity] = wanted === undefined ? (await api.fetchX509({ signal })).identities : [];
  const trustDomain = wanted ?? (identity === undefined ? undefined : trustDomainOf(identity.id));
  if (trustDomain === undefined || !bundles.has(trustDomain)) throw unknownTrustDomain(trustDomain, bundles.keys());
  return trustDomain;
}

function chooseAll(x509: X509BundleContext, jwt: JwtBundles, wanted: TrustDomain | undefined): TrustDomain[] {
  const known = [...new Set([...x509.bundles.keys(), ...jwt.keys()])];
  if (wanted === undefined) return known;
  if (!known.includes(wanted)) throw unknownTrustDomain(wanted, known);
  return [wanted];
}

function unknownTrustDomain(wanted: TrustDomain | undefined, known: Iterable<TrustDomain>): CommandError {
  const problem = `the agent has no bundle of ${wanted ?? 'the own trust domain'}`;
  return new CommandError(problem, `it has those of ${[...known].join(', ')}`);
}

function pemDocument({ bundles }: X509BundleContext, trustDomain: TrustDomain): string {
  return (bundles.get(trustDomain) ?? []).map((der) => toPem('CERTIFICATE', der)).join('');
}

/** A plain JWK Set (RFC 7517) of the JWT keys, without `use`: general libraries do not know `jwt-svid`. */
function jwksDocument(jwt: JwtBundles, trustDomain: TrustDomain): object {
  return { keys: authoritiesOf(jwt, trustDomain).map(({ kid, jwk }) => ({ ...jwk, kid })) };
}

/** SPIFFE Trust Domain and Bundle §4. Sequence and refresh hint are not in the Workload API, so they are left out. */
function spiffeDocument(x509: X509BundleContext, jwt: JwtBundles, trustDomain: TrustDomain): object {
  return { keys: bundleKeys(x509.bundles.get(trustDomain) ?? [], authoritiesOf(jwt, trustDomain)) };
}

function viewAll(x509: X509BundleContext, jwt: JwtBundles, trustDomains: readonly TrustDomain[]): object {
  return {
    bundles: trustDomains.map((trustDomain) => ({
      trust_domain: trustDomain,
      x509_authorities: (x509.bundles.get(trustDomain) ?? []).map(viewCertificate),
      jwt_authorities: authoritiesOf(jwt, trustDomain).map(({ kid, jwk }) => ({ kid, jwk })),
    })),
    crl_count: x509.crls.length,
  };
}

function describeAll(
  x509: X509BundleContext,
  jwt: JwtBundles,
  trustDomains: readonly TrustDomain[],
  nowMs: number,
  paint: Paint,
): string {
  return trustDomains
    .map((trustDomain) => {
      const authorities = describeBundles(new Map([[trustDomain, x509.bundles.get(trustDomain) ?? []]]), nowMs, paint);
      const keys = authoritiesOf(jwt, trustDomain);
      const rows = keys.map(({ kid, jwk }) => [printable(kid), [jwk['kty'], jwk['crv']].join(' ').trim()]);
      const list = rows.length === 0 ? '  none\n' : table(['KEY ID', 'TYPE'], rows, paint);
      return `${authorities}\n${paint('bold', `JWT keys of ${trustDomain}`)}\n${list}`;
    })
    .join('\n');
}

function authoritiesOf(jwt: JwtBundles, trustDomain: TrustDomain): readonly JwtAuthority[] {
  return jwt.get(trustDomain) ?? [];
}
