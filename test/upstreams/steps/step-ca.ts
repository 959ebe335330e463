import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { KeyPair } from '../../../src/authority/keys.ts';
import { certificatePem, keyPem, type TestCa } from '../../support/authorities.ts';
import { jwkProvisioner, provisionerKey, stepIntermediate, stepRoot, StepCaServer, x5cProvisioner } from '../../support/step-ca-server.ts';
import { NodeAgent } from '../agents.ts';
import { stepCaOrAgentMissing } from '../missing.ts';
import { announced, Pair, unannounced } from '../rotation.ts';
import type { Step } from '../step.ts';
import { byClients } from './clients.ts';
import { rideOutage } from './outage.ts';

const HOUR_MS = 3_600_000;
/** What the documentation asks for: the roots are looked at each 30 s. */
const OVERLAP_MS = 60_000;

/** A smallstep CA with the two provisioners of deploy/step-ca, and files that prove an agent to it. */
class StepCa {
  readonly root: TestCa;
  readonly server: StepCaServer;
  readonly #directory: string;

  private constructor(root: TestCa, server: StepCaServer, directory: string) {
    this.root = root;
    this.server = server;
    this.#directory = directory;
  }

  static async open(started: AsyncDisposableStack): Promise<StepCa> {
    const directory = mkdtempSync(join(tmpdir(), 'signet-under-step-ca-'));
    started.defer(() => rmSync(directory, { recursive: true, force: true }));
    const [root, bootstrap, keys] = [await stepRoot('first root'), await stepRoot('bootstrap root'), await provisionerKey()];
    const provisioners = [await jwkProvisioner(keys), x5cProvisioner(bootstrap, { name: 'signet-x5c' })];
    const server = await StepCaServer.start({ roots: [root], intermediate: await stepIntermediate(root), provisioners });
    started.defer(() => server.close());
    const ca = new StepCa(root, server, directory);
    await ca.#write(keys, bootstrap);
    return ca;
  }

  /** The part of an agent's configuration that says who signs. */
  under(type: 'jwk' | 'x5c', { pin = 'fingerprint', ttl = '1h' }: { pin?: 'fingerprint' | 'caFile'; ttl?: string } = {}): Readonly<Record<string, unknown>> {
    const place = (name: string): string => join(this.#directory, name);
    const jwk = { type, name: 'signet-node-ca', key: place('provisioner.key') };
    const x5c = { type, name: 'signet-x5c', certificate: place('node.crt'), key: place('node.key') };
    const stepCa = { address: this.server.address.origin, [pin]: this.server[pin], provisioner: type === 'jwk' ? jwk : x5c };
    return { authority: { type: 'step-ca', ttl, stepCa }, jwt: { ttl: '60s' } };
  }

  async #write(keys: KeyPair, bootstrap: TestCa): Promise<void> {
    const node = await stepRoot('a node', { parent: bootstrap, ca: false, uses: 1, to: Date.now() + 24 * HOUR_MS });
    const files = { 'provisioner.key': keyPem(keys), 'node.crt': certificatePem(node.certificate), 'node.key': keyPem(node) };
    for (const [name, text] of Object.entries(files)) writeFileSync(join(this.#directory, name), text, { mode: 0o600 });
  }
}

/** As `outage`, under step-ca. */
export const outageStepCa: Step = {
  title: 'step-ca is stopped for 3 minutes under load, 60 s SVIDs, the agent killed and restarted in the middle',
  missing: stepCaOrAgentMissing,
  async run(report, started) {
    const { server, under } = await opened(started);
    await rideOutage(report, started, { name: 'step-ca', config: under('jwk'), stop: () => server.stop(), start: () => server.start() });
  },
};

/** A second root in ca.json, then an intermediate under it, then the former root goes. */
export const rotationStepCa: Step = {
  title: 'the root of step-ca is replaced, 50 connections a second between two agents',
  missing: stepCaOrAgentMissing,
  async run(report, started) {
    const { root, server, under } = await opened(started);
    const [next, last] = [await stepRoot('second root'), await stepRoot('third root')];
    // A node that starts after the change could not know the first root by its fingerprint.
    const pair = await Pair.start(under('jwk', { pin: 'caFile' }), started);
    await announced(report, pair, {
      publish: () => server.change({ roots: [root, next] }),
      swap: async () => server.change({ intermediate: await stepIntermediate(next, 'second intermediate') }),
      remove: () => server.change({ roots: [next] }),
      roots: 2,
      waitMs: OVERLAP_MS,
    });
    await unannounced(report, pair, async () => server.change({ roots: [next, last], intermediate: await stepIntermediate(last, 'third intermediate') }));
  },
};

/** The published clients of test/interop, and OpenSSL, against an agent under step-ca. */
export const clientsStepCa: Step = {
  title: 'all methods by the published clients, under step-ca with an X5C provisioner',
  missing: stepCaOrAgentMissing,
  async run(report, started) {
    const { under } = await opened(started);
    // Of two minutes, so that node CAs follow themselves by their keys, under one name, while the clients look.
    const agent = started.use(await NodeAgent.start(['interop'], { ...under('x5c', { ttl: '2m' }), x509: { ttl: '60s' } }));
    await byClients(report, 'intermediate', agent.socket);
  },
};

async function opened(started: AsyncDisposableStack) {
  const ca = await StepCa.open(started);
  return { root: ca.root, server: ca.server, under: ca.under.bind(ca) };
}
