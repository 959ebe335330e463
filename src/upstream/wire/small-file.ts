import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { messageOf } from '../../errors.ts';

/** Far above any certificate bundle; a wrong path may lead to a file without end. */
const LARGEST_BYTES = 1_048_576;

/**
 * The text of a small file, without blanks around it.
 *
 * @throws Error `the <what> in <path> cannot be used: <why>`.
 */
export async function readSmallFile(what: string, path: string): Promise<string> {
  try {
    // Without O_NONBLOCK a FIFO would hold a thread of the pool until somebody writes to it.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stats = await file.stat();
      if (!stats.isFile()) throw new Error('it is not a regular file');
      if (stats.size > LARGEST_BYTES) throw new Error(`it has ${stats.size} bytes; at most ${LARGEST_BYTES} are allowed`);
      const text = (await file.readFile('utf8')).trim();
      if (text === '') throw new Error('it is empty');
      return text;
    } finally {
      await file.close();
    }
  } catch (error) {
    throw new Error(`the ${what} in ${path} cannot be used: ${messageOf(error)}`, { cause: error });
  }
}
