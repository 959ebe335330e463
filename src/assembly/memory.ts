import { join } from 'node:path';
import { readPrivateFile, writePrivateFile } from '../authority/state-file.ts';
import { messageOf, SignetError } from '../errors.ts';
import type { Log } from '../log.ts';

/** A text that survives a restart. */
export interface Memory {
  /** The text that was written last; undefined when there is none, or it cannot be believed. */
  read(): string | undefined;
  write(text: string): Promise<void>;
}

/** What `readPrivateFile` takes. */
const LARGEST = 4 * 1024 * 1024;

/** A file that only the agent's user can read and write. It is no more than a memory: without it the agent learns everything anew. */
export function memoryIn(directory: string, name: string, log: Log): Memory {
  const path = join(directory, name);
  return {
    read: () => {
      try {
        return readPrivateFile(path);
      } catch (error) {
        log.warn({ event: 'memory.refused', path, err: messageOf(error) }, 'what was known before a restart cannot be read');
        return undefined;
      }
    },
    write: async (text) => {
      if (Buffer.byteLength(text) > LARGEST) throw new SignetError('limit_exceeded', `${path} would have more than ${LARGEST} bytes`);
      await writePrivateFile(path, text);
    },
  };
}
