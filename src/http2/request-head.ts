import { StreamFault } from './fault.ts';
import { Code } from './frames.ts';
import type { HeaderField } from './hpack.ts';

/** The control data and fields of a request, checked for form (RFC 9113 §8.2, §8.3). Octets are latin1 characters. */
export interface RequestHead {
  readonly method: string;
  readonly path: string;
  /** All fields but the pseudo-header fields, in the order in which they came. */
  readonly fields: readonly HeaderField[];
  /** What the body must come to, where it was said. */
  readonly contentLength: number | undefined;
}

/** RFC 9110 §5.6.2, without capitals (RFC 9113 §8.2.1). */
const NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
// eslint-disable-next-line no-control-regex
const FORBIDDEN_IN_VALUE = /[\0\r\n]|^[ \t]|[ \t]$/;

/** They are about one connection, which HTTP/2 says by itself (RFC 9113 §8.2.2). */
const OF_THE_CONNECTION: ReadonlySet<string> = new Set(['connection', 'proxy-connection', 'keep-alive', 'transfer-encoding', 'upgrade']);

/** Names and values that have been found good: most requests of a client say the same again, as the same objects of its table. */
const good = new WeakSet<HeaderField>();

/**
 * The request that `fields` say. `:authority` and `host` may be anything: over a Unix socket clients say paths, and names of their own.
 *
 * @throws {StreamFault} PROTOCOL_ERROR, naming the rule.
 */
export function readRequestHead(fields: readonly HeaderField[]): RequestHead {
  let [method, path, scheme, authority]: (string | undefined)[] = [];
  let length: string | undefined;
  let at = 0;
  for (; at < fields.length; at++) {
    const field = fields[at]!;
    const { name, value } = field;
    if (name.charCodeAt(0) !== 58) break;
    if (!good.has(field)) checkValue(field);
    if (name === ':method' && method === undefined) method = value;
    else if (name === ':path' && path === undefined) path = value;
    else if (name === ':scheme' && scheme === undefined) scheme = value;
    else if (name === ':authority' && authority === undefined) authority = value;
    else throw malformed(`${name} is repeated or unknown (RFC 9113 §8.3)`);
  }
  const others = fields.slice(at);
  for (const field of others) {
    if (!good.has(field) || field.name.charCodeAt(0) === 58) check(field);
    if (field.name === 'content-length') length = length === undefined || length === field.value ? field.value : '';
  }
  if (method === undefined || scheme === undefined || path === undefined || path === '') {
    throw malformed(':method, :scheme or :path is missing (RFC 9113 §8.3.1)');
  }
  return { method, path, fields: others, contentLength: length === undefined ? undefined : readLength(length) };
}

/**
 * Checks the form of trailers.
 *
 * @throws {StreamFault} PROTOCOL_ERROR, naming the rule.
 */
export function checkTrailers(fields: readonly HeaderField[]): void {
  for (const field of fields) check(field);
}

function check(field: HeaderField): void {
  const { name, value } = field;
  if (name.charCodeAt(0) === 58) throw malformed('a pseudo-header field after the others, or in trailers (RFC 9113 §8.3)');
  if (!NAME.test(name)) throw malformed('a field name with capitals or other characters that are not allowed (RFC 9113 §8.2.1)');
  if (OF_THE_CONNECTION.has(name)) throw malformed(`${name} is for HTTP/1.1 (RFC 9113 §8.2.2)`);
  if (name === 'te' && value !== 'trailers') throw malformed('te is not "trailers" (RFC 9113 §8.2.2)');
  checkValue(field);
}

function checkValue(field: HeaderField): void {
  if (FORBIDDEN_IN_VALUE.test(field.value)) throw malformed(`characters that are not allowed in the value of ${field.name} (RFC 9113 §8.2.1)`);
  good.add(field);
}

function readLength(text: string): number {
  if (!/^[0-9]{1,15}$/.test(text)) throw malformed('content-length is not one number (RFC 9110 §8.6)');
  return Number(text);
}

function malformed(what: string): StreamFault {
  return new StreamFault(Code.protocolError, what);
}
