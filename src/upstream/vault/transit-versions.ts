import { createPublicKey, type KeyObject } from 'node:crypto';
import { messageOf, SignetError } from '../../errors.ts';
import { flagAt, isObject, objectAt, textAt, timeAt, type JsonObject } from '../../kubernetes/json.ts';
import type { JwtAuthority } from '../../spiffe/bundle.ts';
import { VaultError } from './vault-error.ts';

/** One version of a transit key, as Vault tells it. Times are milliseconds since the Unix epoch. */
export interface ToldVersion {
  readonly version: number;
  readonly publicKey: KeyObject;
  readonly createdAt: number | undefined;
}

export interface ToldKey {
  readonly versions: readonly ToldVersion[];
  /** A lower one is not signed with. */
  readonly lowest: number;
  /** What an operator should know, although it can be used. */
  readonly warnings: readonly string[];
}

/** A version whose public key is, or may have to be, in the bundle. */
export interface KnownVersion {
  readonly version: number;
  readonly authority: JwtAuthority;
  /** Since when it can be in the bundles of all who follow the key. */
  readonly since: number;
  /** Since when Vault does not name it any more; undefined while it does. */
  readonly goneAt: number | undefined;
}

/** A key that is rotated hourly keeps about a month of versions; more than that is not a key for tokens. */
const MOST_VERSIONS = 1_024;

/**
 * Reads the answer to `GET transit/keys/:key`.
 *
 * @throws SignetError `state_refused` for a key that ES256 tokens cannot be signed with; VaultError `malformed`.
 */
export function readTransitKey(data: JsonObject, name: string): ToldKey {
  const type = textAt(data, 'type');
  if (type !== 'ecdsa-p256' || flagAt(data, 'derived')) {
    throw new SignetError('state_refused', `the transit key ${name} is of the type ${type || 'unknown'} and cannot sign ES256. What to do: \`vault write -f ${name} type=ecdsa-p256\` under a new name, and name that`);
  }
  const entries = Object.entries(objectAt(data, 'keys'));
  if (entries.length === 0 || entries.length > MOST_VERSIONS) throw new VaultError('malformed', `the transit key ${name} has ${entries.length} versions, not 1 to ${MOST_VERSIONS}`);
  const lowest = Number(data['min_encryption_version'] ?? 0);
  const warnings = ['exportable', 'allow_plaintext_backup'].filter((flag) => flagAt(data, flag)).map((flag) => `the transit key ${name} has ${flag}: whoever may read it takes the private key out of Vault, and it cannot be turned off again. What to do: use a new key without`);
  return { versions: entries.map(([version, value]) => readVersion(Number(version), value, name)), lowest: Number.isSafeInteger(lowest) ? lowest : 0, warnings };
}

function readVersion(version: number, value: unknown, name: string): ToldVersion {
  try {
    if (!Number.isSafeInteger(version) || version < 1 || !isObject(value)) throw new Error('it is not a version');
    const publicKey = createPublicKey(textAt(value, 'public_key'));
    if (publicKey.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new Error('it is not on P-256');
    return { version, publicKey, createdAt: timeAt(value, 'creation_time') };
  } catch (error) {
    throw new VaultError('malformed', `version ${version} of the transit key ${name} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

/** What is known after Vault has told `versions` at `now`. What it does not name any more is kept: tokens of it may live. */
export function followVersions(
  known: readonly KnownVersion[],
  versions: readonly ToldVersion[],
  authorityOf: (publicKey: KeyObject) => JwtAuthority,
  now: number,
): readonly KnownVersion[] {
  const isFirst = known.length === 0;
  const told = versions.map(({ version, publicKey, createdAt = now }) => {
    const authority = authorityOf(publicKey);
    const same = known.find((one) => one.version === version && one.authority.kid === authority.kid);
    // Those that are there at first have been in the bundles of other nodes since they were made.
    return same === undefined ? { version, authority, since: isFirst ? Math.min(createdAt, now) : now, goneAt: undefined } : { ...same, goneAt: undefined };
  });
  const gone = known.filter((one) => !told.some(({ version, authority }) => version === one.version && authority.kid === one.authority.kid));
  return [...gone.map((one) => ({ ...one, goneAt: one.goneAt ?? now })), ...told].sort((a, b) => a.version - b.version || a.since - b.since);
}

/** The version that signs at `now`: the highest that everybody knows by then, else the one that has been known for longest. */
export function signingVersion(known: readonly KnownVersion[], lowest: number, overlapMs: number, now: number): KnownVersion | undefined {
  const usable = known.filter(({ version, goneAt }) => goneAt === undefined && version >= lowest);
  // After a step back of the clock the oldest is the one that most have.
  return usable.findLast(({ since }) => since + overlapMs <= now) ?? usable[0];
}

/** When the last token that any node has signed with `one` has ended; Infinity for one that signs, or will. */
export function endOfTokens(one: KnownVersion, known: readonly KnownVersion[], longestMs: number, overlapMs: number): number {
  const successor = known.find(({ version, goneAt }) => version > one.version && goneAt === undefined);
  // Until all have noticed, some go on signing with it.
  const lastUse = Math.min(one.goneAt ?? Infinity, successor === undefined ? Infinity : successor.since + overlapMs) + overlapMs;
  return lastUse + longestMs;
}
