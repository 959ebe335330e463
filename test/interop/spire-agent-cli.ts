import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { decodeProtectedHeader, importJWK, type JWK, jwtVerify } from 'jose';
import type { TestAgent } from './agent.ts';
import { trustDomainOf } from './contract.ts';
import { type Outcome, Program, runProgram } from './program.ts';
import type { Argv } from './rows.ts';

export interface CliContext {
  readonly agent: TestAgent;
  readonly argv: Argv;
}

type Proof = (t: ExecutionContext, context: CliContext) => Promise<void>;

const AUDIENCE = 'interop-audience';
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** What SPIRE's command line must be able to do: the claim, for a test's title, and its proof. */
export const CLI_PROOFS: readonly (readonly [string, Proof])[] = [
  ['`api fetch x509 -write` writes a chain that verifies, and its key', fetchX509],
  ['`api fetch jwt` gives a token that the JWT bundle of the same answer verifies', fetchJwt],
  ['`api validate jwt` accepts the audience and refuses another', validateJwt],
  ['`api watch` sees a rotation', watch],
  ['`healthcheck` finds the agent healthy', healthcheck],
];

function cli({ agent, argv }: CliContext, ...args: readonly string[]): Promise<Outcome> {
  return runProgram(argv, [...args, '-socketPath', agent.socketPath]);
}

/** The default time-out of the command line is 1 s, which a machine busy with builds may need for itself. */
function api(context: CliContext, ...args: readonly string[]): Promise<Outcome> {
  return cli(context, 'api', ...args, '-timeout', '30s');
}

function assertSucceeded(t: ExecutionContext, outcome: Outcome): void {
  t.is(outcome.code, 0, `${outcome.lines.join('\n')}\n${outcome.stderr}`);
}

async function fetchX509(t: ExecutionContext, context: CliContext): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'signet-interop-'));
  try {
    assertSucceeded(t, await api(context, 'fetch', 'x509', '-write', directory));
    const chain = await certificatesIn(join(directory, 'svid.0.pem'));
    const roots = await certificatesIn(join(directory, 'bundle.0.pem'));
    const key = createPrivateKey(await readFile(join(directory, 'svid.0.key')));
    t.is(chain[0]?.subjectAltName?.includes(`URI:${context.agent.id}`), true);
    t.true(chain[0]?.checkPrivateKey(key));
    assertChain(t, chain, roots);
  } finally {
    await rm(directory, { recursive: true });
  }
}

async function certificatesIn(path: string): Promise<X509Certificate[]> {
  return [...(await readFile(path, 'utf8')).matchAll(CERTIFICATE)].map(([pem]) => new X509Certificate(pem));
}

/** Each certificate is signed by the next one, and the last by a root. */
function assertChain(t: ExecutionContext, chain: readonly X509Certificate[], roots: readonly X509Certificate[]): void {
  chain.forEach((certificate, index) => {
    const issuers = index + 1 < chain.length ? chain.slice(index + 1, index + 2) : roots;
    const signed = issuers.some((issuer) => certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey));
    t.true(signed, `certificate ${index} of the chain is signed by its issuer`);
  });
}

interface FetchedJwt {
  readonly svids: readonly { readonly spiffe_id: string; readonly svid: string }[];
}

interface FetchedBundles {
  /** Trust domain ID to a JWKS document in base64. */
  readonly bundles: Readonly<Record<string, string>>;
}

async function fetchToken(t: ExecutionContext, context: CliContext): Promise<[FetchedJwt, FetchedBundles]> {
  const outcome = await api(context, 'fetch', 'jwt', '-audience', AUDIENCE, '-output', 'json');
  assertSucceeded(t, outcome);
  return JSON.parse(outcome.lines.join('\n')) as [FetchedJwt, FetchedBundles];
}

async function fetchJwt(t: ExecutionContext, context: CliContext): Promise<void> {
  const [fetched, { bundles }] = await fetchToken(t, context);
  const { id } = context.agent;
  t.deepEqual(fetched.svids.map((svid) => svid.spiffe_id), [id]);
  const token = fetched.svids[0]?.svid ?? '';
  const document = bundles[`spiffe://${trustDomainOf(id)}`];
  const { keys } = JSON.parse(Buffer.from(document ?? '', 'base64').toString()) as { keys: JWK[] };
  const { alg = '', kid } = decodeProtectedHeader(token);
  const key = keys.find((candidate) => candidate.kid === kid);
  const { payload } = await jwtVerify(token, await importJWK(key ?? {}, alg), { audience: AUDIENCE, subject: id });
  t.deepEqual(payload.aud, [AUDIENCE]);
}

async function validateJwt(t: ExecutionContext, context: CliContext): Promise<void> {
  const [{ svids }] = await fetchToken(t, context);
  const validate = ['validate', 'jwt', '-svid', svids[0]?.svid ?? ''];
  const accepted = await api(context, ...validate, '-audience', AUDIENCE, '-output', 'json');
  assertSucceeded(t, accepted);
  const { spiffe_id: id, claims } = JSON.parse(accepted.lines.join('\n')) as { spiffe_id: string; claims: { aud: unknown } };
  t.is(id, context.agent.id);
  t.deepEqual(claims.aud, [AUDIENCE]);
  const refused = await api(context, ...validate, '-audience', 'another-audience');
  t.is(refused.code, 1);
  t.regex(`${refused.lines.join('\n')}\n${refused.stderr}`, /SVID is not valid/);
}

async function watch(t: ExecutionContext, { agent, argv }: CliContext): Promise<void> {
  const program = new Program(argv, ['api', 'watch', '-socketPath', agent.socketPath]);
  const expiries = new Set<string>();
  try {
    while (expiries.size < 2) {
      const line = await program.line();
      if (line === undefined) throw new Error(`watch ended (${await program.end()}) before a rotation: ${program.stderr}`);
      const expiry = /SVID Valid Until:\s+(.+)/.exec(line)?.[1];
      if (expiry !== undefined) expiries.add(expiry);
    }
    t.is(expiries.size, 2);
  } finally {
    await program.kill();
  }
}

async function healthcheck(t: ExecutionContext, context: CliContext): Promise<void> {
  const outcome = await cli(context, 'healthcheck');
  assertSucceeded(t, outcome);
  t.deepEqual(outcome.lines, ['Agent is healthy.']);
}
