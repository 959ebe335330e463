import { X509Certificate } from 'node:crypto';
import { isObject, type JsonObject } from '../../kubernetes/json.ts';
import { readPem } from '../../spiffe/pem.ts';
import type { WireAnswer } from '../wire/exchange.ts';
import { isAwayFault, UpstreamError, type UpstreamFault } from '../wire/upstream-error.ts';

/** Longest part of the server's own words that goes into a message. */
const LONGEST_WORDS = 600;

/** More certificates than any answer has; it bounds what is parsed. */
const MOST_CERTIFICATES = 64;

const FAULTS: ReadonlyMap<number, UpstreamFault> = new Map([
  [401, 'login'],
  [403, 'forbidden'],
  [404, 'not_found'],
  [405, 'not_found'],
  [429, 'rate_limited'],
  // What an older one, or one above a service elsewhere, does not have.
  [501, 'not_found'],
  [502, 'unavailable'],
  [503, 'unavailable'],
  [504, 'unavailable'],
]);

/** Which request was answered: what concerns all of them is told of the server alone, and so once. */
export interface Asked {
  /** `POST https://ca:9000/1.0/sign` */
  readonly what: string;
  /** `https://ca:9000` */
  readonly server: string;
}

/**
 * The object in an answer of 200 or 201.
 *
 * @throws UpstreamError
 */
export function objectOf({ what, server }: Asked, { status, body, location }: WireAnswer): JsonObject {
  const parsed = parsedOf(body);
  if (status === 200 || status === 201) {
    if (isObject(parsed)) return parsed;
    throw new UpstreamError('malformed', `${what}: the answer is not a JSON object`, { status });
  }
  if (status >= 300 && status < 400) {
    const where = location !== undefined && URL.canParse(location) ? new URL(location).origin : 'somewhere else';
    throw new UpstreamError('unavailable', `${server}: the answer leads to ${where}, which is not followed (${status}). What to do: give the address at which step-ca answers itself`, { status });
  }
  const fault = FAULTS.get(status) ?? (status >= 500 ? 'server_error' : 'bad_request');
  const words = wordsOf(parsed, body);
  const text = [`${isAwayFault(fault) ? server : what}: ${status}`, words, remedyOf(fault, words)].filter((part) => part !== '').join(': ');
  throw new UpstreamError(fault, text, { status, words: words === '' ? [] : [words] });
}

/**
 * DER of the certificates in the list of PEM texts at `key`.
 *
 * @throws UpstreamError `malformed`
 */
export function certificatesAt(answer: JsonObject, key: string): Buffer[] {
  const list: unknown = answer[key];
  const texts = (Array.isArray(list) ? list : []).filter((one) => typeof one === 'string');
  if (texts.length > MOST_CERTIFICATES) throw new UpstreamError('malformed', `the answer of step-ca holds ${texts.length} certificates, more than ${MOST_CERTIFICATES}`);
  try {
    const ders = texts.flatMap((text) => readPem(text).map(({ der }) => der));
    return ders.map((der) => new X509Certificate(der).raw);
  } catch (error) {
    throw new UpstreamError('malformed', 'the answer of step-ca holds a certificate that cannot be read', { cause: error });
  }
}

function remedyOf(fault: UpstreamFault, words: string): string {
  if (/authorized maximum certificate duration/.test(words)) return 'What to do: give the provisioner the claim maxTLSCertDuration of authority.ttl or more, or make authority.ttl shorter';
  if (/authorized minimum certificate duration/.test(words)) return 'What to do: give the provisioner a smaller claim minTLSCertDuration, or make authority.ttl longer';
  if (fault === 'server_error') return 'What to do: see the log of step-ca; a template of the provisioner that cannot be evaluated is answered so';
  if (fault === 'forbidden') return 'What to do: compare provisioner, template and policy with those in deploy/step-ca';
  return '';
}

function wordsOf(parsed: unknown, body: string): string {
  const said = isObject(parsed) && typeof parsed['message'] === 'string' ? parsed['message'] : parsed === undefined ? body : '';
  const line = said.replaceAll(/[\s\p{Cc}]+/gu, ' ').trim();
  return line.length > LONGEST_WORDS ? `${line.slice(0, LONGEST_WORDS)}…` : line;
}

function parsedOf(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}
