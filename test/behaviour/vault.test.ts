/** The whole agent under a real Vault, in both tiers. */
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { AuthorityView } from '../../src/admin/messages.ts';
import { startTestAgent, OWN_ID, type TestAgent } from '../support/agent.ts';
import { run } from '../cli/run.ts';
import { testIf } from '../support/kernel-conditions.ts';
import { until } from '../support/kubernetes-api.ts';
import { RawClient } from '../support/raw-client.ts';
import { vaultMissing } from '../support/vault-server.ts';
import { prepareVault, type PreparedVault } from '../upstream/vault-tools.ts';
import { API, certificatesOf, firstOf, type Bundles, type Svids } from './life/timed-agent.ts';

const missing = vaultMissing({ own: true });
const needsVault = [missing === undefined, missing ?? ''] as const;
const DOMAIN = 'spiffe://example.org';

interface Scene {
  readonly vault: PreparedVault;
  readonly directory: string;
  readonly start: () => Promise<{ agent: TestAgent; client: RawClient }>;
}

async function setUp(t: ExecutionContext, tier: 'intermediate' | 'per-svid', intermediate = 'signet'): Promise<Scene> {
  const vault = await prepareVault();
  t.teardown(() => vault.close());
  if (tier === 'intermediate') await vault.server.setup({ TRUST_DOMAIN: 'example.org', POLICY: intermediate });
  const directory = mkdtempSync(join(tmpdir(), 'signet-under-vault-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const address = vault.server.address.href;
  const connection = { address, auth: { method: 'token', tokenFile: vault.tokenFile }, pki: { mount: 'pki', ...(tier === 'per-svid' ? { role: 'signet' } : {}) } };
  const jwt = tier === 'per-svid' ? { jwt: { signer: 'transit', transit: { key: 'signet-jwt' } } } : {};
  const start = async () => {
    const agent = await startTestAgent({ directory, config: { authority: { type: 'vault', tier, vault: connection }, ...jwt } });
    const client = new RawClient(agent.socketPath);
    t.teardown(() => client.close());
    t.teardown(() => agent.stop());
    return { agent, client };
  };
  return { vault, directory, start };
}

async function tokenOf(client: RawClient, audience: string): Promise<string> {
  const { svids } = await client.unary<{ svids: { svid: string }[] }>(`${API}FetchJWTSVID`, { audience: [audience] });
  return svids[0]!.svid;
}

testIf(needsVault, 'intermediate: leaves stand under a node CA of Vault, which may be away, even while the agent restarts', async (t) => {
  const { vault, start } = await setUp(t, 'intermediate');
  const first = await start();
  const { svids } = await firstOf<Svids>(first.client, 'FetchX509SVID');
  const [leaf, node, ...rest] = certificatesOf(svids[0]!.x509_svid);
  const [root] = certificatesOf(svids[0]!.bundle);
  t.deepEqual(rest, []);
  t.true(leaf!.verify(node!.publicKey) && node!.verify(root!.publicKey));
  t.is(node!.subjectAltName, `URI:${DOMAIN}`);
  t.regex(root!.subject, /root of pki/);
  first.client.close();
  await first.agent.stop();
  await vault.server.stop();
  const second = await start();
  const kept = await firstOf<Svids>(second.client, 'FetchX509SVID');
  t.true(new X509Certificate(kept.svids[0]!.x509_svid).verify(node!.publicKey), 'the node CA is the same');
  await until(() => second.agent.agent.readiness.reasons().some(({ code }) => code === 'upstream_away'), 'the outage to be told');
  t.true(second.agent.agent.readiness.ready);
  await vault.server.start();
  await until(() => second.agent.agent.readiness.reasons().length === 0, 'the recovery');
});

testIf(needsVault, 'per-svid: Vault signs each leaf and each token, and no key that signs is on the node', async (t) => {
  const { vault, directory, start } = await setUp(t, 'per-svid');
  const { agent, client } = await start();
  const { svids } = await firstOf<Svids>(client, 'FetchX509SVID');
  const [leaf, ...rest] = certificatesOf(svids[0]!.x509_svid);
  t.deepEqual(rest, [], 'right under the root');
  t.true(leaf!.verify(certificatesOf(svids[0]!.bundle)[0]!.publicKey));
  t.is(leaf!.subjectAltName, `URI:${OWN_ID}`);
  const token = await tokenOf(client, 'somebody');
  const valid = await client.unary<{ spiffe_id: string }>(`${API}ValidateJWTSVID`, { audience: 'somebody', svid: token });
  t.is(valid.spiffe_id, OWN_ID);
  const { bundles } = await firstOf<Bundles>(client, 'FetchJWTBundles');
  const kids = (JSON.parse(bundles[DOMAIN]!.toString()) as { keys: { kid: string }[] }).keys.map(({ kid }) => kid);
  t.true(kids.includes(JSON.parse(Buffer.from(token.split('.')[0]!, 'base64url').toString()).kid as string));
  const state = join(directory, 'private', 'authority');
  for (const file of readdirSync(state)) t.notRegex(readFileSync(join(state, file), 'utf8'), /PRIVATE KEY|"d":/, file);
  await vault.server.stop();
  t.is(await tokenOf(client, 'somebody'), token, 'what is cached is answered at once');
  t.true(agent.agent.readiness.ready);
});

testIf(needsVault, 'a change of the tier is nothing that verifiers notice: both stand under the roots of the mount', async (t) => {
  const vault = await prepareVault();
  t.teardown(() => vault.close());
  writeFileSync(vault.tokenFile, vault.server.token, { mode: 0o600 });
  const directory = mkdtempSync(join(tmpdir(), 'signet-tiers-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const pki = { mount: 'pki', role: 'signet' };
  const connection = { address: vault.server.address.href, auth: { method: 'token', tokenFile: vault.tokenFile }, pki };
  const leaves: X509Certificate[] = [];
  let roots: string | undefined;
  for (const tier of ['intermediate', 'per-svid', 'intermediate'] as const) {
    const config = { authority: { type: 'vault', tier, vault: connection }, jwt: { signer: 'transit', transit: { key: 'signet-jwt' } } };
    const agent = await startTestAgent({ directory, config });
    const client = new RawClient(agent.socketPath);
    const { svids } = await firstOf<Svids>(client, 'FetchX509SVID');
    const [leaf, ...above] = certificatesOf(svids[0]!.x509_svid);
    t.is(above.length, tier === 'intermediate' ? 1 : 0);
    leaves.push(leaf!);
    const bundle = svids[0]!.bundle.toString('base64');
    t.is((roots ??= bundle), bundle, `the bundle of the tier ${tier}`);
    const token = await tokenOf(client, 'somebody');
    const valid = await client.unary<{ spiffe_id: string }>(`${API}ValidateJWTSVID`, { audience: 'somebody', svid: token });
    t.is(valid.spiffe_id, OWN_ID);
    if (tier === 'intermediate') {
      const env = { SIGNET_ADMIN_SOCKET: agent.config.admin.socketPath };
      const { keys } = JSON.parse((await run(['authority', 'show', '--output', 'json'], { env })).stdout) as AuthorityView;
      t.deepEqual(keys.map(({ kind }) => kind), ['x509'], 'the key for tokens is in Vault');
    }
    client.close();
    await agent.stop();
  }
  t.is(new Set(leaves.map(({ serialNumber }) => serialNumber)).size, 3);
});
