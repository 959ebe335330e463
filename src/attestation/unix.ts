import { isUtf8 } from 'node:buffer';
import { readlink } from 'node:fs/promises';
import type { Clock } from '../clock.ts';
import { SignetError, isSignetError } from '../errors.ts';
import type { Selector } from '../spiffe/selector.ts';
import { AccountNames, type Names } from './accounts.ts';
import type { Attestor } from './attestor.ts';
import { procFailure, type Caller } from './caller.ts';
import { FileHashes, identifyFile, type FileIdentity } from './executable.ts';

const LONGEST_HASHED_BYTES = 256 << 20;

export interface UnixAttestorOptions {
  readonly clock: Clock;
  /**
   * Adds `unix:path` and `unix:sha256` of the program that the caller runs. Default false. Both only narrow a selector by user:
   * a caller can execute another program after it has connected, and can have any file at any path in a mount namespace of its
   * own.
   */
  readonly path?: boolean;
  /** Larger programs get no `unix:sha256`. Default 256 MiB. */
  readonly longestHashedBytes?: number;
  /** Told of a caller whose program was too large to be hashed. Must not throw. */
  readonly onUnhashed?: (caller: Caller, sizeBytes: number) => void;
  /** Where `passwd` and `group` are. Default `/etc`. */
  readonly accountsDirectory?: string;
}

/** Selectors from the user, the groups and, if wanted, the program of the caller. */
export class UnixAttestor implements Attestor {
  readonly name = 'unix';
  readonly #accounts: AccountNames;
  readonly #hashes: FileHashes;
  readonly #path: boolean;
  readonly #longestHashedBytes: number;
  readonly #onUnhashed: (caller: Caller, sizeBytes: number) => void;

  constructor(options: UnixAttestorOptions) {
    this.#accounts = new AccountNames(options.accountsDirectory);
    this.#hashes = new FileHashes(options.clock);
    this.#path = options.path ?? false;
    this.#longestHashedBytes = options.longestHashedBytes ?? LONGEST_HASHED_BYTES;
    this.#onUnhashed = options.onUnhashed ?? (() => {});
  }

  /**
   * @throws SignetError `unavailable` when passwd or group cannot be read, `caller_gone`, `caller_changed` or `caller_unknown`
   * when the program cannot be told; the signal's reason.
   */
  async attest(caller: Caller, signal: AbortSignal): Promise<readonly Selector[]> {
    const [users, groups] = await unlessAborted(Promise.all([this.#accounts.users(), this.#accounts.groups()]), signal);
    const selectors = accountSelectors(caller, users, groups);
    if (this.#path) selectors.push(...(await unlessAborted(this.#programSelectors(caller), signal)));
    return selectors;
  }

  /** Programs are looked at in the thread pool. */
  attestNow(caller: Caller): readonly Selector[] | undefined {
    if (this.#path) return undefined;
    const names = this.#accounts.now();
    return names && accountSelectors(caller, names.users, names.groups);
  }

  /** Through /proc/<pid>/exe, never through the path it names: that one may be another file in another mount namespace. */
  async #programSelectors(caller: Caller): Promise<Selector[]> {
    const exe = `/proc/${caller.pid}/exe`;
    try {
      const link = await readlink(exe, 'buffer');
      const file = await identifyFile(exe);
      const selectors = [...pathSelectors(link), ...(await this.#hashSelectors(caller, exe, file))];
      const sameLink = link.equals(await readlink(exe, 'buffer'));
      if (sameLink && (await identifyFile(exe)).key === file.key) return selectors;
    } catch (error) {
      throw isSignetError(error) ? error : procFailure(caller.pid, 'exe', error);
    }
    throw new SignetError('caller_changed', `process ${caller.pid} has executed another program, or its own was modified`);
  }

  async #hashSelectors(caller: Caller, exe: string, file: FileIdentity): Promise<Selector[]> {
    if (file.size <= this.#longestHashedBytes) return [`unix:sha256:${await this.#hashes.hash(exe, file)}`];
    this.#onUnhashed(caller, file.size);
    return [];
  }
}

function accountSelectors(caller: Caller, users: Names, groups: Names): Selector[] {
  const { uid, gid } = caller;
  const named = (key: string, name: string | undefined): Selector[] => (name === undefined ? [] : [`unix:${key}:${name}`]);
  const both = (id: number): Selector[] => [`unix:supplementary_gid:${id}`, ...named('supplementary_group', groups.get(id))];
  return [
    `unix:uid:${uid}`,
    ...named('user', users.get(uid)),
    `unix:gid:${gid}`,
    ...named('group', groups.get(gid)),
    ...caller.groups.flatMap(both),
  ];
}

/** None for a path that cannot be compared as text, or that no longer names the file. */
function pathSelectors(link: Buffer): Selector[] {
  const path = link.toString();
  return isUtf8(link) && path.startsWith('/') && !path.endsWith(' (deleted)') ? [`unix:path:${path}`] : [];
}

/** Waits no longer than the signal allows; what was begun goes on and is of use to the next caller. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}
