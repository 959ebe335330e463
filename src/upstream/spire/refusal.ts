import type { DeniedReason } from './messages.ts';
import { SpireError, type SpireFault } from './spire-error.ts';

/** Longest part of the server's own words that goes into a message. */
const LONGEST_WORDS = 400;

/** gRPC's status codes, as far as a SPIRE server answers with them. */
const FAULTS: ReadonlyMap<number, SpireFault> = new Map([
  [3, 'refused'],
  [4, 'timed_out'],
  [5, 'not_found'],
  [7, 'denied'],
  [8, 'rate_limited'],
  [9, 'refused'],
  [14, 'unavailable'],
  [16, 'denied'],
]);

const REASONS: Readonly<Record<DeniedReason, SpireFault>> = {
  UNKNOWN: 'denied',
  AGENT_EXPIRED: 'expired',
  AGENT_NOT_ATTESTED: 'evicted',
  AGENT_NOT_ACTIVE: 'inactive',
  AGENT_BANNED: 'banned',
  AGENT_MUST_REATTEST: 'reattest',
};

const SAYS: Partial<Readonly<Record<SpireFault, string>>> = {
  expired: 'the SVID of our agent has ended',
  evicted: 'the server does not know our agent (any more): it was evicted, or the server has lost its datastore',
  inactive: 'the server knows our agent by another SVID: somebody else has joined or renewed as the same agent, or our state is an old copy',
  banned: 'our agent is banned',
  reattest: 'our agent has to prove itself anew',
};

/** What a call ended with, as gRPC has it. */
export interface CallStatus {
  readonly code: number;
  readonly details: string;
  readonly reason: DeniedReason | undefined;
}

/** Why a connection could not be made, from inside gRPC's text. */
const TLS_TROUBLE = /certificate|self-signed|unable to (?:verify|get)|\bssl\b|\btls\b|alert|wrong version number|CERT_|not the SPIRE server/i;
const CONNECT_TROUBLE = /ECONN|EHOST|ENET|ENOTFOUND|EAI_|EPIPE|ETIMEDOUT|name resolution|no connection|connection dropped|GOAWAY|stream (?:reset|removed)|RST_STREAM/i;

/** What a server says of a client certificate that it does not believe (RFC 8446 §6.2). */
const OWN_CERTIFICATE = /alert (?:bad certificate|unsupported certificate|certificate (?:revoked|expired|unknown)|unknown ca|access denied|decrypt error)/;

/** @param server `10.0.0.1:8081` @param asked whether the connection is made with an SVID of ours, and the file for the first contact. */
export function refusalOf(server: string, method: string, { code, details, reason }: CallStatus, asked: { readonly hasIdentity: boolean; readonly bundleFile: string }): SpireError {
  const words = clean(details);
  const fault = (reason && REASONS[reason]) ?? FAULTS.get(code) ?? 'server_error';
  // Local ends of a call have codes of their own; all of them mean that nobody is there.
  if (fault === 'unavailable' || (code === 1 && CONNECT_TROUBLE.test(words))) return awayFrom(server, words, asked);
  if (fault === 'timed_out') return new SpireError('timed_out', `the SPIRE server at ${server} has not answered in time`);
  const says = SAYS[fault];
  return new SpireError(fault, `${method} at the SPIRE server ${server}: ${[words, says].filter((part) => part !== '' && part !== undefined).join(': ')}`);
}

function awayFrom(server: string, words: string, { hasIdentity, bundleFile }: { readonly hasIdentity: boolean; readonly bundleFile: string }): SpireError {
  const last = lastErrorIn(words);
  if (hasIdentity && OWN_CERTIFICATE.test(last)) return new SpireError('unbelieved', `the SPIRE server at ${server} does not believe the SVID of our agent (${last}): it stands under roots that the server does not have (any more)`);
  if (!TLS_TROUBLE.test(last)) return new SpireError('unreachable', `the SPIRE server at ${server} cannot be reached: ${last}`);
  const remedy = `What to do: check the address; where the server has new roots that it never published, write its bundle ("spire-server bundle show") to ${bundleFile}`;
  return new SpireError('tls', `the SPIRE server at ${server} cannot be authenticated: ${last}. ${remedy}`);
}

/** Without what differs each time: a fault is told once. */
function lastErrorIn(words: string): string {
  const last = /Last error: (?:Error: )?(.*)$/.exec(words)?.[1] ?? words;
  const text = last.replace(/\s*Resolution note:.*$/, '').replace(/\s*\(\d{4}-\d\d-\d\dT[\d:.]+Z\)/, '').replace(/; if the root CA is installed locally.*$/, '').replace(/\.+$/, '');
  return text.replace(/^[0-9A-F]+:error:[0-9A-F]+:SSL routines:[^:]*:([^:]+):.*$/, '$1');
}

/** One printable line. */
export function clean(words: string): string {
  const line = words.replaceAll(/[\s\p{Cc}]+/gu, ' ').trim();
  return line.length > LONGEST_WORDS ? `${line.slice(0, LONGEST_WORDS)}…` : line;
}
