import { createPublicKey, type webcrypto } from 'node:crypto';
import { isObject } from '../kubernetes/json.ts';
import type { HeldKey } from './held-keys.ts';

/** Where other nodes' keys are kept across restarts. */
export interface KeyMemory {
  /** The text that was written last, or undefined. */
  read(): string | undefined;
  /** Must not be readable or writable by anybody else: what is read is believed. */
  write(text: string): Promise<void>;
}

const VERSION = 1;

/** The text of `keys`; their roots are in it once each. */
export function formatKeys(keys: readonly HeldKey[]): string {
  const roots = [...new Set(keys.map(({ root }) => root.toString('base64')))];
  return JSON.stringify({
    version: VERSION,
    roots,
    keys: keys.map(({ key, node, root, vanishedAt }) => ({
      kid: key.kid,
      jwk: key.jwk,
      notAfter: key.notAfter,
      node,
      root: roots.indexOf(root.toString('base64')),
      ...(vanishedAt === undefined ? {} : { vanishedAt }),
    })),
  });
}

/** Keys from their text; none from one of another version, and not those that are damaged. */
export function parseKeys(text: string | undefined): readonly HeldKey[] {
  const document = parsed(text);
  if (!isObject(document) || document['version'] !== VERSION) return [];
  const { roots, keys } = document;
  if (!Array.isArray(roots) || !Array.isArray(keys)) return [];
  const ders = roots.map((root) => Buffer.from(typeof root === 'string' ? root : '', 'base64'));
  return keys.map((one: unknown) => keyFrom(one, ders)).filter((key) => key !== undefined);
}

function keyFrom(one: unknown, roots: readonly Buffer[]): HeldKey | undefined {
  if (!isObject(one)) return undefined;
  const { kid, jwk, notAfter, node, root, vanishedAt } = one;
  const der = typeof root === 'number' ? roots[root] : undefined;
  if (typeof kid !== 'string' || typeof node !== 'string' || typeof notAfter !== 'number') return undefined;
  if (!isObject(jwk) || der === undefined) return undefined;
  try {
    const publicKey = createPublicKey({ key: jwk as webcrypto.JsonWebKey, format: 'jwk' });
    const key = { kid, publicKey, jwk: jwk as Readonly<Record<string, string>>, notAfter };
    return { key, node, root: der, vanishedAt: typeof vanishedAt === 'number' ? vanishedAt : undefined };
  } catch {
    return undefined;
  }
}

function parsed(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}
