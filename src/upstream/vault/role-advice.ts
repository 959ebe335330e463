import type { TrustDomain } from '../../spiffe/id.ts';
import type { VaultError } from './vault-error.ts';

/** What breaks the profile of an X.509-SVID, and in which part of the certificate. */
export interface LeafProblem {
  readonly part: string;
  readonly what: string;
}

interface Names {
  /** `pki/roles/svid` */
  readonly role: string;
  readonly trustDomain: TrustDomain;
}

/** The parameters of a PKI role that make the parts of a leaf as they should be. */
const SETTINGS: ReadonlyMap<string, string> = new Map([
  ['basic_constraints', 'basic_constraints_valid_for_non_ca=true'],
  ['key_usage', 'key_usage=DigitalSignature'],
  ['extended_key_usage', 'server_flag=true client_flag=true'],
  ['subject', 'organization=<any text>'],
]);

/** `what` broken, and the one command that repairs the role. */
export function adviceOnLeaf(problems: readonly LeafProblem[], names: Names): string {
  const settings = [...new Set(problems.flatMap((problem) => settingsFor(problem, names)))];
  const broken = problems.map(({ what }) => what).join('; ');
  if (settings.length === 0) return `what Vault has signed by ${names.role} is refused: ${broken}`;
  return `the role ${names.role} cannot produce an X.509-SVID: ${broken}. What to do: \`vault patch ${names.role} ${settings.join(' ')}\``;
}

function settingsFor({ part, what }: LeafProblem, { trustDomain }: Names): string[] {
  const setting = SETTINGS.get(part);
  if (setting !== undefined) return [setting];
  if (part === 'dates' && what.includes('longer')) return ['not_after=""'];
  if (part === 'dates' && what.includes('not valid before')) return ['not_before_duration=30s'];
  if (part !== 'names') return [];
  if (what.includes('URI')) return ['use_csr_sans=true', uriSans(trustDomain)];
  return ['use_csr_common_name=false', 'use_csr_sans=true'];
}

interface Refusal {
  readonly words: RegExp;
  /** About the names of this request: others may pass. */
  readonly isForOne?: true;
  readonly remedy: (names: Names) => string;
}

/** What Vault says with 400, by its own words. */
const REFUSALS: readonly Refusal[] = [
  { words: /unknown role/i, remedy: ({ role }) => `write the role ${role}, as deploy/vault does` },
  { words: /common_name field is required/i, remedy: patch('require_cn=false') },
  { words: /URI Subject Alternative Names are not allowed/i, remedy: (names) => patch(uriSans(names.trustDomain))(names) },
  { words: /URI Subject Alternative Names .*not valid/i, isForOne: true, remedy: (names) => patch(uriSans(names.trustDomain))(names) },
  { words: /subject alternate name .*not allowed/i, isForOne: true, remedy: ({ role }) => `allow the DNS name in ${role} (allowed_domains with allow_bare_domains, allow_subdomains or allow_glob_domains), or take it out of the entry` },
  { words: /requires keys of type/i, remedy: patch('key_type=any') },
  { words: /requires a minimum|key of (?:at least )?\d+ bits/i, remedy: patch('key_type=any') },
  { words: /ttl or not_after should be provided/i, remedy: patch('not_after=""') },
  { words: /beyond the expiration of the CA certificate/i, remedy: () => 'renew the issuer: it ends before the SVID would' },
];

/** What an operator does about a 400, and whether it was about this one request; undefined for words that are not known. */
export function adviceOnRefusal(error: VaultError, names: Names): { readonly text: string; readonly isForOne: boolean } | undefined {
  const said = error.words.join('; ');
  const found = REFUSALS.find(({ words }) => words.test(said));
  return found && { text: `${error.message}. What to do: ${found.remedy(names)}`, isForOne: found.isForOne === true };
}

function patch(setting: string): (names: Names) => string {
  return ({ role }) => `\`vault patch ${role} ${setting}\``;
}

function uriSans(trustDomain: TrustDomain): string {
  return `allowed_uri_sans="spiffe://${trustDomain}/*"`;
}
