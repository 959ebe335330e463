import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { KeyPair } from '../../src/authority/keys.ts';
import { certificatePem, keyPem, type TestCa } from '../support/authorities.ts';
import { jwkProvisioner, provisionerKey, stepIntermediate, stepRoot, StepCaServer, x5cProvisioner } from '../support/step-ca-server.ts';

export const DAY_MS = 86_400_000;

/** A smallstep CA with the two provisioners of deploy/step-ca, and files that prove an agent to it. */
export class StepCa {
  readonly root: TestCa;
  readonly server: StepCaServer;
  readonly #bootstrap: TestCa;
  readonly #directory: string;

  private constructor(root: TestCa, bootstrap: TestCa, server: StepCaServer, directory: string) {
    this.root = root;
    this.server = server;
    this.#bootstrap = bootstrap;
    this.#directory = directory;
  }

  static async open(started: AsyncDisposableStack): Promise<StepCa> {
    const directory = mkdtempSync(join(tmpdir(), 'signet-under-step-ca-'));
    started.defer(() => rmSync(directory, { recursive: true, force: true }));
    const [root, bootstrap, keys] = [await stepRoot('first root'), await stepRoot('bootstrap root'), await provisionerKey()];
    const provisioners = [await jwkProvisioner(keys), x5cProvisioner(bootstrap, { name: 'signet-x5c' })];
    const server = await StepCaServer.start({ roots: [root], intermediate: await stepIntermediate(root), provisioners });
    started.defer(() => server.close());
    const ca = new StepCa(root, bootstrap, server, directory);
    ca.giveKey(keys);
    ca.copyRoots();
    await ca.certify(DAY_MS);
    return ca;
  }

  /** The part of an agent's configuration that says who signs. */
  under(type: 'jwk' | 'x5c', { pin = 'fingerprint', ttl = '1h', ...more }: { pin?: 'fingerprint' | 'caFile' | 'copy'; ttl?: string; renew?: boolean } = {}): Readonly<Record<string, unknown>> {
    const jwk = { type, name: 'signet-node-ca', key: this.#place('provisioner.key') };
    const x5c = { type, name: 'signet-x5c', certificate: this.#place('node.crt'), key: this.#place('node.key') };
    const known = pin === 'copy' ? { caFile: this.#place('ca.crt') } : { [pin]: this.server[pin] };
    const stepCa = { address: this.server.address.origin, ...known, ...more, provisioner: type === 'jwk' ? jwk : x5c };
    return { authority: { type: 'step-ca', ttl, stepCa }, jwt: { ttl: '60s' } };
  }

  /** The key of the JWK provisioner that the agents have. */
  giveKey(keys: KeyPair): void {
    writeFileSync(this.#place('provisioner.key'), keyPem(keys), { mode: 0o600 });
  }

  /** The roots that step-ca has now go to the file `copy`. */
  copyRoots(): void {
    copyFileSync(this.server.caFile, this.#place('ca.crt'));
  }

  /** The machine's certificate for the X5C provisioner. */
  async certify(lifeMs: number, root = this.#bootstrap): Promise<void> {
    const node = await stepRoot('a node', { parent: root, ca: false, uses: 1, to: Date.now() + lifeMs });
    writeFileSync(this.#place('node.crt'), certificatePem(node.certificate));
    writeFileSync(this.#place('node.key'), keyPem(node), { mode: 0o600 });
  }

  #place(name: string): string {
    return join(this.#directory, name);
  }
}
