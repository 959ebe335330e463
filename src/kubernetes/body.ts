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

/**
 * A JSON object as text, but without the elements of its member `items`: each of those goes to `onItem` as soon as it is complete,
 * so that a list of any length needs the memory of one element.
 *
 * @throws KubernetesError `limit_exceeded` when one element, or all else, is beyond `maxBytes`.
 */
export async function readList(
  body: AsyncIterable<Buffer>,
  maxBytes: number,
  what: string,
  onItem: (text: string) => void,
): Promise<string> {
  const splitter = new ListSplitter(maxBytes, what, onItem);
  for await (const chunk of body) splitter.push(chunk);
  return splitter.rest;
}

const [QUOTE, BACKSLASH, COMMA, OPEN_LIST, CLOSE_LIST, OPEN, CLOSE] = [...Buffer.from('"\\,[]{}')] as [number, number, number, number, number, number, number];
/** What is before the list: in an object of the outermost level a text before a colon is a key. */
const ITEMS_KEY = /"items"\s*:\s*$/;

/** Finds the ends of elements by counting brackets outside of texts. Whether all of it is JSON is for the parser to say. */
class ListSplitter {
  readonly #what: string;
  readonly #onItem: (text: string) => void;
  readonly #around: Gathered;
  readonly #element: Gathered;
  #depth = 0;
  #isInItems = false;
  #isInText = false;
  #isEscaped = false;

  constructor(maxBytes: number, what: string, onItem: (text: string) => void) {
    this.#what = what;
    this.#onItem = onItem;
    this.#around = new Gathered(maxBytes, () => tooLarge(this.#what, 'the answer around its items', maxBytes));
    this.#element = new Gathered(maxBytes, () => tooLarge(this.#what, 'one item', maxBytes));
  }

  /** All but the elements. */
  get rest(): string {
    return this.#around.text;
  }

  push(chunk: Buffer): void {
    let from = 0;
    for (let at = 0; at < chunk.length; at += 1) {
      const byte = chunk[at] as number;
      if (this.#isInText) this.#readText(byte);
      else from = this.#readStructure(byte, chunk, from, at);
    }
    this.#gather(chunk.subarray(from));
  }

  #readText(byte: number): void {
    if (this.#isEscaped) this.#isEscaped = false;
    else if (byte === BACKSLASH) this.#isEscaped = true;
    else if (byte === QUOTE) this.#isInText = false;
  }

  /** From where on the chunk is not gathered yet. */
  #readStructure(byte: number, chunk: Buffer, from: number, at: number): number {
    if (byte === QUOTE) this.#isInText = true;
    else if (byte === OPEN) this.#depth += 1;
    else if (byte === CLOSE) this.#depth -= 1;
    else if (byte === COMMA) return this.#isBetweenElements ? this.#endElement(chunk.subarray(from, at), at + 1) : from;
    else if (byte === OPEN_LIST) return this.#openList(chunk, from, at);
    else if (byte === CLOSE_LIST) return this.#closeList(chunk, from, at);
    return from;
  }

  get #isBetweenElements(): boolean {
    return this.#isInItems && this.#depth === 2;
  }

  #openList(chunk: Buffer, from: number, at: number): number {
    this.#depth += 1;
    if (this.#isInItems || this.#depth !== 2) return from;
    this.#around.add(chunk.subarray(from, at));
    this.#isInItems = ITEMS_KEY.test(this.#around.text);
    this.#around.add(chunk.subarray(at, at + 1));
    return at + 1;
  }

  #closeList(chunk: Buffer, from: number, at: number): number {
    const isEnd = this.#isBetweenElements;
    const next = isEnd ? this.#endElement(chunk.subarray(from, at), at) : from;
    if (isEnd) this.#isInItems = false;
    this.#depth -= 1;
    return next;
  }

  #endElement(last: Buffer, next: number): number {
    this.#element.add(last);
    const text = this.#element.take().trim();
    if (text !== '') this.#onItem(text);
    return next;
  }

  #gather(part: Buffer): void {
    (this.#isInItems ? this.#element : this.#around).add(part);
  }
}

/** Bytes that belong together, up to a bound. */
class Gathered {
  readonly #maxBytes: number;
  readonly #refuse: () => Error;
  #parts: Buffer[] = [];
  #length = 0;

  constructor(maxBytes: number, refuse: () => Error) {
    this.#maxBytes = maxBytes;
    this.#refuse = refuse;
  }

  get text(): string {
    return Buffer.concat(this.#parts, this.#length).toString('utf8');
  }

  add(part: Buffer): void {
    this.#length += part.length;
    if (this.#length > this.#maxBytes) throw this.#refuse();
    if (part.length > 0) this.#parts.push(part);
  }

  take(): string {
    const { text } = this;
    [this.#parts, this.#length] = [[], 0];
    return text;
  }
}

function tooLarge(what: string, part: string, maxBytes: number): KubernetesError {
  return new KubernetesError('limit_exceeded', `${what}: ${part} is larger than ${maxBytes} bytes`);
}
