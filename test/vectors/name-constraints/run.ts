/**
 * Which verifiers accept chains whose node CA names its trust domain (`authority.nameConstraint: uri`). Makes the chains with the
 * agent's own code, shows them to each verifier that is here, prints a table, and exits with 1 when a verdict is not the one below.
 *
 *   node test/vectors/name-constraints/run.ts
 */
import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { createIntermediate, createRoot, issuerFrom, type Issuer } from '../../../src/authority/certificate.ts';
import { createLeaf } from '../../support/library-certificates.ts';
import { newKeyPair } from '../../../src/authority/keys.ts';
import type { NameConstraint } from '../../../src/authority/name-constraints.ts';
import { systemRandom } from '../../../src/random.ts';
import { parseSpiffeId, parseTrustDomain } from '../../../src/spiffe/id.ts';

const HERE = import.meta.dirname;
const HOUR = 3_600_000;
const DOMAIN = 'example.org';
const BUILD_MS = 300_000;

interface Chain {
  readonly name: string;
  readonly constraint: NameConstraint;
  readonly id: string;
  readonly dnsNames?: readonly string[];
}

const CHAINS: readonly Chain[] = [
  { name: 'none, inside', constraint: 'none', id: 'spiffe://example.org/a' },
  { name: 'none, outside', constraint: 'none', id: 'spiffe://evil.org/a' },
  { name: 'uri, inside', constraint: 'uri', id: 'spiffe://example.org/a' },
  { name: 'uri, inside, DNS name', constraint: 'uri', id: 'spiffe://example.org/a', dnsNames: ['web.evil.org'] },
  { name: 'uri, subdomain', constraint: 'uri', id: 'spiffe://sub.example.org/a' },
  { name: 'uri, outside', constraint: 'uri', id: 'spiffe://evil.org/a' },
];

/** Verdicts in the order of the chains, `+` or `-`. Who is not named holds to RFC 5280 §4.2.1.10. */
const RFC_5280 = '++++--';
const EXPECTED: readonly (readonly [verifier: RegExp, verdicts: string])[] = [
  // A host stands for all below it, as it does for DNS names.
  [/^Go /, '+++++-'],
  // They know no constraint on URIs, and refuse what they do not know.
  [/^cryptography |^rustls-webpki /, '++----'],
];

interface Verdict {
  readonly isAccepted: boolean;
  readonly why: string;
}

interface Column {
  readonly verifier: string;
  readonly verdicts: readonly Verdict[];
}

interface Files {
  readonly directory: string;
  readonly roots: string;
  readonly chains: readonly string[];
}

async function writeChains(directory: string): Promise<Files> {
  const now = Math.floor(Date.now() / 1_000) * 1_000;
  const dates = { notBefore: now - HOUR, notAfter: now + HOUR };
  const rootKeys = await newKeyPair('ec-p256');
  const root = issuerFrom(await createRoot(rootKeys, { id: parseSpiffeId(`spiffe://${DOMAIN}`), ...dates }, systemRandom), rootKeys);
  const nodes: Record<NameConstraint, Issuer> = { none: await nodeUnder(root, 'none'), uri: await nodeUnder(root, 'uri') };
  const roots = join(directory, 'roots.pem');
  writeFileSync(roots, pemOf(root.certificate));
  const chains: string[] = [];
  for (const [index, chain] of CHAINS.entries()) {
    const path = join(directory, `chain-${index}.pem`);
    const keys = await newKeyPair('ec-p256');
    const { der } = await createLeaf(nodes[chain.constraint], { id: parseSpiffeId(chain.id), publicKey: keys.publicKey, dnsNames: chain.dnsNames ?? [], ...dates }, systemRandom);
    writeFileSync(path, pemOf(der) + pemOf(nodes[chain.constraint].certificate));
    writeFileSync(path.replace('.pem', '.key'), keys.privateKey.export({ format: 'pem', type: 'pkcs8' }));
    chains.push(path);
  }
  return { directory, roots, chains };
}

async function nodeUnder(root: Issuer, nameConstraint: NameConstraint): Promise<Issuer> {
  const keys = await newKeyPair('ec-p256');
  const { notBefore, notAfter } = root;
  const request = { trustDomain: parseTrustDomain(DOMAIN), publicKey: keys.publicKey, nameConstraint, notBefore, notAfter };
  return issuerFrom(await createIntermediate(root, request, systemRandom), keys);
}

function pemOf(der: Buffer): string {
  return new X509Certificate(der).toString();
}

/** Strict, for both sides of TLS. */
function openssl({ roots, chains }: Files): Column[] {
  const version = run('openssl', ['version']);
  if (version === undefined) return [];
  const verdicts = chains.map((chain) => {
    for (const purpose of ['sslserver', 'sslclient']) {
      const { status, stderr } = spawnSync('openssl', ['verify', '-x509_strict', '-purpose', purpose, '-CAfile', roots, '-untrusted', chain, chain], { encoding: 'utf8' });
      if (status !== 0) return refused(/error \d+ at .*/.exec(stderr)?.[0] ?? stderr);
    }
    return { isAccepted: true, why: '' };
  });
  return [{ verifier: `${version.split(' ').slice(0, 2).join(' ')} verify -x509_strict`, verdicts }];
}

