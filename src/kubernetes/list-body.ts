import { tooLarge } from './body.ts';

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

const QUOTE = 0x22;
const COMMA = 0x2c;
const OPEN_LIST = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_LIST = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
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
    else if (byte === OPEN_OBJECT) this.#depth += 1;
    else if (byte === CLOSE_OBJECT) this.#depth -= 1;
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
