import { createPublicKey } from 'node:crypto';
import * as v from 'valibot';
import { messageOf, SignetError } from '../errors.ts';
import type { JwtAuthority } from '../spiffe/bundle.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { Moment, moment } from './jwt-signing-key.ts';
import { jwtAuthority } from './keys.ts';
import { readPrivateFile, statePath, writePrivateFile } from './state-file.ts';

/** A version of a key that signs elsewhere. Times are milliseconds since the Unix epoch. */
export interface StoredVersion {
  readonly version: number;
  readonly authority: JwtAuthority;
  readonly since: number;
  readonly goneAt: number | undefined;
}

const FILE = 'transit-keys.json';
const StateText = v.strictObject({
  version: v.literal(1),
  trustDomain: v.string(),
  /** Which key they are versions of: those of another one are none of ours. */
  key: v.string(),
  versions: v.array(v.strictObject({ version: v.pipe(v.number(), v.safeInteger(), v.minValue(1)), publicKey: v.string(), since: Moment, goneAt: v.nullable(Moment) })),
});

/** Keeps the public keys of a key that signs elsewhere, so that they can be served after a restart. */
export class PublicKeyStore {
  readonly #path: string;
  readonly #trustDomain: TrustDomain;
  readonly #key: string;

  /** @param key names the key, such as its path. @param directory must exist and be locked by this process. */
  constructor(directory: string, trustDomain: TrustDomain, key: string) {
    this.#path = statePath(directory, FILE);
    this.#trustDomain = trustDomain;
    this.#key = key;
  }

  /** None when there is no file, or one of another key. @throws SignetError `state_refused` */
  async load(): Promise<readonly StoredVersion[]> {
    const text = readPrivateFile(this.#path);
    if (text === undefined) return [];
    try {
      const state = v.parse(StateText, JSON.parse(text));
      if (state.trustDomain !== this.#trustDomain || state.key !== this.#key) return [];
      return state.versions.map(({ version, publicKey, since, goneAt }) => ({
        version,
        authority: jwtAuthority(createPublicKey(publicKey)),
        since: Date.parse(since),
        goneAt: goneAt === null ? undefined : Date.parse(goneAt),
      }));
    } catch (error) {
      throw new SignetError('state_refused', `${this.#path} is damaged: ${messageOf(error)}. What to do: move it away; the public keys are then read from where they sign.`, { cause: error });
    }
  }

  /** @throws SignetError `state_unwritable`; the old file is then untouched. */
  async save(versions: readonly StoredVersion[]): Promise<void> {
    const state = {
      version: 1,
      trustDomain: this.#trustDomain,
      key: this.#key,
      versions: versions.map(({ version, authority, since, goneAt }) => ({
        version,
        publicKey: authority.publicKey.export({ format: 'pem', type: 'spki' }).toString(),
        since: moment(since),
        goneAt: goneAt === undefined ? null : moment(goneAt),
      })),
    };
    await writePrivateFile(this.#path, `${JSON.stringify(state, null, 2)}\n`);
  }
}
