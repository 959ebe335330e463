import { isIP } from 'node:net';
import { isSignetError } from '../errors.ts';
import { parseDefaultRule } from '../registration/rules/default-rule.ts';
import { show } from '../registration/rules/problems.ts';
import { parseSpiffeId, parseTrustDomain, pathOf, type SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { parseSelector, SELECTOR_KEYS, type Selector } from '../spiffe/selector.ts';
import { Refused } from './values.ts';

/**
 * `sun_path` has 108 bytes with its final zero (unix(7)). A new agent binds `<socketPath>.xxxxxxxx` and renames it, so that nine
 * of the 107 are kept for the suffix.
 */
const LONGEST_SOCKET_PATH = 107 - '.xxxxxxxx'.length;

/** PATH_MAX is 4096; the rest is for the names of the files in the directory. */
const LONGEST_DATA_DIR = 3_840;

/** RFC 1035 §2.3.4: 255 octets on the wire are 253 characters as text. */
const LONGEST_DNS_NAME = 253;

/** RFC 1123 §2.1: letters, digits and inner hyphens, at most 63. */
const DNS_LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** WA-75 */
const LONGEST_HINT = 1_024;

/** What issuers are commonly bounded to; a token carries it each time. */
const LONGEST_ISSUER = 2_048;

/** A trust domain's name, or its SPIFFE ID. */
export function readTrustDomain(input: unknown): TrustDomain {
  const what = 'a trust domain name such as example.org';
  return parsed(textOf(input, what), parseTrustDomain, what);
}

/** The SPIFFE ID of a workload: it has a path (XS-04). */
export function readWorkloadId(input: unknown): SpiffeId {
  const what = 'a SPIFFE ID such as spiffe://example.org/ns/default/sa/web';
  const id = parsed(textOf(input, what), parseSpiffeId, what);
  if (pathOf(id) === '') throw new Refused(`${what}: a workload's ID has a path after the trust domain`);
  return id;
}

/** One selector. */
export function readSelector(input: unknown): Selector {
  const what = 'a selector such as unix:uid:1000';
  const text = textOf(input, what);
  const types = Object.keys(SELECTOR_KEYS);
  if (!types.includes(text.split(':', 1)[0] ?? '')) throw new Refused(`${what}: the type is one of ${types.join(', ')}`);
  return parsed(text, parseSelector, what);
}

export function readSocketPath(input: unknown): string {
  return absolutePath(input, LONGEST_SOCKET_PATH);
}

export function readDataDir(input: unknown): string {
  return absolutePath(input, LONGEST_DATA_DIR);
}

/** A file that something else puts there. */
export function readFile(input: unknown): string {
  return absolutePath(input, LONGEST_DATA_DIR);
}

/** A file, or standard output. */
export function readAuditPath(input: unknown): string {
  if (input === '-') return input;
  try {
    return absolutePath(input, LONGEST_DATA_DIR);
  } catch (error) {
    throw error instanceof Refused ? new Refused(`${error.allowed}, or "-" for standard output`) : error;
  }
}

/** A cgroup path below the root of its hierarchy (cgroups(7)). */
export function readCgroupRoot(input: unknown): string {
  return absolutePath(input, LONGEST_DATA_DIR);
}

/** The name of a cluster, or of a class of rules: it can stand in an ID as one segment (SPIFFE-ID §2.2). */
export function readClusterName(input: unknown): string {
  const what = 'a name of at most 253 letters, digits, dots, dashes and underscores, such as prod-eu1';
  const text = textOf(input, what);
  if (!/^[a-zA-Z0-9._-]{0,253}$/.test(text) || text === '.' || text === '..') throw new Refused(what);
  return text;
}

/** The name of a namespace or node (RFC 1123 §2.1, as Kubernetes reads it). */
export function readKubernetesName(input: unknown): string {
  const what = 'the name of a Kubernetes object such as kube-system';
  const text = textOf(input, what);
  if (text.length > LONGEST_DNS_NAME || !text.split('.').every((label) => DNS_LABEL.test(label))) throw new Refused(what);
  return text;
}

/** The kind of an object. */
export function readKubernetesKind(input: unknown): string {
  const what = 'a kind such as Issuer or ClusterIssuer';
  const text = textOf(input, what);
  if (!/^[A-Z][A-Za-z0-9]{0,62}$/.test(text)) throw new Refused(what);
  return text;
}

/** The key of a value in a ConfigMap. */
export function readConfigMapKey(input: unknown): string {
  const what = 'a key of a ConfigMap such as ca.crt';
  const text = textOf(input, what);
  if (!/^[A-Za-z0-9._-]{1,253}$/.test(text)) throw new Refused(what);
  return text;
}

/** A DNS name or an IP address to connect to. */
export function readHost(input: unknown): string {
  const what = 'a host such as 127.0.0.1, ::1 or node1.example.org';
  const text = textOf(input, what);
  if (isIP(text) === 0 && (text.length > LONGEST_DNS_NAME || !text.split('.').every((label) => DNS_LABEL.test(label)))) throw new Refused(what);
  return text;
}

/** An IP address and a port to listen on. */
export function readAddress(input: unknown): { readonly host: string; readonly port: number } {
  const what = 'an IP address and a port such as 127.0.0.1:9464, 0.0.0.0:9464 or [::]:9464';
  const [, bracketed, plain, digits = ''] = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})$/.exec(textOf(input, what)) ?? [];
  const host = bracketed ?? plain ?? '';
  const isGood = isIP(host) === (bracketed === undefined ? 4 : 6);
  const port = Number(digits);
  if (!isGood || port > 65_535) throw new Refused(what);
  return { host, port };
}

