import { chmodSync, closeSync, constants, lstatSync, mkdirSync, openSync, renameSync, rmSync, statSync, type BigIntStats } from 'node:fs';
import type { Server } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { sleep, type Clock } from '../clock.ts';
import { messageOf, SignetError, systemCode } from '../errors.ts';
import type { Kernel } from '../kernel.ts';
import type { Random } from '../random.ts';

/** Node's default of 511 refuses callers that connect while the event loop is busy. The kernel cuts it to net.core.somaxconn. */
const BACKLOG = 4_096;

/** Workloads of every user connect: a socket is used with the right to write to it. */
const SOCKET_MODE = 0o777;
const DIRECTORY_MODE = 0o755;

const LOCK_RETRY_MS = 5;
const LOCK_RETRIES = 400;

/**
 * The socket's place in the file system. It is never missing while agents follow one another: a new one binds beside it and
 * renames over it, and whoever leaves removes it only if it is still the own. Both happen under a lock on the directory.
 */
export class SocketFile {
  readonly path: string;
  readonly #kernel: Kernel;
  readonly #clock: Clock;
  readonly #mode: number;
  #identity: string | undefined;

  /** @param mode of the socket; default 0777, for everybody. */
  constructor(path: string, kernel: Kernel, clock: Clock, mode = SOCKET_MODE) {
    this.#mode = mode;
    this.path = path;
    this.#kernel = kernel;
    this.#clock = clock;
  }

  /**
   * Makes `server` listen at the path, in the place of whoever listened there before.
   *
   * @throws SignetError `in_use` when something other than a socket is there, `unavailable` when it cannot be bound.
   */
  async bind(server: Server, random: Random): Promise<void> {
    const directory = dirname(this.path);
    try {
      mkdirSync(directory, { recursive: true, mode: DIRECTORY_MODE });
      assertSafe(directory);
      assertReplaceable(this.path);
      const aside = join(directory, `.${basename(this.path)}.${random.bytes(3).toString('hex')}`);
      await listen(server, aside);
      try {
        chmodSync(aside, this.#mode);
        await this.#locked(() => {
          assertReplaceable(this.path);
          this.#identity = identityOf(lstatSync(aside, { bigint: true }));
          renameSync(aside, this.path);
        });
      } catch (error) {
        rmSync(aside, { force: true });
        throw error;
      }
    } catch (error) {
      if (error instanceof SignetError) throw error;
      throw new SignetError('unavailable', `the socket ${this.path} cannot be opened: ${messageOf(error)}`, { cause: error });
    }
  }

  /** Whether the path still leads to the own socket, to another one, or nowhere. */
  holder(): 'own' | 'other' | 'none' {
    try {
      return identityOf(lstatSync(this.path, { bigint: true })) === this.#identity ? 'own' : 'other';
    } catch {
      return 'none';
    }
  }

  /** Removes the path if it still leads to the own socket. */
  async remove(): Promise<void> {
    if (this.holder() !== 'own') return;
    await this.#locked(() => {
      if (this.holder() === 'own') rmSync(this.path, { force: true });
    });
  }

  /** The lock is held for the length of two system calls, so whoever does not get it tries again soon. */
  async #locked(act: () => void): Promise<void> {
    const directory = openSync(dirname(this.path), constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      for (let attempt = 0; !this.#kernel.tryLock(directory); attempt += 1) {
        if (attempt === LOCK_RETRIES) throw new SignetError('in_use', `the directory of ${this.path} is locked by another process`);
        await sleep(this.#clock, LOCK_RETRY_MS);
      }
      act();
    } finally {
      closeSync(directory);
    }
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ path, backlog: BACKLOG }, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/**
 * A socket may be replaced, whether somebody listens or not; anything else was put there by mistake.
 *
 * @throws SignetError `in_use`
 */
export function assertReplaceable(path: string): void {
  let stat;
  try {
    stat = lstatSync(path);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return;
    throw error;
  }
  if (!stat.isSocket()) throw new SignetError('in_use', `${path} is there already and is not a socket. What to do: move it away, or set socketPath to another path.`);
}

/** Whoever may rename in the directory could put a socket of their own in the place of this one (WE-05). */
function assertSafe(directory: string): void {
  const { mode } = statSync(directory);
  if ((mode & 0o022) === 0 || (mode & 0o1000) !== 0) return;
  throw new SignetError('unavailable', `the directory ${directory} of the socket may be written by others (mode ${(mode & 0o7777).toString(8)}). What to do: chmod 755 ${directory}.`);
}

function identityOf(stat: BigIntStats): string {
  return `${stat.dev}:${stat.ino}`;
}
