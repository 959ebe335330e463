import { spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { createCsr } from '../../src/authority/certificate.ts';
import { newKeyPair, type KeyPair } from '../../src/authority/keys.ts';
import type { NameConstraint } from '../../src/authority/name-constraints.ts';
import { NodeAuthority, type NodeAuthorityOptions } from '../../src/authority/node-authority.ts';
import { systemRandom } from '../../src/random.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import type { UpstreamRequest } from '../../src/upstream/upstream.ts';
import { VaultIntermediate, type VaultIntermediateOptions, type VaultIntermediateTools } from '../../src/upstream/vault/intermediate.ts';
import type { VaultAuth } from '../../src/upstream/vault/vault-options.ts';
import { createLeaf } from './library-certificates.ts';
import type { VaultServer } from './vault-server.ts';
import { connect, directory, freshName, judgeRoot, trustDomain, type Told } from './vault-upstream.ts';

export const HOUR = 3_600_000;
export const ID = 'spiffe://example.org';

export type Body = Readonly<Record<string, unknown>>;

/** How a test's agent differs from one that is set up as documented. */
export interface Differences {
  readonly setup?: Readonly<Record<string, string>>;
  readonly options?: Partial<VaultIntermediateOptions>;
  /** Uses the root token, and changes what is asked: what Vault does without our policy in between. */
  readonly rewrite?: (body: Body) => Body;
}

export interface OpenedIntermediate {
  readonly upstream: VaultIntermediate;
  readonly told: Told;
}

/** An upstream whose policy is the one of deploy/vault. */
export async function openIntermediate(t: ExecutionContext, vault: VaultServer, mount: string, differences: Differences = {}): Promise<OpenedIntermediate> {
  const { setup = {}, options, rewrite } = differences;
  const dir = directory(t);
  const policy = freshName('policy');
  const file = join(dir, 'token');
  await vault.setup({ TRUST_DOMAIN: trustDomain, PKI_MOUNT: mount, POLICY: policy, ...setup });
  writeFileSync(file, rewrite === undefined ? await tokenWith(vault, policy) : vault.token);
  const auth: VaultAuth = { method: 'token', tokenFile: file };
  const { client, told } = connect(t, vault, auth);
  const rewriting: VaultIntermediateTools['client'] = {
    request: (method, path, request) => client.request(method, path, { ...request, body: (rewrite ?? ((body) => body))(request.body ?? {}) }),
    requestOpen: (method, path, request) => client.requestOpen(method, path, request),
    problem: () => client.problem(),
    onReturn: (listener) => client.onReturn(listener),
    forget: (purpose) => client.forget(purpose),
  };
  const upstream = new VaultIntermediate({ mount, issuer: 'default', pollMs: 300, ...options }, { ...told.tools, client: rewriting, judgeRoot });
  t.teardown(() => upstream.close());
  return { upstream, told };
}

export async function tokenWith(vault: VaultServer, policy: string): Promise<string> {
  const { auth } = await vault.api('POST', 'auth/token/create', { policies: [policy], no_default_policy: true, ttl: '1h' });
  return String(auth?.['client_token']);
}

/** A request as a node makes it. */
export async function asking(nameConstraint: NameConstraint = 'none', keys?: KeyPair): Promise<UpstreamRequest> {
  const pair = keys ?? (await newKeyPair('ec-p256'));
  const csr = (): Promise<Buffer> => createCsr(pair, trustDomain, systemRandom);
  return { trustDomain, publicKey: pair.publicKey, ttlMs: HOUR, nameConstraint, csr };
}

export async function openNode(t: ExecutionContext, opened: OpenedIntermediate, more: Partial<NodeAuthorityOptions> = {}): Promise<NodeAuthority> {
  const options = { trustDomain, privateDir: directory(t), ttlMs: HOUR, nameConstraint: 'none', ...more } as const;
  const node = await NodeAuthority.open(options, { ...opened.told.tools, upstream: opened.upstream });
  t.teardown(() => node.close());
  return node;
}

/** A leaf that the node signs, whoever it is for. */
export async function leafOf(node: NodeAuthority, id = `${ID}/a`): Promise<Buffer> {
  const { publicKey } = await newKeyPair('ec-p256');
  const now = Math.floor(Date.now() / 1000) * 1000;
  const asked = { id: parseSpiffeId(id), publicKey, dnsNames: [], notBefore: now - 20_000, notAfter: now + 60_000 };
  const { der } = await createLeaf(node.issuer(), asked, systemRandom);
  return der;
}

/** What OpenSSL says of a leaf, with all checks on. */
export function openssl(t: ExecutionContext, chain: readonly Buffer[], roots: readonly Buffer[]): string {
  const dir = directory(t);
  const pem = (ders: readonly Buffer[]): string => ders.map((der) => new X509Certificate(der).toString()).join('');
  const write = (name: string, ders: readonly Buffer[]): string => {
    writeFileSync(join(dir, name), pem(ders));
    return join(dir, name);
  };
  const files = ['-CAfile', write('roots', roots), '-untrusted', write('between', chain.slice(1)), write('leaf', chain.slice(0, 1))];
  const command = ['verify', '-x509_strict', '-purpose', 'sslserver', ...files];
  const { stdout, stderr } = spawnSync('openssl', command, { encoding: 'utf8' });
  return stdout + stderr;
}
