import { isSignetError } from '../../errors.ts';
import { parseTrustDomain, type TrustDomain } from '../../spiffe/id.ts';
import { show } from './problems.ts';
import type { ClassOptions, ParsedRule, Rule, RuleSource } from './rule.ts';
import { isObject, SpecReader } from './spec.ts';

const SECOND = 1_000;
const HOUR = 3_600_000;

/** The same bounds as in the configuration. */
export const X509_TTL = { min: 10 * SECOND, max: 8_760 * HOUR, shown: '10s to 8760h' };
export const JWT_TTL = { min: 10 * SECOND, max: 24 * HOUR, shown: '10s to 24h' };

/** WA-75 */
const LONGEST_HINT = 1_024;

/** A certificate with more names is larger than some TLS stacks read in one record. */
export const MOST_DNS_NAMES = 64;
export const MOST_SELECTORS = 64;
const MOST_TRUST_DOMAINS = 64;

/** RFC 1035 §2.3.4: 255 octets on the wire are 253 characters as text. */
const LONGEST_DNS_NAME = 253;
const DNS_LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** What Go's durations are made of, in milliseconds. */
const UNITS: Readonly<Record<string, number>> = {
  h: HOUR,
  m: 60 * SECOND,
  s: SECOND,
  ms: 1,
  us: 0.001,
  µs: 0.001,
  ns: 0.000_001,
};
const DURATION = /^(?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:h|ms|m|s|us|µs|ns))+$/;
const AMOUNT = /([0-9.]+)(h|ms|m|s|us|µs|ns)/g;

/** What is read of `metadata`. */
interface ObjectName {
  readonly name: string;
  readonly uid: string;
  readonly generation: number;
}

/** The name of an object; missing parts are '' and 0. */
function objectName(object: Readonly<Record<string, unknown>>): ObjectName {
  const metadata = isObject(object['metadata']) ? object['metadata'] : {};
  const { name, uid, generation } = metadata;
  return {
    name: typeof name === 'string' ? name : '',
    uid: typeof uid === 'string' ? uid : '',
    generation: typeof generation === 'number' ? generation : 0,
  };
}

/** An object that a rule is read from. */
export interface RuleOrigin extends ObjectName {
  readonly source: RuleSource;
}

/** Reads an object as the API server returns it, its `spec` with `readRule`. Never throws for what is in it. */
export function parseObject(
  object: Readonly<Record<string, unknown>>,
  source: RuleSource,
  options: ClassOptions,
  readRule: (reader: SpecReader, origin: RuleOrigin) => Rule | undefined,
): ParsedRule {
  const origin = { ...objectName(object), source };
  const spec = object['spec'];
  const foreign = foreignClass(spec, options);
  if (foreign !== undefined) return { kind: 'foreign', name: origin.name, className: foreign };
  const reader = new SpecReader('spec', isObject(spec) ? spec : {});
  const rule = readRule(reader, origin);
  if (rule !== undefined && reader.problems.length === 0) return { kind: 'rule', rule };
  return { kind: 'refused', refused: { ...origin, problems: reader.problems } };
}

/** The class of an object that is not this agent's, or undefined. */
export function foreignClass(spec: unknown, { className, watchClassless }: ClassOptions): string | undefined {
  const given = isObject(spec) ? spec['className'] : undefined;
  // A class of the wrong type is refused with the rest of the rule.
  if (given !== undefined && given !== null && typeof given !== 'string') return undefined;
  const named = given ?? '';
  const ours = named === '' ? watchClassless || className === '' : named === className;
  return ours ? undefined : named;
}

/**
 * A metav1.Duration in milliseconds. Undefined where it is left out or zero, which is how Go programs write one that they do not
 * set.
 */
export function readTtl(reader: SpecReader, key: string, range: typeof X509_TTL): number | undefined {
  const value = reader.value(key);
  if (value === undefined) return undefined;
  const ms = typeof value === 'string' ? parseGoDuration(value) : undefined;
  if (ms === 0) return undefined;
  if (ms !== undefined && ms >= range.min && ms <= range.max) return Math.floor(ms);
  return reader.refuse(key, show(value), `a duration from ${range.shown}, such as 90s, 30m or 1h30m`);
}

/** `1h30m`, `1.5h`, `0`, `0s`; undefined for what is no duration or negative. */
function parseGoDuration(text: string): number | undefined {
  if (text === '0') return 0;
  if (!DURATION.test(text)) return undefined;
  return [...text.matchAll(AMOUNT)].reduce((sum, [, amount, unit = '']) => sum + Number(amount) * (UNITS[unit] ?? 0), 0);
}

export function readHint(reader: SpecReader): string {
  const hint = reader.text('hint');
  const bytes = Buffer.byteLength(hint);
  const allowed = `a text of at most ${LONGEST_HINT} bytes`;
  if (bytes > LONGEST_HINT) reader.refuse('hint', `${bytes} bytes`, allowed);
  // A lone surrogate has no UTF-8 form, which the wire needs.
  else if (/\p{Cc}/u.test(hint) || !hint.isWellFormed()) {
    reader.refuse('hint', show(hint), `${allowed} without control characters and lone surrogates`);
  }
  return hint;
}

export function readFederatesWith(reader: SpecReader): TrustDomain[] {
  return reader.list('federatesWith', MOST_TRUST_DOMAINS, (text, path) => {
    try {
      return parseTrustDomain(text);
    } catch (error) {
      if (!isSignetError(error)) throw error;
      reader.refuse(path, show(text), 'the name of a trust domain, such as example.org');
      return undefined;
    }
  });
}

export const FEDERATION_NOTE = 'federatesWith: bundles of other trust domains are not handed out yet';

/** What is wrong with a DNS name for a certificate (`*.` in front allowed, RFC 9525 §6.3), or undefined. */
export function brokenDnsName(text: string): string | undefined {
  if (text.length > LONGEST_DNS_NAME) return `a DNS name of at most ${LONGEST_DNS_NAME} characters`;
  if (/[A-Z]/.test(text)) return 'a DNS name in lower case';
  const labels = (text.startsWith('*.') ? text.slice(2) : text).split('.');
  if (!labels.every((label) => DNS_LABEL.test(label)))
    return 'a DNS name, each label with 1 to 63 letters, digits and inner hyphens';
  // RFC 1123 §2.1: this is how a name is told from an IP address, which belongs into another kind of name.
  return labels.length > 1 && /^\d+$/.test(labels.at(-1) ?? '') ? 'a DNS name whose last label is not a number' : undefined;
}