/** A host (a name or an address) and a port to connect to. */
export function readHostAndPort(input: unknown): { readonly host: string; readonly port: number } {
  const what = 'a host and a port such as spire-server.example.org:8081 or [2001:db8::1]:8081';
  const [, bracketed, plain, digits = ''] = /^(?:\[([0-9a-fA-F:.]+)\]|([a-z0-9.-]+)):([0-9]{1,5})$/.exec(textOf(input, what)) ?? [];
  const host = bracketed ?? plain ?? '';
  const isName = host.length <= LONGEST_DNS_NAME && host.split('.').every((label) => DNS_LABEL.test(label));
  const port = Number(digits);
  if ((bracketed === undefined ? !isName : isIP(host) !== 6) || port < 1 || port > 65_535) throw new Refused(what);
  return { host, port };
}

/** Where a Vault server is. Tokens and keys go there, so that only the own machine may be asked in the clear. */
export function readVaultAddress(input: unknown): string {
  const what = 'an https URL such as https://vault.example.org:8200 (http on 127.0.0.1, ::1 and localhost only)';
  const text = textOf(input, what);
  if (!/^https?:\/\/[^\s/\\@?#]+\/?$/.test(text) || !URL.canParse(text)) throw new Refused(what);
  const { protocol, hostname } = new URL(text);
  if (protocol === 'http:' && !['127.0.0.1', '[::1]', 'localhost'].includes(hostname)) throw new Refused(what);
  return text.replace(/\/$/, '');
}

/** Where a smallstep CA is. It has TLS always. */
export function readStepCaAddress(input: unknown): string {
  const what = 'an https URL such as https://ca.example.org:9000';
  const text = textOf(input, what);
  if (!/^https:\/\/[^\s/\\@?#]+\/?$/.test(text) || !URL.canParse(text)) throw new Refused(what);
  return text.replace(/\/$/, '');
}

/** The name of a provisioner. */
export function readStepCaName(input: unknown): string {
  const what = 'the name of a provisioner such as node-ca or admin@example.org: at most 255 printable characters of ASCII';
  const text = textOf(input, what);
  if (!/^[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?$/.test(text)) throw new Refused(what);
  return text;
}

/** A SHA-256 digest in hexadecimal digits, as `step` and OpenSSL write it. */
export function readSha256(input: unknown): string {
  const what = 'a SHA-256 fingerprint of 64 hexadecimal digits';
  const digits = textOf(input, what).replaceAll(':', '').toLowerCase();
  if (!/^[0-9a-f]{64}$/.test(digits)) throw new Refused(what);
  return digits;
}

/** A mount point: one or more segments. */
export function readVaultPath(input: unknown): string {
  return vaultName(input, /^[a-zA-Z0-9._-]+(?:\/[a-zA-Z0-9._-]+)*$/, 'a mount point such as pki or team-a/pki');
}

/** The name of a role, an issuer or a key. */
export function readVaultName(input: unknown): string {
  return vaultName(input, /^[a-zA-Z0-9._-]+$/, 'a name of letters, digits, dots, dashes and underscores');
}

/** The namespace of an Enterprise server; '' for none. */
export function readVaultNamespace(input: unknown): string {
  return input === '' ? '' : vaultName(input, /^[a-zA-Z0-9._-]+(?:\/[a-zA-Z0-9._-]+)*\/?$/, 'a namespace such as team-a or team-a/prod');
}

function vaultName(input: unknown, form: RegExp, what: string): string {
  const text = textOf(input, what);
  // A dot segment would lead to another path of the API.
  if (text.length > 512 || !form.test(text) || text.split('/').some((name) => /^\.{1,2}$/.test(name))) throw new Refused(what);
  return text;
}

/** The template of the default rule. */
export function readTemplate(input: unknown): string {
  const template = textOf(input, 'a template such as /ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}');
  const parsed = parseDefaultRule({ enabled: true, template, namespaces: [] });
  if (parsed?.kind !== 'refused') return template;
  const [problem] = parsed.refused.problems;
  throw new Refused(problem?.allowed ?? 'a template', problem?.found === show(template) ? problem.hint : `found ${problem?.found}${problem?.hint === undefined ? '' : `; ${problem.hint}`}`);
}

/** An https URL as RFC 8414 §2 wants an issuer to be. Kept as it is written, because verifiers compare bytes. */
export function readIssuer(input: unknown): string {
  const what = 'an https URL such as https://issuer.example.org';
  const text = textOf(input, what);
  if (/[?#]/.test(text)) throw new Refused(`${what}: without query and fragment`);
  if (text.length > LONGEST_ISSUER) throw new Refused(`${what}: at most ${LONGEST_ISSUER} characters`);
  // The URL parser drops white space, reads "\" as "/" and lets slashes be left out or doubled: none of that is an issuer.
  if (!/^https:\/\/[^\s/\\][^\s\\]*$/.test(text) || !URL.canParse(text)) throw new Refused(what);
  const { username, password } = new URL(text);
  if (username !== '' || password !== '') throw new Refused(`${what}: without user name and password`);
  return text;
}

/** A DNS name for a certificate, `*.` in front allowed (RFC 9525 §6.3). Lower case, so that one name has one spelling. */
export function readDnsName(input: unknown): string {
  const what = 'a DNS name such as web.example.org or *.example.org';
  const text = textOf(input, what);
  if (text.length > LONGEST_DNS_NAME) throw new Refused(`${what}: at most ${LONGEST_DNS_NAME} characters`);
  if (/[A-Z]/.test(text)) throw new Refused(`${what}: in lower case`, `write ${JSON.stringify(text.toLowerCase())}`);
  const labels = (text.startsWith('*.') ? text.slice(2) : text).split('.');
  if (!labels.every((label) => DNS_LABEL.test(label))) {
    throw new Refused(`${what}: each label has 1 to 63 letters, digits and inner hyphens`);
  }
  // RFC 1123 §2.1: this is how a name is told from an IP address, which belongs into another kind of name.
  if (labels.length > 1 && /^\d+$/.test(labels.at(-1) ?? '')) throw new Refused(`${what}: the last label is not a number`);
  return text;
}

/** A hint for the workload (WA-75). */
export function readHint(input: unknown): string {
  const what = `a text of at most ${LONGEST_HINT} bytes`;
  const text = textOf(input, what);
  const bytes = Buffer.byteLength(text);
  if (bytes > LONGEST_HINT) throw new Refused(`${what}; this one has ${bytes}`);
  // A lone surrogate has no UTF-8 form, which the wire needs.
  if (/\p{Cc}/u.test(text) || !text.isWellFormed()) throw new Refused(`${what} without control characters and lone surrogates`);
  return text;
}

function absolutePath(input: unknown, longest: number): string {
  const what = `an absolute path of at most ${longest} bytes`;
  const text = textOf(input, what);
  const bytes = Buffer.byteLength(text);
  if (bytes > longest) throw new Refused(`${what}; this one has ${bytes}`);
  if (!text.startsWith('/')) throw new Refused(what);
  if (text.slice(1).split('/').some((name) => name === '' || name === '.' || name === '..')) {
    throw new Refused(`${what} without empty, "." and ".." names, and without "/" at its end`);
  }
  if (/\p{Cc}/u.test(text) || !text.isWellFormed()) throw new Refused(`${what} without control characters`);
  return text;
}

function textOf(input: unknown, allowed: string): string {
  if (typeof input !== 'string') throw new Refused(allowed);
  return input;
}

/** Runs a parser of the nouns; of its message only the rule is kept, because a problem shows the value itself. */
function parsed<T>(text: string, parse: (text: string) => T, what: string): T {
  try {
    return parse(text);
  } catch (error) {
    if (!isSignetError(error)) throw error;
    const rule = /^.* is not a (?:SPIFFE ID|selector): (.*)$/s.exec(error.message)?.[1] ?? error.message;
    throw new Refused(`${what}: ${rule}`);
  }
}
