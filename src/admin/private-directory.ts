import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { SignetError, messageOf } from '../errors.ts';

const DIRECTORY_MODE = 0o700;

/**
 * Makes the directory of the operator's socket, or checks that nobody else may enter the one that is there.
 *
 * @throws SignetError `unavailable`
 */
export function preparePrivateDirectory(socketPath: string): void {
  const directory = dirname(socketPath);
  try {
    // Those above it are for all: others may serve workloads from there.
    mkdirSync(dirname(directory), { recursive: true, mode: 0o755 });
    mkdirSync(directory, { recursive: true, mode: DIRECTORY_MODE });
  } catch (error) {
    throw new SignetError('unavailable', `the directory ${directory} cannot be made: ${messageOf(error)}`, { cause: error });
  }
  const { mode, uid } = statSync(directory);
  const own = process.geteuid?.();
  const refuse = (what: string, advice: string): SignetError =>
    new SignetError(
      'unavailable',
      `the directory ${directory} of the operator's socket ${what}. What to do: ${advice}, or set admin.socketPath elsewhere.`,
    );
  if (uid !== own && uid !== 0) throw refuse(`belongs to user ${uid}, not to the agent's (${own})`, `chown ${own} ${directory}`);
  if ((mode & 0o077) !== 0) {
    throw refuse(`may be entered by others (mode ${(mode & 0o7777).toString(8)})`, `chmod 700 ${directory}`);
  }
}
