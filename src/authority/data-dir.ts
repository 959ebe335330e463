import { closeSync, constants, fstatSync, mkdirSync, openSync, type Stats } from 'node:fs';
import { dirname } from 'node:path';
import { sleep, type Clock } from '../clock.ts';
import { messageOf, SignetError } from '../errors.ts';
import type { Kernel } from '../kernel.ts';

const MODE = 0o700;
const RETRY_MS = 20;

/**
 * The directory of the agent's keys, held by one agent at a time. The lock is on the open directory, so that it needs no file,
 * works on a read-only file system, and ends with the process, however that ends.
 */
export class DataDir {
  readonly path: string;
  readonly #kernel: Kernel;
  readonly #descriptor: number;

  private constructor(path: string, kernel: Kernel, descriptor: number) {
    this.path = path;
    this.#kernel = kernel;
    this.#descriptor = descriptor;
  }

  /**
   * Opens the directory, made with mode 0700 if it is missing.
   *
   * @throws SignetError `state_refused` when it cannot be opened, others may write to it, or its owner is neither this user nor
   * root.
   */
  static open(path: string, kernel: Kernel): DataDir {
    let descriptor: number;
    try {
      // Those above it are for all: others may serve workloads from there.
      mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
      mkdirSync(path, { recursive: true, mode: MODE });
      descriptor = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
    } catch (error) {
      throw new SignetError('state_refused', `dataDir ${path} cannot be used: ${messageOf(error)}. What to do: create it for uid ${process.geteuid?.()} with mode 0700.`, { cause: error });
    }
    const problem = problemOf(path, fstatSync(descriptor));
    if (problem === undefined) return new DataDir(path, kernel, descriptor);
    closeSync(descriptor);
    throw new SignetError('state_refused', problem);
  }

  /**
   * Waits until no other agent holds the directory: one that is being followed lets go as soon as it has noticed.
   *
   * @throws SignetError `in_use` after `timeoutMs`, or the signal's reason.
   */
  async lock(clock: Clock, timeoutMs: number, signal: AbortSignal): Promise<void> {
    const end = clock.monotonic() + timeoutMs;
    while (!this.#kernel.tryLock(this.#descriptor)) {
      if (clock.monotonic() >= end) {
        throw new SignetError('in_use', `dataDir ${this.path} is held by another agent that does not let go. What to do: stop it, or give this agent a dataDir of its own.`);
      }
      await sleep(clock, RETRY_MS, signal);
    }
  }

  /** Lets go. Closing the descriptor ends the lock. */
  close(): void {
    closeSync(this.#descriptor);
  }
}

/** Whoever may rename in the directory can put an old state there, or take the state away. */
function problemOf(path: string, { mode, uid }: Stats): string | undefined {
  if ((mode & 0o022) !== 0 && (mode & 0o1000) === 0) {
    return `dataDir ${path} may be written by others (mode ${(mode & 0o7777).toString(8)}), who could put their keys there. What to do: chmod 700 ${path}.`;
  }
  const own = process.geteuid?.();
  if (uid !== own && uid !== 0) return `dataDir ${path} belongs to uid ${uid}, who could replace what is in it. What to do: chown ${own} ${path}.`;
  return undefined;
}
