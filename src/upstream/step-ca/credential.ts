import { createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto';
import { calculateJwkThumbprint, compactDecrypt, flattenedDecrypt, type JWK } from 'jose';
import { messageOf } from '../../errors.ts';
import { isObject, type JsonObject } from '../../kubernetes/json.ts';
import { readPem } from '../../spiffe/pem.ts';
import { readSmallFile } from '../wire/small-file.ts';
import { isAway, UpstreamError } from '../wire/upstream-error.ts';
import type { JwkProvisioner, StepCaProvisioner, X5cProvisioner } from './step-ca-options.ts';

/** What signs tokens for a provisioner. */
export interface Credential {
  readonly privateKey: KeyObject;
  /** JWK: by which name the provisioner knows its key. */
  readonly keyId?: string;
  /** X5C: the certificate, then those above it; DER. */
  readonly chain?: readonly Buffer[];
  /** X5C: nothing signed may outlive it. Milliseconds since the Unix epoch; Infinity where there is no end. */
  readonly notAfter: number;
}

/** Finds a provisioner of this name as the server tells it; undefined when there is none. Rejects with UpstreamError. */
export type FindProvisioner = (name: string) => Promise<JsonObject | undefined>;

/** What the encryption of `step` may ask for: it derives with 600,000 rounds. More would be a burden that somebody else chooses. */
const DECRYPTION = { keyManagementAlgorithms: ['PBES2-HS256+A128KW'], maxPBES2Count: 2_000_000 };

/**
 * Reads what proves us to `provisioner`, at the moment `now`.
 *
 * @throws UpstreamError `login` naming the file and what is wrong; what `find` rejects with.
 */
export async function readCredential(provisioner: StepCaProvisioner, find: FindProvisioner, now: number): Promise<Credential> {
  try {
    return await (provisioner.type === 'jwk' ? readJwk(provisioner, find) : readX5c(provisioner, now));
  } catch (error) {
    if (error instanceof UpstreamError) throw error;
    throw new UpstreamError('login', `${messageOf(error)}`, { cause: error });
  }
}

async function readJwk({ name, key, passwordFile }: JwkProvisioner, find: FindProvisioner): Promise<Credential> {
  const password = passwordFile === undefined ? undefined : await readSmallFile('password', passwordFile);
  const where = key ?? `the provisioner ${name} of step-ca`;
  const text = key === undefined ? await keptKey(name, find) : await readSmallFile('provisioner key', key);
  const opened = await opening(where, passwordFile, () => openKey(text, password));
  const { kid } = opened;
  return { privateKey: opened.privateKey, keyId: kid ?? (await thumbprintOf(opened.privateKey)), notAfter: Infinity };
}

/** The encrypted one that the server hands out to everybody: only the password is a secret. */
async function keptKey(name: string, find: FindProvisioner): Promise<string> {
  const found = await find(name);
  if (found === undefined) throw new UpstreamError('login', noSuchProvisioner(name));
  const kept = found['encryptedKey'];
  if (typeof kept === 'string' && kept !== '') return kept;
  throw new UpstreamError('login', `step-ca keeps no encrypted key for the provisioner ${name}. What to do: set authority.stepCa.provisioner.key to a file with it`);
}

async function readX5c({ certificate, key, passwordFile }: X5cProvisioner, now: number): Promise<Credential> {
  const password = passwordFile === undefined ? undefined : await readSmallFile('password', passwordFile);
  const chain = readPem(await readSmallFile('certificate', certificate)).filter(({ label }) => label === 'CERTIFICATE').map(({ der }) => der);
  const [first] = chain;
  if (first === undefined) throw new Error(`the certificate in ${certificate} cannot be used: it holds no certificate in PEM`);
  const text = await readSmallFile('key', key);
  const { privateKey } = await opening(key, passwordFile, () => openKey(text, password));
  const leaf = new X509Certificate(first);
  if (!leaf.checkPrivateKey(privateKey)) throw new Error(`the certificate in ${certificate} and the key in ${key} do not belong together`);
  const [from, to] = [leaf.validFromDate.getTime(), leaf.validToDate.getTime()];
  const remedy = 'What to do: put a new certificate and its key there';
  if (now >= to) throw new Error(`the certificate in ${certificate} has ended at ${new Date(to).toISOString()}. ${remedy}`);
  if (now < from) throw new Error(`the certificate in ${certificate} is not valid before ${new Date(from).toISOString()}. What to do: wait, or set the clock of this machine right`);
  return { privateKey, chain, notAfter: to };
}

async function opening<T>(where: string, passwordFile: string | undefined, open: () => Promise<T>): Promise<T> {
  try {
    return await open();
  } catch (error) {
    if (isAway(error)) throw error;
    // The words of the libraries may quote what they could not read, and that is a key.
    const why = passwordFile === undefined ? 'it is no private key as PEM or JWK, or it is encrypted and provisioner.passwordFile is not set' : `the password in ${passwordFile} does not open it, or it is no private key as PEM, JWK or JWE`;
    throw new UpstreamError('login', `the key in ${where} cannot be used: ${why}`);
  }
}

async function openKey(text: string, password: string | undefined): Promise<{ privateKey: KeyObject; kid?: string }> {
  if (text.includes('-----BEGIN')) return { privateKey: createPrivateKey({ key: text, ...(password === undefined ? {} : { passphrase: password }) }) };
  const clear = text.startsWith('{') ? await jsonKey(text, password) : await decrypted((secret) => compactDecrypt(text, secret, DECRYPTION), password);
  const { kid } = clear;
  return { privateKey: createPrivateKey({ key: clear as Record<string, string>, format: 'jwk' }), ...(typeof kid === 'string' ? { kid } : {}) };
}

async function jsonKey(text: string, password: string | undefined): Promise<JsonObject> {
  const parsed: unknown = JSON.parse(text);
  if (!isObject(parsed)) throw new TypeError('not an object');
  if (!('ciphertext' in parsed)) return parsed;
  const jwe = parsed as unknown as Parameters<typeof flattenedDecrypt>[0];
  return decrypted((secret) => flattenedDecrypt(jwe, secret, DECRYPTION), password);
}

async function decrypted(decrypt: (secret: Uint8Array) => Promise<{ plaintext: Uint8Array }>, password: string | undefined): Promise<JsonObject> {
  if (password === undefined) throw new TypeError('no password');
  const { plaintext } = await decrypt(new TextEncoder().encode(password));
  const parsed: unknown = JSON.parse(new TextDecoder().decode(plaintext));
  if (!isObject(parsed)) throw new TypeError('not an object');
  return parsed;
}

/** RFC 7638, which `step` names keys by. */
export function thumbprintOf(key: KeyObject): Promise<string> {
  return calculateJwkThumbprint(key.export({ format: 'jwk' }) as JWK);
}

export function noSuchProvisioner(name: string): string {
  return `step-ca has no provisioner ${name}. What to do: add it (deploy/step-ca shows how), or set authority.stepCa.provisioner.name to the one that there is`;
}
