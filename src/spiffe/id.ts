import { SignetError } from '../errors.ts';

declare const spiffeId: unique symbol;
declare const trustDomain: unique symbol;

/** A SPIFFE ID that was checked: `spiffe://<trust domain>` or `spiffe://<trust domain>/<path>`, canonical, at most 2048 bytes. */
export type SpiffeId = string & { readonly [spiffeId]: true };

/** The name of a trust domain that was checked: `example.org`, at most 255 bytes. */
export type TrustDomain = string & { readonly [trustDomain]: true };

const SCHEME = 'spiffe://';
/** SPIFFE-ID §2.3 */
const LONGEST_ID = 2048;
/** SPIFFE-ID §2.3, RFC 3986 §3.2.2 */
const LONGEST_TRUST_DOMAIN = 255;

const TRUST_DOMAIN_NAME = /^[a-z0-9._-]+$/;
const PATH_SEGMENT = /^[a-zA-Z0-9._-]+$/;

/**
 * Reads a SPIFFE ID by the letter (SPIFFE-ID §2): nothing is decoded, trimmed or lower-cased, because every such repair makes
 * two texts one identity.
 *
 * @throws SignetError `invalid_spiffe_id` naming the rule that is broken.
 */
export function parseSpiffeId(text: string): SpiffeId {
  if (!text.startsWith(SCHEME)) throw invalid(text, 'it must begin with "spiffe://"');
  // Every allowed character is ASCII, so that characters are bytes once the rest has passed.
  if (text.length > LONGEST_ID) throw invalid(text, `it is longer than ${LONGEST_ID} bytes`);
  const slash = text.indexOf('/', SCHEME.length);
  checkTrustDomain(slash === -1 ? text.slice(SCHEME.length) : text.slice(SCHEME.length, slash), text);
  if (slash !== -1) checkPath(text.slice(slash), text);
  return text as SpiffeId;
}

/**
 * Reads the name of a trust domain, or the SPIFFE ID of one (`spiffe://example.org`), SPIFFE-ID §2.1.
 *
 * @throws SignetError `invalid_spiffe_id`
 */
export function parseTrustDomain(text: string): TrustDomain {
  const name = text.startsWith(SCHEME) ? text.slice(SCHEME.length) : text;
  checkTrustDomain(name, text);
  return name as TrustDomain;
}

/** The trust domain of an ID. */
export function trustDomainOf(id: SpiffeId): TrustDomain {
  const slash = id.indexOf('/', SCHEME.length);
  return (slash === -1 ? id.slice(SCHEME.length) : id.slice(SCHEME.length, slash)) as TrustDomain;
}

/** The path of an ID with its leading slash, or the empty string (which no workload may have, X509-SVID §5.2). */
export function pathOf(id: SpiffeId): string {
  const slash = id.indexOf('/', SCHEME.length);
  return slash === -1 ? '' : id.slice(slash);
}

/** The trust domain's own ID, as CA certificates and bundle maps carry it: no path, no slash. */
export function idOfTrustDomain(name: TrustDomain): SpiffeId {
  return `${SCHEME}${name}` as SpiffeId;
}

function checkTrustDomain(name: string, whole: string): void {
  if (name === '') throw invalid(whole, 'the trust domain name is missing');
  if (name.length > LONGEST_TRUST_DOMAIN) throw invalid(whole, `the trust domain name is longer than ${LONGEST_TRUST_DOMAIN} bytes`);
  if (!TRUST_DOMAIN_NAME.test(name)) throw invalid(whole, 'a trust domain name has only lower-case letters a-z, digits, ".", "-" and "_"');
}

function checkPath(path: string, whole: string): void {
  for (const segment of path.slice(1).split('/')) {
    if (segment === '') throw invalid(whole, 'a path has no empty segment and does not end with "/"');
    if (segment === '.' || segment === '..') throw invalid(whole, 'a path has no "." and no ".." segment');
    if (!PATH_SEGMENT.test(segment)) throw invalid(whole, 'a path segment has only letters, digits, ".", "-" and "_"');
  }
}

function invalid(text: string, rule: string): SignetError {
  const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text;
  return new SignetError('invalid_spiffe_id', `${JSON.stringify(shown)} is not a SPIFFE ID: ${rule}`);
}

/**
 * What an SVID of a workload may name: an ID with a path, of the own trust domain.
 *
 * @throws SignetError `profile_violation` (SPIFFE-ID §3; X509-SVID §5.2)
 */
export function assertWorkload(id: SpiffeId, trustDomain: TrustDomain): void {
  if (trustDomainOf(id) !== trustDomain) throw new SignetError('profile_violation', `${id} is not in the trust domain ${trustDomain} (SPIFFE-ID §3)`);
  if (pathOf(id) === '') throw new SignetError('profile_violation', `${id} has no path, as a leaf must (X509-SVID §5.2)`);
}
