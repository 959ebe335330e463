import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { request } from 'node:https';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { CompactEncrypt, calculateJwkThumbprint, type JWK } from 'jose';
import { newKeyPair, type KeyPair } from '../../src/authority/keys.ts';
import { certificatePem, keyPem, testCa, type TestCa } from './authorities.ts';

const BINARY = join(process.env['SIGNET_CACHE'] ?? join(homedir(), '.cache', 'signet-tools'), 'bin', 'step-ca');
const DEPLOY = fileURLToPath(new URL('../../deploy/step-ca/', import.meta.url));
const START_MS = 20_000;
const YEAR_MS = 365 * 86_400_000;
export const PASSWORD = 'a password of the tests';

/** Why there is no step-ca to test against, for the title of a skipped test; undefined when there is one. */
export function stepCaMissing(): string | undefined {
  return existsSync(BINARY) ? undefined : `no step-ca at ${BINARY}`;
}

/** A CA that may sign CAs that sign leaves, valid now. */
export function stepRoot(name: string, options: Parameters<typeof testCa>[0] = {}): Promise<TestCa> {
  return testCa({ name: `O=Signet tests, CN=${name}`, from: Date.now() - 3_600_000, to: Date.now() + YEAR_MS, ...options });
}

/** A CA under `root` as step-ca needs it for node CAs. `pathLength` 0 is what `step ca init` gives. */
export function stepIntermediate(root: TestCa, name = 'step intermediate', pathLength = 1): Promise<TestCa> {
  return stepRoot(name, { parent: root, pathLength });
}

export type ProvisionerEntry = Readonly<Record<string, unknown>> & { readonly name: string };

export interface StepCaParts {
  readonly roots: readonly TestCa[];
  readonly intermediate: TestCa;
  readonly provisioners: readonly ProvisionerEntry[];
}

/** The JWK provisioner of deploy/step-ca with the key `keys`. */
export async function jwkProvisioner(keys: KeyPair, changes: Readonly<Record<string, unknown>> = {}): Promise<ProvisionerEntry> {
  const jwk = keys.publicKey.export({ format: 'jwk' }) as JWK;
  const kid = await calculateJwkThumbprint(jwk);
  const encryptedKey = await encrypted(JSON.stringify({ ...(keys.privateKey.export({ format: 'jwk' }) as JWK), kid }));
  return { ...sample('jwk'), key: { use: 'sig', alg: 'ES256', kid, ...jwk }, encryptedKey, ...changes, name: String(changes['name'] ?? sample('jwk').name) };
}

/** The X5C provisioner of deploy/step-ca that takes certificates under `root`. */
export function x5cProvisioner(root: TestCa, changes: Readonly<Record<string, unknown>> = {}): ProvisionerEntry {
  const roots = Buffer.from(certificatePem(root.certificate)).toString('base64');
  return { ...sample('x5c'), roots, ...changes, name: String(changes['name'] ?? sample('x5c').name) };
}

/** As `step` encrypts keys of provisioners. */
export function encrypted(text: string): Promise<string> {
  const header = { alg: 'PBES2-HS256+A128KW', enc: 'A256GCM', cty: 'jwk+json' };
  return new CompactEncrypt(new TextEncoder().encode(text)).setProtectedHeader(header).setKeyManagementParameters({ p2c: 10_000 }).encrypt(new TextEncoder().encode(PASSWORD));
}

/** The entry of deploy/step-ca as it is, with the template's place and a short life allowed. */
function sample(type: 'jwk' | 'x5c'): ProvisionerEntry {
  const entry = JSON.parse(readFileSync(join(DEPLOY, `provisioner-${type}.json`), 'utf8')) as ProvisionerEntry & { claims: object; options: { x509: object } };
  const x509 = { ...entry.options.x509, templateFile: join(DEPLOY, 'node-ca.tpl') };
  return { ...entry, claims: { ...entry.claims, minTLSCertDuration: '1s' }, options: { x509 } };
}

/** The entry with other data for its template. */
export function withTemplate(entry: ProvisionerEntry, template: object): ProvisionerEntry {
  const options = entry['options'] as { x509: { templateData: object } };
  const templateData = 'templateData' in template ? { ...options.x509.templateData, ...(template.templateData as object) } : options.x509.templateData;
  return { ...entry, options: { x509: { ...options.x509, ...template, templateData } } };
}