async function node({ roots, chains }: Files): Promise<Column[]> {
  const verdicts: Verdict[] = [];
  for (const chain of chains) verdicts.push(await handshake(roots, chain).then(() => ({ isAccepted: true, why: '' }), (error: unknown) => refused(String(error))));
  return [{ verifier: `Node.js ${process.version} tls (OpenSSL ${process.versions.openssl})`, verdicts }];
}

/** Both sides show the chain. */
async function handshake(roots: string, chain: string): Promise<void> {
  const [ca, cert, key] = [readFileSync(roots), readFileSync(chain), readFileSync(chain.replace('.pem', '.key'))];
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const server = createServer({ ca, cert, key, requestCert: true, rejectUnauthorized: true }, (socket: TLSSocket) => socket.on('error', reject).end('accepted'));
  server.on('tlsClientError', reject);
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  const { port } = server.address() as AddressInfo;
  // Whose name it is SPIFFE tells by the URI, which is not the matter here.
  const client = connect({ host: '127.0.0.1', port, ca, cert, key, checkServerIdentity: () => undefined });
  client.on('error', reject).on('data', () => resolve()).on('close', () => reject(new Error('closed')));
  try {
    await promise;
  } finally {
    client.destroy();
    server.close();
  }
}

/** A program that prints a name, and then a verdict on each chain; perhaps more than once. */
function program(command: string, before: readonly string[], { roots, chains, directory }: Files): Column[] {
  const output = run(command, [...before, roots, ...chains], { CARGO_TARGET_DIR: process.env['CARGO_TARGET_DIR'] ?? join(directory, 'target') });
  if (output === undefined) return [];
  const lines = output.trim().split('\n');
  const columns: Column[] = [];
  while (lines.length > 0) {
    const [verifier = '', ...verdicts] = lines.splice(0, chains.length + 1);
    columns.push({ verifier, verdicts: verdicts.map((line) => (line === 'accept' ? { isAccepted: true, why: '' } : refused(line.replace(/^refuse /, '')))) });
  }
  return columns;
}

function run(command: string, argv: readonly string[], env: NodeJS.ProcessEnv = {}): string | undefined {
  const { status, stdout, stderr, error } = spawnSync(command, argv, { encoding: 'utf8', timeout: BUILD_MS, env: { ...process.env, ...env } });
  if (status === 0) return stdout;
  console.error(`skipped: ${command}: ${error?.message ?? stderr}`);
  return undefined;
}

function refused(why: string): Verdict {
  return { isAccepted: false, why: why.trim() };
}

function print(columns: readonly Column[]): void {
  console.log(`| Verifier | ${CHAINS.map(({ name }) => name).join(' | ')} |\n|---|${CHAINS.map(() => '---|').join('')}`);
  for (const { verifier, verdicts } of columns) console.log(`| ${verifier} | ${verdicts.map(({ isAccepted }) => (isAccepted ? 'accepted' : 'refused')).join(' | ')} |`);
  console.log();
  for (const { verifier, verdicts } of columns) {
    for (const [index, { isAccepted, why }] of verdicts.entries()) if (!isAccepted) console.log(`${verifier}, ${CHAINS[index]?.name}: ${why}`);
  }
}

function surprises(columns: readonly Column[]): string[] {
  return columns.flatMap(({ verifier, verdicts }) => {
    const expected = EXPECTED.find(([name]) => name.test(verifier))?.[1] ?? RFC_5280;
    const found = verdicts.map(({ isAccepted }) => (isAccepted ? '+' : '-')).join('');
    return found === expected ? [] : [`${verifier}: ${found} and not ${expected}`];
  });
}

const directory = mkdtempSync(join(tmpdir(), 'signet-name-constraints-'));
try {
  const files = await writeChains(directory);
  const columns = [
    ...openssl(files),
    ...(await node(files)),
    ...program('go', ['run', join(HERE, 'verify.go')], files),
    ...program('java', [join(HERE, 'Verify.java')], files),
    ...program('python3', [join(HERE, 'verify.py')], files),
    ...program('cargo', ['run', '--quiet', '--locked', '--manifest-path', join(HERE, 'rust', 'Cargo.toml'), '--'], files),
  ];
  print(columns);
  const wrong = surprises(columns);
  for (const line of wrong) console.error(`not as expected: ${line}`);
  console.log(`\n${columns.length - wrong.length} as expected, ${wrong.length} not`);
  process.exitCode = wrong.length === 0 ? 0 : 1;
} finally {
  rmSync(directory, { recursive: true, force: true });
}
