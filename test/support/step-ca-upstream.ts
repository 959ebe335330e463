import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { KeyPair } from '../../src/authority/keys.ts';
import { NodeAuthority, type NodeAuthorityOptions } from '../../src/authority/node-authority.ts';
import { StepCaClient } from '../../src/upstream/step-ca/client.ts';
import { StepCaIntermediate, type StepCaIntermediateOptions } from '../../src/upstream/step-ca/intermediate.ts';
import type { JwkProvisioner, StepCaOptions, X5cProvisioner } from '../../src/upstream/step-ca/step-ca-options.ts';
import { certificatePem, keyPem, type TestCa } from './authorities.ts';
import { jwkProvisioner, provisionerKey, stepIntermediate, stepRoot, StepCaServer, x5cProvisioner, type ProvisionerEntry, type StepCaParts } from './step-ca-server.ts';
import { directory, judgeRoot, listening, trustDomain, type Told } from './vault-upstream.ts';

export const NAME = 'signet-node-ca';
export const POLL_MS = 300;

/** A step-ca of its own, and what an agent needs to prove itself to it. */
export interface StepScene {
  readonly server: StepCaServer;
  readonly root: TestCa;
  /** Of the JWK provisioner `signet-node-ca`. */
  readonly keys: KeyPair;
  /** Root of the X5C provisioner `signet-x5c`. */
  readonly bootstrap: TestCa;
  readonly jwk: JwkProvisioner;
  /** A certificate for a node under the bootstrap root, which ends in `lifeMs`. */
  x5c(lifeMs: number, root?: TestCa): Promise<X5cProvisioner>;
}

/** `change`: what the CA has in place of the usual. */
export async function stepScene(t: ExecutionContext, change: (parts: StepCaParts) => Promise<Partial<StepCaParts>> | Partial<StepCaParts> = () => ({})): Promise<StepScene> {
  const root = await stepRoot('step root');
  const [keys, bootstrap] = [await provisionerKey(), await stepRoot('bootstrap root')];
  const usual: StepCaParts = { roots: [root], intermediate: await stepIntermediate(root), provisioners: [await jwkProvisioner(keys), x5cProvisioner(bootstrap, { name: 'signet-x5c' })] };
  const server = await StepCaServer.start({ ...usual, ...(await change(usual)) });
  t.teardown(() => server.close());
  const place = directory(t);
  writeFileSync(join(place, 'provisioner.key'), keyPem(keys), { mode: 0o600 });
  const x5c = async (lifeMs: number, from = bootstrap) => {
    const leaf = await stepRoot('a node', { parent: from, ca: false, uses: 1, to: Date.now() + lifeMs });
    const files = { certificate: join(place, 'node.crt'), key: join(place, 'node.key') };
    writeFileSync(files.certificate, certificatePem(leaf.certificate));
    writeFileSync(files.key, keyPem(leaf), { mode: 0o600 });
    return { type: 'x5c', name: 'signet-x5c', ...files } as const;
  };
  return { server, root, keys, bootstrap, jwk: { type: 'jwk', name: NAME, key: join(place, 'provisioner.key') }, x5c };
}

/** The other provisioners, and `entry` in place of the one of its name. */
export function replaced(provisioners: readonly ProvisionerEntry[], entry: ProvisionerEntry): readonly ProvisionerEntry[] {
  return [...provisioners.filter(({ name }) => name !== entry.name), entry];
}

export interface OpenedStep {
  readonly client: StepCaClient;
  readonly upstream: StepCaIntermediate;
  readonly told: Told;
}

/** An agent's connection; by the fingerprint of the root unless `options` say otherwise. */
export function openStep(t: ExecutionContext, { server, jwk }: Pick<StepScene, 'jwk'> & { server: Pick<StepCaServer, 'address' | 'fingerprint'> }, options: Partial<StepCaOptions> & StepCaIntermediateOptions = {}, told = listening()): OpenedStep {
  const { roots, renew, pollMs = POLL_MS, ...rest } = options;
  const client = new StepCaClient({ address: server.address, pin: { fingerprint: server.fingerprint }, provisioner: jwk, ...rest }, told.tools);
  t.teardown(() => client.close());
  const upstream = new StepCaIntermediate({ pollMs, ...(roots === undefined ? {} : { roots }), ...(renew === undefined ? {} : { renew }) }, { ...told.tools, client, judgeRoot });
  t.teardown(() => upstream.close());
  return { client, upstream, told };
}

/** The authority of a node under it. */
export async function stepNode(t: ExecutionContext, { upstream, told }: OpenedStep, options: Partial<NodeAuthorityOptions> = {}): Promise<NodeAuthority> {
  const all = { trustDomain, privateDir: directory(t), ttlMs: 3_600_000, nameConstraint: 'none', ...options } as const;
  const node = await NodeAuthority.open(all, { ...told.tools, upstream });
  t.teardown(() => node.close());
  return node;
}
