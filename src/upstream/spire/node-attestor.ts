import { constants, createHash, createPrivateKey, sign, X509Certificate, type KeyObject } from 'node:crypto';
import { messageOf } from '../../errors.ts';
import { isObject } from '../../kubernetes/json.ts';
import type { Random } from '../../random.ts';
import { isEncrypted, readPem } from '../../spiffe/pem.ts';
import { readSmallFile } from '../wire/small-file.ts';
import { SpireError } from './spire-error.ts';
import type { SpireAttestation } from './spire-options.ts';

/** What a node proves itself by. */
export interface NodeProof {
  readonly type: SpireAttestation['method'];
  readonly payload: Buffer;
  /** A fingerprint of what can be used once; undefined for what can be used again. */
  readonly once: string | undefined;
  /** @throws SpireError for a challenge that cannot be answered. */
  respond(challenge: Buffer): Buffer;
}

const NONCE_BYTES = 32;

/** Reads what the node proves itself by. @throws SpireError `join` naming the file and what is wrong. */
export async function proofOf(attestation: SpireAttestation, random: Random): Promise<NodeProof> {
  try {
    if (attestation.method === 'join_token') return await tokenProof(attestation.tokenFile);
    return attestation.method === 'k8s_psat' ? await psatProof(attestation) : await x509Proof(attestation, random);
  } catch (error) {
    throw new SpireError('join', `this node cannot join the SPIRE server: ${messageOf(error)}`, error);
  }
}

async function tokenProof(path: string): Promise<NodeProof> {
  const token = await readSmallFile('join token', path);
  if (!/^[\x21-\x7e]{1,512}$/.test(token)) throw new Error(`the join token in ${path} cannot be used: it is not one word of at most 512 characters`);
  const once = createHash('sha256').update(token).digest('hex');
  return { type: 'join_token', payload: Buffer.from(token), once, respond: unexpected };
}

/** The server asks the API server whose token it is, and on which node its pod runs. */
async function psatProof({ cluster, tokenFile }: { cluster: string; tokenFile: string }): Promise<NodeProof> {
  const token = await readSmallFile('token', tokenFile);
  return { type: 'k8s_psat', payload: json({ cluster, token }), once: undefined, respond: unexpected };
}

function unexpected(): never {
  throw new SpireError('malformed', 'the SPIRE server has sent a challenge for a token');
}

/** Proof of possession: the server signs nothing before we have signed both its nonce and ours. */
async function x509Proof({ certificate, key }: { certificate: string; key: string }, random: Random): Promise<NodeProof> {
  const [chain, privateKey] = [await certificatesIn(certificate), await keyIn(key)];
  const [leaf] = chain;
  if (leaf === undefined || !new X509Certificate(leaf).checkPrivateKey(privateKey)) throw new Error(`the certificate in ${certificate} and the key in ${key} do not belong together`);
  const payload = Buffer.from(JSON.stringify({ certificates: chain.map((der) => der.toString('base64')) }));
  return { type: 'x509pop', payload, once: undefined, respond: (challenge) => respond(challenge, privateKey, random) };
}

async function certificatesIn(path: string): Promise<Buffer[]> {
  const ders = readPem(await readSmallFile('certificate', path)).filter(({ label }) => label === 'CERTIFICATE').map(({ der }) => der);
  if (ders.length === 0) throw new Error(`the certificate in ${path} cannot be used: it holds no certificate in PEM`);
  return ders;
}

async function keyIn(path: string): Promise<KeyObject> {
  const text = await readSmallFile('key', path);
  const blocks = readPem(text).filter(({ label }) => label.endsWith('PRIVATE KEY'));
  if (blocks.some(isEncrypted)) throw new Error(`the key in ${path} cannot be used: it is encrypted`);
  try {
    const found = createPrivateKey(blocks[0]?.text ?? '');
    if (found.asymmetricKeyType !== 'ec' && found.asymmetricKeyType !== 'rsa') throw new Error('it is neither an EC nor an RSA key');
    return found;
  } catch (error) {
    throw new Error(`the key in ${path} cannot be used: ${messageOf(error)}`, { cause: error });
  }
}

/**
 * The JSON of SPIRE's x509pop attestor, where bytes are base64. What is signed is the SHA-256 of both nonces, so that signing both by
 * ECDSA or RSASSA-PSS with SHA-256 is the same.
 */
function respond(challenge: Buffer, privateKey: KeyObject, random: Random): Buffer {
  const isRsa = privateKey.asymmetricKeyType === 'rsa';
  const nonce = random.bytes(NONCE_BYTES);
  const both = Buffer.concat([nonceIn(challenge, isRsa ? 'rsa_signature' : 'ecdsa_signature'), nonce]);
  const text = (bytes: Buffer): string => bytes.toString('base64');
  if (isRsa) {
    const signature = sign('sha256', both, { key: privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST });
    return json({ rsa_signature: { nonce: text(nonce), signature: text(signature) } });
  }
  const signature = sign('sha256', both, { key: privateKey, dsaEncoding: 'ieee-p1363' });
  const half = signature.length / 2;
  return json({ ecdsa_signature: { nonce: text(nonce), r: text(signature.subarray(0, half)), s: text(signature.subarray(half)) } });
}

function nonceIn(challenge: Buffer, kind: string): Buffer {
  try {
    const parsed: unknown = JSON.parse(challenge.toString('utf8'));
    const asked = isObject(parsed) ? parsed[kind] : undefined;
    const nonce = isObject(asked) && typeof asked['nonce'] === 'string' ? Buffer.from(asked['nonce'], 'base64') : undefined;
    if (nonce?.length === NONCE_BYTES) return nonce;
  } catch {
    // Said below.
  }
  throw new SpireError('malformed', `the SPIRE server has sent no challenge of x509pop for our key (${kind})`);
}

function json(value: object): Buffer {
  return Buffer.from(JSON.stringify(value));
}
