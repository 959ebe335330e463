import 'reflect-metadata';
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as x509 from '@peculiar/x509';
import { createIntermediate, createRoot, issuerFrom, type Issuer } from '../../src/authority/certificate.ts';
import { newKeyPair, type KeyPair } from '../../src/authority/keys.ts';
import { judgeCa } from '../../src/authority/upstream-ca.ts';
import { systemRandom } from '../../src/random.ts';
import type { KeyType } from '../../src/spiffe/key-type.ts';
import { parseSpiffeId } from '../../src/spiffe/id.ts';
import type { CaTools } from '../../src/upstream/upstream.ts';

/** A root of `example.org`, valid in [from, to) milliseconds since the Unix epoch. */
export async function testIssuer(from: number, to: number): Promise<Issuer> {
  const keys = await newKeyPair('ec-p256');
  return issuerOf(keys, from, to);
}

export async function issuerOf(keys: KeyPair, from: number, to: number): Promise<Issuer> {
  const certificate = await createRoot(keys, { id: parseSpiffeId('spiffe://example.org'), notBefore: from, notAfter: to }, systemRandom);
  return issuerFrom(certificate, keys);
}

/** A CA as an operator has made it elsewhere. */
export interface TestCa extends KeyPair {
  readonly certificate: Buffer;
  readonly name: string | x509.Name;
  readonly keyId: string;
}

/** What differs from a good root that is valid for a year around the fake clock's beginning. */
export interface TestCaOptions {
  readonly parent?: TestCa;
  readonly name?: string | x509.Name;
  readonly keys?: KeyPair;
  readonly keyType?: KeyType;
  readonly ca?: boolean;
  readonly pathLength?: number;
  readonly uses?: number;
  readonly uris?: readonly string[];
  readonly from?: number;
  readonly to?: number;
  readonly hash?: string;
  readonly more?: readonly x509.Extension[];
  /** Without subject key identifier. */
  readonly isNameless?: boolean;
}

const EPOCH = Date.UTC(2030, 0, 1);
const HALF_YEAR = 183 * 86_400_000;
const SIGN = x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign;
let made = 0;

/** Makes a CA that may break any rule: the library's own generator, none of ours. */
export async function testCa(options: TestCaOptions = {}): Promise<TestCa> {
  made += 1;
  const keys = options.keys ?? (await newKeyPair(options.keyType ?? 'ec-p256'));
  const name = options.name ?? `O=Test, CN=CA ${made}`;
  const keyId = made.toString(16).padStart(40, '0');
  const parent = options.parent ?? { ...keys, name, keyId };
  const extensions: x509.Extension[] = [
    new x509.BasicConstraintsExtension(options.ca ?? true, options.pathLength, true),
    new x509.KeyUsagesExtension(options.uses ?? SIGN, true),
    new x509.AuthorityKeyIdentifierExtension(parent.keyId),
    ...(options.isNameless === true ? [] : [new x509.SubjectKeyIdentifierExtension(keyId)]),
    ...(options.uris === undefined ? [] : [new x509.SubjectAlternativeNameExtension(options.uris.map((value) => ({ type: 'url', value })))]),
    ...(options.more ?? []),
  ];
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: `40${made.toString(16).padStart(6, '0')}`,
    subject: name,
    issuer: parent.name,
    notBefore: new Date(options.from ?? EPOCH - HALF_YEAR),
    notAfter: new Date(options.to ?? EPOCH + HALF_YEAR),
    publicKey: new x509.PublicKey(keys.publicKey.export({ format: 'der', type: 'spki' })),
    ...signing(parent, options.hash ?? 'SHA-256'),
    extensions,
  });
  return { ...keys, certificate: Buffer.from(certificate.rawData), name, keyId };
}

function signing({ privateKey }: KeyPair, hash: string): { signingKey: CryptoKey; signingAlgorithm: { name: string; hash: string } } {
  const algorithm =
    privateKey.asymmetricKeyType === 'rsa'
      ? { name: 'RSASSA-PKCS1-v1_5', hash }
      : { name: 'ECDSA', hash, namedCurve: privateKey.asymmetricKeyDetails?.namedCurve === 'secp384r1' ? 'P-384' : 'P-256' };
  return { signingKey: privateKey.toCryptoKey(algorithm, false, ['sign']), signingAlgorithm: algorithm };
}

/** What the agent passes to an upstream that signs by itself. */
export const caTools: CaTools = { judgeCa, signNodeCa: (ca, request) => createIntermediate(ca, request, systemRandom) };

export function certificatePem(...ders: readonly Buffer[]): string {
  return ders.map((der) => `-----BEGIN CERTIFICATE-----\n${der.toString('base64').replace(/.{64}/g, '$&\n').trimEnd()}\n-----END CERTIFICATE-----\n`).join('');
}

export function keyPem({ privateKey }: Pick<KeyPair, 'privateKey'>): string {
  return privateKey.export({ format: 'pem', type: 'pkcs8' }).toString();
}

/** The files of a CA: `chain` after its certificate, `roots` in `ca.crt`. */
export function caFiles(ca: TestCa, { chain = [], roots = [ca] }: { chain?: readonly TestCa[]; roots?: readonly TestCa[] } = {}): Record<string, string> {
  return {
    'tls.crt': certificatePem(ca.certificate, ...chain.map(({ certificate }) => certificate)),
    'tls.key': keyPem(ca),
    'ca.crt': certificatePem(...roots.map(({ certificate }) => certificate)),
  };
}

/** A Secret mounted by a kubelet: links to `..data`, which is a link to a directory that is replaced as a whole. */
export class MountedSecret {
  readonly directory: string;
  #version = 0;

  constructor(directory: string, files: Readonly<Record<string, string>>) {
    this.directory = directory;
    mkdirSync(directory, { mode: 0o755, recursive: true });
    this.update(files);
    for (const name of Object.keys(files)) symlinkSync(join('..data', name), join(directory, name));
  }

  path(name: string): string {
    return join(this.directory, name);
  }

  update(files: Readonly<Record<string, string>>): void {
    const before = `..version_${this.#version}`;
    this.#version += 1;
    const version = `..version_${this.#version}`;
    mkdirSync(join(this.directory, version), { mode: 0o755 });
    for (const [name, text] of Object.entries(files)) writeFileSync(join(this.directory, version, name), text, { mode: 0o600 });
    symlinkSync(version, join(this.directory, '..data_tmp'));
    renameSync(join(this.directory, '..data_tmp'), join(this.directory, '..data'));
    rmSync(join(this.directory, before), { recursive: true, force: true });
  }
}
