import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { messageOf, SignetError, systemCode } from '../errors.ts';
import { systemRandom } from '../random.ts';

/** No state that Signet writes comes near this. */
const LARGEST = 4 * 1024 * 1024;
/** No write takes as long: what lies aside for this time was left by a process that was killed. */
const ABANDONED_MS = 600_000;
/** What a name aside has after the file's own. */
const ASIDE = /^\.[0-9a-f]{16}\.new$/;

/**
 * The text of a file that only its owner may read, or undefined when there is none. It is opened once and judged by what was
 * opened, so that nobody can swap it in between.
 *
 * @throws SignetError `state_refused` when it is no regular file, is somebody else's, or others may read it.
 */
export function readPrivateFile(path: string): string | undefined {
  let descriptor: number;
  try {
    // Without O_NONBLOCK a FIFO would hold the whole agent until somebody writes to it.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw new SignetError('state_refused', `${path} cannot be read: ${messageOf(error)}. What to do: put a regular file there, not a link, that uid ${process.geteuid?.()} may read.`, { cause: error });
  }
  try {
    const stat = fstatSync(descriptor);
    if (!stat.isFile()) throw refused(path, 'it is not a regular file', 'move it away');
    if (stat.uid !== process.geteuid?.()) throw refused(path, `it belongs to uid ${stat.uid}`, `run the agent as that user, or \`chown\` the file to uid ${process.geteuid?.()}`);
    if ((stat.mode & 0o077) !== 0) {
      throw refused(path, `others may read or write it (mode ${(stat.mode & 0o777).toString(8)}), so its keys may be known`, 'move it away to start with new keys, or `chmod 600` it if nobody can have read it');
    }
    if (stat.size > LARGEST) throw refused(path, `it has ${stat.size} bytes`, 'move it away');
    return readFileSync(descriptor, 'utf8');
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Replaces a file so that at every moment, a loss of power included, it is either the old or the new one: written aside with
 * mode 0600, flushed, renamed, and the directory flushed. Two processes may do that at the same time: each has a name aside of its
 * own, and one of the two files is what stays.
 *
 * @throws SignetError `state_unwritable`; the old file is then untouched and nothing is left aside.
 */
export async function writePrivateFile(path: string, text: string): Promise<void> {
  const aside = `${path}.${systemRandom.bytes(8).toString('hex')}.new`;
  try {
    // An aside without a random part is nobody's by now.
    await rm(`${path}.new`, { force: true });
    const file = await open(aside, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await removeAbandoned(path, aside);
    await rename(aside, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    // What cannot be removed was not made: the directory cannot be written at all then.
    await rm(aside, { force: true }).catch(() => undefined);
    throw new SignetError('state_unwritable', `${path} cannot be written: ${messageOf(error)}`, { cause: error });
  }
}

/** The path of a state file in the agent's data directory. */
export function statePath(dataDir: string, name: string): string {
  return join(dataDir, name);
}

/** Removes what killed processes have left aside of `path`; it may hold keys. The age is measured by the file system's own time. */
async function removeAbandoned(path: string, aside: string): Promise<void> {
  const name = basename(path);
  const isAside = (other: string): boolean => other.startsWith(name) && ASIDE.test(other.slice(name.length));
  const others = (await readdir(dirname(path))).filter((other) => isAside(other) && other !== basename(aside));
  if (others.length === 0) return;
  const { mtimeMs: now } = await stat(aside);
  for (const other of others.map((one) => join(dirname(path), one))) {
    // Its writer may have renamed it meanwhile.
    const made = await stat(other).catch(() => undefined);
    if (made !== undefined && now - made.mtimeMs >= ABANDONED_MS) await rm(other, { force: true });
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

function refused(path: string, why: string, remedy: string): SignetError {
  return new SignetError('state_refused', `${path} is refused: ${why}. What to do: ${remedy}.`);
}
