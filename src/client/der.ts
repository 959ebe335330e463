import { SignetError } from '../errors.ts';

/** One element of DER (X.690 §8.1): its tag byte, its content, and all of its bytes. */
export interface DerElement {
  readonly tag: number;
  readonly content: Buffer;
  readonly bytes: Buffer;
}

const MULTI_BYTE_TAG = 0x1f;
/** More length bytes than these would say more than any message can hold. */
const MOST_LENGTH_BYTES = 4;

/**
 * Splits concatenated DER into its elements; nothing may be left over.
 *
 * @throws SignetError `invalid_svid`
 */
export function readDer(bytes: Buffer): DerElement[] {
  const elements: DerElement[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    const element = readElement(bytes, offset);
    elements.push(element);
    offset += element.bytes.length;
  }
  return elements;
}

function readElement(bytes: Buffer, offset: number): DerElement {
  const tag = bytes[offset];
  const first = bytes[offset + 1];
  if (tag === undefined || first === undefined) throw malformed('it ends inside an element');
  if ((tag & MULTI_BYTE_TAG) === MULTI_BYTE_TAG) throw malformed('it has a tag of several bytes');
  const lengthBytes = first < 0x80 ? 0 : first & 0x7f;
  if (first === 0x80 || lengthBytes > MOST_LENGTH_BYTES) throw malformed('it has a length that DER does not allow');
  const start = offset + 2 + lengthBytes;
  if (start > bytes.length) throw malformed('it ends inside an element');
  const length = lengthBytes === 0 ? first : bytes.readUIntBE(offset + 2, lengthBytes);
  const end = start + length;
  if (end > bytes.length) throw malformed('it ends inside an element');
  return { tag, content: bytes.subarray(start, end), bytes: bytes.subarray(offset, end) };
}

function malformed(what: string): SignetError {
  return new SignetError('invalid_svid', `the DER is malformed: ${what}`);
}
