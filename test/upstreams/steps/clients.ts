import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WorkloadApiClient } from '../../../src/client/workload-api-client.ts';
import { holds } from '../../e2e/expect.ts';
import { ProgramError, runProgram } from '../../e2e/run-program.ts';
import { LANGUAGE_ROWS, SPIRE_AGENT_CLI } from '../../interop/rows.ts';
import { certificatePem } from '../../support/authorities.ts';
import { idOf, NodeAgent } from '../agents.ts';
import { ROOT, vaultOrAgentMissing } from '../missing.ts';
import type { Report } from '../report.ts';
import type { Step } from '../step.ts';
import { underVault, vaultFor } from '../vault.ts';

const TIMEOUT_MS = 20 * 60_000;
const MOST_DETAILS = 400;

/** The published clients of test/interop, and OpenSSL, against an agent under Vault. */
export const clients: Step = {
  title: 'all methods by the published clients, in both tiers',
  missing: vaultOrAgentMissing,
  async run(report) {
    for (const tier of ['intermediate', 'per-svid'] as const) {
      await using started = new AsyncDisposableStack();
      const vault = await vaultFor(tier, started);
      const agent = started.use(await NodeAgent.start(['interop'], { ...underVault(vault, tier), x509: { ttl: '60s' } }));
      await byClients(report, tier, agent.socket, { hasPathLength: tier === 'intermediate' });
    }
  },
};

/** OpenSSL and the published clients against one agent. `hasPathLength`: of its node CA, with which one proof is known to fail. */
export async function byClients(report: Report, label: string, socket: string, { hasPathLength }: { readonly hasPathLength: boolean }): Promise<void> {
  await report.check(`${label}: openssl verify -x509_strict takes the chain`, () => verifyStrictly(socket));
  const proofs = await runInterop(socket);
  const [known, others] = [proofs.filter(isKnown), proofs.filter((proof) => !isKnown(proof))];
  for (const { title, outcome } of hasPathLength ? known : []) report.skip(`${label}: ${title}`, outcome === 'failed' ? KNOWN : 'it passes: take it out of the known limits');
  for (const row of [...LANGUAGE_ROWS, SPIRE_AGENT_CLI]) await reportRow(report, label, row.name, hasPathLength ? others : proofs);
}

/** What Signet cannot mend: see README.md. */
const KNOWN = 'spiffe-tls 0.4.0 presents the intermediates again with each update, which Java refuses';

function isKnown({ title }: Proof): boolean {
  return title.includes('Python spiffe and java-spiffe');
}

interface Proof {
  readonly title: string;
  readonly outcome: 'passed' | 'failed' | 'skipped';
  /** What the test said about its failure. */
  readonly details: string;
}

/** The tests of test/interop as they are, with this agent. */
async function runInterop(socket: string): Promise<Proof[]> {
  const env = { SIGNET_INTEROP_SOCKET: socket, SIGNET_INTEROP_ID: idOf('interop') };
  const argv = [process.execPath, join(ROOT, 'node_modules/.bin/ava'), '--tap', '--timeout=2h', 'test/interop/interop.test.ts'];
  const text = await runProgram(argv, { env, cwd: ROOT, timeoutMs: TIMEOUT_MS }).catch((error: unknown) => {
    if (error instanceof ProgramError && error.stdout !== '') return error.stdout;
    throw error;
  });
  return [...text.matchAll(/^(not ok|ok) \d+ - (.*)$((?:\n(?!ok|not ok).*)*)/gm)].map(([, verdict, title = '', details = '']) => ({
    title,
    outcome: title.includes('# SKIP') ? 'skipped' : verdict === 'ok' ? 'passed' : 'failed',
    details: details.replaceAll(/\s+/g, ' ').trim().slice(0, MOST_DETAILS),
  }));
}

/** Two clients prove mutual TLS together: that counts for both. */
async function reportRow(report: Report, label: string, name: string, proofs: readonly Proof[]): Promise<void> {
  const own = proofs.filter(({ title }) => title.split(': ')[0]?.split(' › ').at(-1)?.split(' and ').includes(name) === true);
  const skipped = own.find(({ outcome }) => outcome === 'skipped');
  if (own.length > 0 && own.every(({ outcome }) => outcome === 'skipped')) return report.skip(`${label}: ${name}`, skipped?.title ?? '');
  await report.check(`${label}: ${name}`, () => {
    holds(own.length > 0, 'there was no proof of it');
    const failed = own.filter(({ outcome }) => outcome === 'failed').map(({ title, details }) => `${title}: ${details}`);
    holds(failed.length === 0, `${failed.length} of ${own.length} failed: ${failed.join('; ')}`);
    const left = own.filter(({ outcome }) => outcome === 'skipped').length;
    return `${own.length - left} proofs${left === 0 ? '' : `, ${left} skipped`}`;
  });
}

export async function verifyStrictly(socket: string): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), 'signet-strict-'));
  const client = new WorkloadApiClient({ endpoint: `unix://${socket}` });
  try {
    const { identities, bundles } = await client.fetchX509();
    const [leaf, ...between] = identities[0]?.chain ?? [];
    holds(leaf !== undefined, 'there is no certificate');
    const roots = [...bundles.values()].flat();
    const write = (name: string, ders: readonly Buffer[]): string => {
      writeFileSync(join(directory, name), certificatePem(...ders));
      return join(directory, name);
    };
    const files = [write('roots.pem', roots), write('chain.pem', between), write('leaf.pem', leaf === undefined ? [] : [leaf])] as const;
    const untrusted = between.length === 0 ? [] : ['-untrusted', files[1]];
    for (const purpose of ['sslserver', 'sslclient'])
      await runProgram(['openssl', 'verify', '-x509_strict', '-purpose', purpose, '-CAfile', files[0], ...untrusted, files[2]]);
    const version = (await runProgram(['openssl', 'version'])).trim().split(' ').slice(0, 2).join(' ');
    return `${version}; ${1 + between.length} certificates under ${roots.length} root, as server and as client`;
  } finally {
    await client.close();
    rmSync(directory, { recursive: true, force: true });
  }
}