/** A real step-ca with its storage in a directory, so that it can be stopped and started. */
export class StepCaServer {
  readonly directory = mkdtempSync(join(tmpdir(), 'signet-step-ca-'));
  readonly address: URL;
  /** PEM: the roots that it has now. */
  readonly caFile = join(this.directory, 'roots.pem');
  #process: ChildProcess | undefined;
  #parts: StepCaParts;
  /** A server at whose port the process really is; the address where nothing stands before it. */
  readonly #port: number;

  private constructor(port: number, parts: StepCaParts) {
    this.#port = port;
    this.address = new URL(`https://127.0.0.1:${port}`);
    this.#parts = parts;
  }

  static async start(parts: StepCaParts): Promise<StepCaServer> {
    const server = new StepCaServer(await freePort(), parts);
    try {
      await server.start();
      return server;
    } catch (error) {
      await server.close();
      throw error;
    }
  }

  get parts(): StepCaParts {
    return this.#parts;
  }

  /** SHA-256 of the first root. */
  get fingerprint(): string {
    return createHash('sha256').update(this.#parts.roots[0]?.certificate ?? '').digest('hex');
  }

  /** Starts again with other parts, as an operator changes ca.json. */
  async change(parts: Partial<StepCaParts>): Promise<void> {
    this.#parts = { ...this.#parts, ...parts };
    await this.stop();
    await this.start();
  }

  async start(): Promise<void> {
    const { roots, intermediate, provisioners } = this.#parts;
    const place = (name: string): string => join(this.directory, name);
    const files = roots.map((root, index) => {
      writeFileSync(place(`root-${index}.crt`), certificatePem(root.certificate));
      return place(`root-${index}.crt`);
    });
    writeFileSync(this.caFile, certificatePem(...roots.map(({ certificate }) => certificate)));
    writeFileSync(place('int.crt'), certificatePem(intermediate.certificate));
    writeFileSync(place('int.key'), keyPem(intermediate), { mode: 0o600 });
    const config = {
      root: files,
      crt: place('int.crt'),
      key: place('int.key'),
      address: `127.0.0.1:${this.#port}`,
      dnsNames: ['127.0.0.1', 'localhost'],
      logger: { format: 'json' },
      db: { type: 'badgerv2', dataSource: place('db') },
      authority: { claims: { minTLSCertDuration: '1s', maxTLSCertDuration: '24h' }, provisioners },
    };
    writeFileSync(place('ca.json'), JSON.stringify(config));
    const log = openSync(place('step-ca.log'), 'a');
    const child = spawn(BINARY, [place('ca.json')], { stdio: ['ignore', log, log], env: { PATH: process.env['PATH'], HOME: this.directory, STEPPATH: place('step') } });
    closeSync(log);
    this.#process = child;
    // A test process that is ended before its hooks have run takes it along.
    const end = (): void => void child.kill('SIGKILL');
    process.once('exit', end);
    child.once('exit', () => process.off('exit', end));
    const until = performance.now() + START_MS;
    while (!(await this.#isUp())) {
      if (performance.now() > until || child.exitCode !== null) throw new Error(`step-ca does not start: ${this.log().slice(-2_000)}`);
      await delay(50);
    }
  }

  async stop(): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    const kill = setTimeout(() => child.kill('SIGKILL'), 3_000);
    await gone;
    clearTimeout(kill);
  }

  log(): string {
    return readFileSync(join(this.directory, 'step-ca.log'), 'utf8');
  }

  async close(): Promise<void> {
    await this.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }

  #isUp(): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    // Another process may be at the port: only this one has a certificate under these roots.
    const outgoing = request(new URL('/health', this.address), { agent: false, ca: readFileSync(this.caFile, 'utf8'), timeout: 2_000 }, (incoming) => {
      incoming.resume();
      resolve(incoming.statusCode === 200);
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer')));
    outgoing.on('error', () => resolve(false));
    outgoing.end();
    return promise;
  }
}

/** A new key of a provisioner. */
export function provisionerKey(): Promise<KeyPair> {
  return newKeyPair('ec-p256');
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
