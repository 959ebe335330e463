import { addAbortSignal } from 'node:stream';

/** All that a command sees of the process. */
export interface Io {
  readonly stdout: NodeJS.WritableStream;
  readonly stderr: NodeJS.WritableStream;
  readonly stdin: NodeJS.ReadableStream;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted when the user interrupts. */
  readonly signal: AbortSignal;
  /** True when standard output is a terminal. */
  readonly isTty: boolean;
  /** Milliseconds since the Unix epoch. */
  now(): number;
}

/** Writes `text` and resolves when it is out. Rejects with the stream's error (`EPIPE`, `ENOSPC`). */
export function write(stream: NodeJS.WritableStream, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(text, (error) => (error ? reject(error) : resolve()));
  });
}

/**
 * Reads all of `stream`, until `signal` is aborted, at most `most` bytes of text.
 *
 * @throws RangeError when there is more.
 */
export async function readText(stream: NodeJS.ReadableStream, most: number, signal: AbortSignal): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of addAbortSignal(signal, stream)) {
    const bytes = Buffer.from(part);
    size += bytes.length;
    if (size > most) throw new RangeError(`standard input has more than ${most} bytes`);
    parts.push(bytes);
  }
  return Buffer.concat(parts).toString('utf8');
}
