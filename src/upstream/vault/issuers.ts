import { X509Certificate } from 'node:crypto';
import { textAt, type JsonObject } from '../../kubernetes/json.ts';
import { readPem } from '../../spiffe/pem.ts';
import { isRoot, once } from '../wire/chain.ts';
import type { KnownIssuers } from '../wire/issuer-watch.ts';
import type { VaultAnswer, VaultRequest } from './client.ts';
import { pathOf } from './path.ts';
import { hasFault, VaultError } from './vault-error.ts';

/** The part of a client that reads what Vault tells everybody. */
export interface OpenReader {
  requestOpen(method: 'GET' | 'LIST', path: string, request?: VaultRequest): Promise<VaultAnswer>;
}

/** What a mount of the PKI engine stands for now. */
export interface MountIssuers extends KnownIssuers {
  readonly issuer: Buffer;
}

const PURPOSE = 'roots';

/** Far more than a mount of its own has; it bounds what one look costs. Some left out would be identities that nobody believes. */
const MOST_ISSUERS = 64;

/**
 * Reads all issuers of a mount: `ca_chain` has only the one that is the default now, so that a bundle from it alone loses the old
 * root in the moment of a rotation, and does not have the new one before.
 *
 * @param ref what signs: `default`, a name or an ID.
 * @throws VaultError, or the reason of the signal.
 */
export async function readIssuers(reader: OpenReader, mount: string, ref: string, signal: AbortSignal): Promise<MountIssuers> {
  const asked = { signal, purpose: PURPOSE };
  const signer = await reader.requestOpen('GET', pathOf(mount, 'issuer', ref, 'json'), asked);
  const [issuer] = certificatesAt(signer.data, 'certificate');
  if (issuer === undefined) throw new VaultError('malformed', `the answer of Vault holds no certificate of the issuer ${ref} of ${mount}`);
  const certificates = [issuer, ...chainOf(signer.data)];
  const { data } = await reader.requestOpen('LIST', pathOf(mount, 'issuers'), asked);
  const ids = idsOf(data);
  if (ids.length > MOST_ISSUERS) {
    const remedy = 'What to do: use a mount of its own, and delete what has ended';
    throw new VaultError('malformed', `${mount} of Vault has ${ids.length} issuers, more than ${MOST_ISSUERS}. ${remedy}`);
  }
  for (const id of ids) certificates.push(...(await readIssuer(reader, pathOf(mount, 'issuer', id, 'json'), asked)));
  const all = once(certificates);
  return { issuer, certificates: all, roots: all.filter(isRoot) };
}

/** The certificates in the list `ca_chain`. */
export function chainOf(data: JsonObject): Buffer[] {
  const chain = data['ca_chain'];
  return Array.isArray(chain) ? chain.flatMap((one) => (typeof one === 'string' ? certificatesIn(one) : [])) : [];
}

/** The certificates in the text at `key`. */
export function certificatesAt(data: JsonObject, key: string): Buffer[] {
  return certificatesIn(textAt(data, key));
}

/** Nothing for one that was deleted since the list was made. */
async function readIssuer(reader: OpenReader, path: string, asked: VaultRequest): Promise<Buffer[]> {
  try {
    const { data } = await reader.requestOpen('GET', path, asked);
    return [...certificatesAt(data, 'certificate'), ...chainOf(data)];
  } catch (error) {
    if (hasFault(error, 'not_found', 'server_error')) return [];
    throw error;
  }
}

function idsOf(data: JsonObject): string[] {
  const keys = data['keys'];
  return Array.isArray(keys) ? keys.filter((key) => typeof key === 'string') : [];
}

/** @throws VaultError `malformed` */
function certificatesIn(text: string): Buffer[] {
  try {
    const ders = readPem(text).map(({ der }) => der);
    for (const der of ders) new X509Certificate(der);
    return ders;
  } catch (error) {
    throw new VaultError('malformed', 'the answer of Vault holds a certificate that cannot be read', { cause: error });
  }
}
