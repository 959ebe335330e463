import { isObject } from '../../kubernetes/json.ts';
import type { WireAnswer } from '../wire/exchange.ts';
import { isAwayFault, VaultError, type VaultFault } from './vault-error.ts';

/** Longest part of Vault's own words that goes into a message. */
const LONGEST_WORDS = 600;

/** Statuses with one meaning; 472, 473 and 501 are those of `sys/health`. */
const FAULTS: ReadonlyMap<number, VaultFault> = new Map([
  [403, 'forbidden'],
  [404, 'not_found'],
  // A standby that has not yet seen what the active node wrote.
  [412, 'unavailable'],
  [429, 'rate_limited'],
  [472, 'standby'],
  [473, 'standby'],
  [501, 'sealed'],
  [502, 'unavailable'],
  [503, 'unavailable'],
  [504, 'unavailable'],
]);

const POLICY =
  'the policies of this login do not allow it, or not with these values. What to do: compare them with those in deploy/vault';

/** Which request was answered: what concerns all of them is told of the server alone, and so once. */
export interface Asked {
  /** `GET https://vault:8200/v1/pki/issuers` */
  readonly what: string;
  /** `https://vault:8200` */
  readonly server: string;
}

/** The error of an answer that is not 2xx; undefined for one that is. */
export function refusalOf({ what, server }: Asked, answer: WireAnswer): VaultError | undefined {
  const { status, location } = answer;
  if (status >= 200 && status < 300) return undefined;
  const words = wordsOf(answer.body);
  const fields = { status, words, retryAfterMs: millisecondsOf(answer.retryAfter) };
  if (status >= 300 && status < 400) {
    const remedy = 'What to do: give an address at which Vault answers itself; a standby must be able to reach the active node';
    const text = `${server}: the answer leads to ${originOf(location)}, which is not followed (${status}). ${remedy}`;
    return new VaultError('standby', text, fields);
  }
  const fault = faultOf(status, words);
  const said = clean(words.length > 0 ? words.join('; ') : isJson(answer.body) ? '' : answer.body);
  const text = [`${isAwayFault(fault) ? server : what}: ${status}`, said, explain(fault, status, words)].filter((part) => part !== '').join(': ');
  return new VaultError(fault, text, fields);
}

function faultOf(status: number, words: readonly string[]): VaultFault {
  if (status === 503 && words.some((one) => /sealed/i.test(one))) return 'sealed';
  // Between an unseal and the election of an active node.
  if (status >= 500 && words.some((one) => one.includes('local node not active'))) return 'standby';
  if (words.some((one) => one.includes('unable to find PKI issuer'))) return 'not_found';
  return FAULTS.get(status) ?? (status >= 500 ? 'server_error' : 'bad_request');
}

function explain(fault: VaultFault, status: number, words: readonly string[]): string {
  if (status === 501) return 'Vault has not been initialised';
  if (fault === 'sealed') return 'What to do: unseal it';
  if (fault === 'standby' && status >= 500) return 'no node of the cluster is active at present';
  if (fault === 'standby') return 'this is a standby for disaster recovery or reads. What to do: give the address of the active cluster';
  if (fault === 'forbidden' && words.some((one) => one.includes('invalid token'))) return 'the token was revoked or has ended';
  if (fault === 'forbidden') return POLICY;
  if (fault === 'not_found') return 'nothing is there. What to do: check the mount, the name and the namespace';
  return '';
}

/** `errors` of the answer; `sys/health` tells it by a member of its own. */
function wordsOf(body: string): readonly string[] {
  const parsed = parseJson(body);
  if (!isObject(parsed)) return [];
  if (parsed['sealed'] === true) return ['Vault is sealed'];
  const errors = parsed['errors'];
  return Array.isArray(errors) ? errors.filter((one) => typeof one === 'string').map(unlisted) : [];
}

/** Several errors come as one text: `2 errors occurred:` and a list. */
function unlisted(words: string): string {
  const [, list] = /^\d+ errors? occurred:\s*\* ([^]*)$/.exec(words) ?? [];
  return clean(list === undefined ? words : list.trim().split(/\s*\n\s*\* /).join('; '));
}

function isJson(body: string): boolean {
  return parseJson(body) !== undefined;
}

/** undefined for what is not JSON. */
export function parseJson(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

function originOf(location: string | undefined): string {
  return location !== undefined && URL.canParse(location) ? new URL(location).origin : 'somewhere else';
}

function millisecondsOf(retryAfter: string | undefined): number | undefined {
  const seconds = Number(retryAfter ?? Number.NaN);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : undefined;
}

/** One printable line. */
function clean(words: string): string {
  const line = words.replaceAll(/[\s\p{Cc}]+/gu, ' ').trim();
  return line.length > LONGEST_WORDS ? `${line.slice(0, LONGEST_WORDS)}…` : line;
}
