import { constants, sign, type KeyObject } from 'node:crypto';
import { jwtAuthority, newKeyPair, type KeyPair } from '../../src/authority/keys.ts';
import { signNodeKeys, type NodeJwtKey, type NodeKeySet } from '../../src/authority/node-key-set.ts';
import { parseTrustDomain } from '../../src/spiffe/id.ts';
import { testCa, type TestCa, type TestCaOptions } from './authorities.ts';

export const NOW = Date.UTC(2030, 0, 1);
export const DAY = 86_400_000;
export const INSTANCE = '0123456789ab';
export const exampleOrg = parseTrustDomain('example.org');
const ID = 'spiffe://example.org';

/** A CA as a node has it, under `parent`. */
export function nodeCa(parent: TestCa, options: TestCaOptions = {}): Promise<TestCa> {
  return testCa({ parent, uris: [ID], pathLength: 0, from: NOW - 300_000, to: NOW + DAY, ...options });
}

export interface OwnJwtKey extends NodeJwtKey, KeyPair {
  readonly activatesAt: number;
}

export async function jwtKey(notAfter = NOW + DAY, activatesAt = NOW): Promise<OwnJwtKey> {
  const keys = await newKeyPair('ec-p256');
  return { ...jwtAuthority(keys.publicKey), ...keys, notAfter, activatesAt };
}

export function keySet(keys: readonly NodeJwtKey[], more: Partial<NodeKeySet> = {}): NodeKeySet {
  return { trustDomain: exampleOrg, node: 'node-a', instance: INSTANCE, issuedAt: NOW, keys, ...more };
}

/** A set as an agent signs it. `chain`: what lies above `ca`, without the root. */
export function signedSet(ca: TestCa, set: NodeKeySet, chain: readonly TestCa[] = []): string {
  return signNodeKeys(ca, [ca, ...chain].map(({ certificate }) => certificate), set);
}

/** A JWS over anything, with any header: not the program's own code. */
export function rawJws(privateKey: KeyObject, header: unknown, payload: unknown): string {
  const encode = (value: unknown): string => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
  const signed = `${encode(header)}.${encode(payload)}`;
  const options = privateKey.asymmetricKeyType === 'rsa' ? { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 } : { dsaEncoding: 'ieee-p1363' as const };
  return `${signed}.${sign('sha256', Buffer.from(signed), { key: privateKey, ...options }).toString('base64url')}`;
}

/** Header and payload of a good set, to be changed. */
export function partsOf(jws: string): { header: Record<string, unknown>; payload: Record<string, unknown> } {
  const [header, payload] = jws.split('.').slice(0, 2).map((part) => JSON.parse(Buffer.from(part, 'base64url').toString() || '{}') as Record<string, unknown>);
  return { header: header ?? {}, payload: payload ?? {} };
}

