import { KubernetesError } from './api-error.ts';

const NEWLINE = 0x0a;

/**
 * The whole body as text.
 *
 * @throws KubernetesError `limit_exceeded` beyond `maxBytes`.
 */
export async function readText(body: AsyncIterable<Buffer>, maxBytes: number, what: string): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of body) {
    length += chunk.length;
    if (length > maxBytes) throw tooLarge(what, 'the answer', maxBytes);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, length).toString('utf8');
}

/** At most the first `maxBytes` of the body: enough for an error's text. */
export async function readBeginning(body: AsyncIterable<Buffer>, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of body) {
    chunks.push(chunk);
    length += chunk.length;
    if (length >= maxBytes) break;
  }
  return Buffer.concat(chunks).subarray(0, maxBytes).toString('utf8');
}

/**
 * The lines of a body as they arrive, without blank ones.
 *
 * @throws KubernetesError `limit_exceeded` for a line beyond `maxBytes`; `unavailable` when the body ends inside a line.
 */
export async function* readLines(body: AsyncIterable<Buffer>, maxBytes: number, what: string): AsyncGenerator<string, void> {
  let begun: Buffer[] = [];
  let length = 0;
  for await (const chunk of body) {
    let from = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, from)) {
      if (length + end - from > maxBytes) throw tooLarge(what, 'an event', maxBytes);
      begun.push(chunk.subarray(from, end));
      const line = Buffer.concat(begun).toString('utf8').trim();
      [begun, length, from] = [[], 0, end + 1];
      if (line !== '') yield line;
    }
    length += chunk.length - from;
    if (length > maxBytes) throw tooLarge(what, 'an event', maxBytes);
    if (from < chunk.length) begun.push(chunk.subarray(from));
  }
  if (length > 0) throw new KubernetesError('unavailable', `${what}: the stream ended inside an event`);
}

/** What is larger than is read. */
export function tooLarge(what: string, part: string, maxBytes: number): KubernetesError {
  return new KubernetesError('limit_exceeded', `${what}: ${part} is larger than ${maxBytes} bytes`);
}
