import { areForgeable, BINDING_SELECTOR } from '../registration/rules/forgeable.ts';
import { trustDomainOf, type SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { isNarrowing, type Selector } from '../spiffe/selector.ts';
import { clusterTrustBundleProblem } from '../trust/publish/cluster-trust-bundle.ts';
import { AUTHORITY_TYPES } from './config.ts';
import { formatDuration } from './duration.ts';
import { hintClashes, repeatedEntries, type Ownership } from './overlap.ts';
import { formatPath, show, type Problem, type Step } from './problems.ts';

/**
 * A file as far as its values have passed: whatever was refused by itself is undefined, so that the rules over several values
 * can be checked and reported together with it.
 */
export interface Draft {
  readonly trustDomain?: TrustDomain | undefined;
  readonly x509?: { readonly ttl?: number | undefined } | undefined;
  readonly jwt?: { readonly signer?: string | undefined; readonly transit?: object | undefined } | undefined;
  readonly clusterName?: string | undefined;
  readonly kubernetes?: { readonly nodeName?: string | undefined; readonly kubeconfig?: string | undefined } | undefined;
  readonly authority?: DraftAuthority | undefined;
  readonly attestation?: DraftAttestation | undefined;
  readonly entries?: readonly (DraftEntry | undefined)[] | undefined;
}

interface DraftAuthority {
  readonly type?: string | undefined;
  readonly tier?: string | undefined;
  readonly vault?: DraftVault | undefined;
  readonly stepCa?: { readonly provisioner?: Readonly<Record<string, string | undefined>> | undefined } | undefined;
  readonly spire?: { readonly attestation?: { readonly method?: string | undefined } | undefined } | undefined;
  readonly nameConstraint?: string | undefined;
  readonly acceptUnconstrainedCA?: boolean | undefined;
  readonly ttl?: number | undefined;
  readonly singleNode?: boolean | undefined;
  readonly files?: object | undefined;
  readonly certManager?: { readonly roots?: readonly unknown[] | undefined } | undefined;
}

interface DraftVault {
  readonly auth?: (Readonly<Record<string, string | undefined>> & { readonly method?: string | undefined }) | undefined;
  readonly pki?: { readonly role?: string | undefined } | undefined;
}

interface DraftAttestation {
  readonly unix?: { readonly path?: boolean | undefined } | undefined;
  readonly kubernetes?: { readonly enabled?: boolean | undefined } | undefined;
}

export interface DraftEntry {
  readonly id?: SpiffeId | undefined;
  readonly selectors?: readonly (Selector | undefined)[] | undefined;
  readonly x509Ttl?: number | undefined;
  readonly dnsNames?: readonly (string | undefined)[] | undefined;
  readonly hint?: string | undefined;
}

/** A certificate with more names is larger than some TLS stacks read in one record. */
const MOST_DNS_NAMES = 64;

/** Everything that is wrong between values that are each allowed. `written` is the document, for what stands at a path. */
export function brokenRules(draft: Draft, written: unknown): Problem[] {
  const entries = draft.entries ?? [];
  return [
    ...authorityRule(draft, written),
    ...sectionRules(draft, written),
    ...vaultRules(draft, written),
    ...stepCaRules(draft, written),
    ...spireRules(draft, written),
    ...certManagerRules(draft, written),
    ...kubernetesRules(draft, written),
    ...entries.flatMap((entry, index) => (entry === undefined ? [] : entryRules(entry, ['entries', index], draft, written))),
    ...overlapRules(entries, written),
  ];
}

/** An SVID never outlives the CA that signed it, and a CA is replaced at half of its life. */
function authorityRule({ x509, authority }: Draft, written: unknown): Problem[] {
  if (x509?.ttl === undefined || authority?.ttl === undefined || authority.ttl >= 2 * x509.ttl) return [];
  const path = ['authority', 'ttl'];
  const stands = valueAt(written, path);
  const found = stands === undefined ? `${show(formatDuration(authority.ttl))} (the default)` : show(stands);
  const allowed = `at least ${formatDuration(2 * x509.ttl)}, twice x509.ttl (${formatDuration(x509.ttl)})`;
  return [{ path: formatPath(path), found, allowed }];
}

/** What each type has in its section. Vault has rules of its own: it may sign tokens under any type. */
const SECTIONS: Readonly<Record<string, { readonly section: string; readonly needs: string }>> = {
  files: { section: 'files', needs: 'the files of the CA: certificate and key' },
  'step-ca': { section: 'stepCa', needs: 'the smallstep CA: address, caFile or fingerprint, and provisioner' },
  spire: { section: 'spire', needs: 'the SPIRE server: address, bundleFile and attestation' },
  'cert-manager': { section: 'certManager', needs: 'the issuer and its roots: namespace, issuer, and roots or rootsConfigMap' },
};

/** The section that the type names is there, and no other. */
function* sectionRules({ authority }: Draft, written: unknown): Iterable<Problem> {
  if (authority?.type === undefined) return;
  for (const [type, { section, needs }] of Object.entries(SECTIONS)) {
    const path = ['authority', section];
    const stands = valueAt(written, path);
    const isWanted = authority.type === type;
    if (isWanted !== (stands === undefined)) continue;
    yield { path: formatPath(path), found: show(stands), allowed: isWanted ? needs : `nothing, unless authority.type is ${type}` };
  }
}

/** What each way to log in to Vault needs. */
const VAULT_AUTH: Readonly<Record<string, readonly string[]>> = {
  kubernetes: ['role'],
  jwt: ['role'],
  approle: ['roleIdFile', 'secretIdFile'],
  cert: ['certificate', 'key'],
  token: ['tokenFile'],
};

/** The types above a node that can sign each leaf. */
const SIGNS_LEAVES: ReadonlySet<string> = new Set(['vault', 'cert-manager']);

function* vaultRules({ authority, jwt }: Draft, written: unknown): Iterable<Problem> {
  const at = (path: readonly Step[], allowed: string): Problem => ({ path: formatPath(path), found: show(valueAt(written, path)), allowed });
  const isThere = (...path: Step[]): boolean => valueAt(written, path) !== undefined;
  const isWanted = authority?.type === 'vault' || jwt?.signer === 'transit';
  if (isWanted && !isThere('authority', 'vault')) yield at(['authority', 'vault'], 'the Vault server: address and auth');
  if (authority?.type !== undefined && jwt?.signer !== undefined && !isWanted && isThere('authority', 'vault')) {
    yield at(['authority', 'vault'], 'nothing, unless authority.type is vault or jwt.signer is transit');
  }
  if (jwt?.signer === 'transit' && !isThere('jwt', 'transit')) yield at(['jwt', 'transit'], 'the key: mount and key (with jwt.signer: transit)');
  if (jwt?.signer === 'node' && isThere('jwt', 'transit')) yield at(['jwt', 'transit'], 'nothing, unless jwt.signer is transit');
  const { auth, pki } = authority?.vault ?? {};
  for (const name of VAULT_AUTH[auth?.method ?? ''] ?? []) {
    if (!isThere('authority', 'vault', 'auth', name)) yield at(['authority', 'vault', 'auth', name], `a value (with auth.method: ${auth?.method})`);
  }
  if (authority?.tier !== 'per-svid') return;
  if (SIGNS_LEAVES.has(authority.type ?? '') && jwt?.signer === 'node') {
    yield at(['jwt', 'signer'], 'transit, with authority.tier: per-svid: no key that signs is on the node then');
  }
  if (authority.type !== undefined && !SIGNS_LEAVES.has(authority.type)) yield at(['authority', 'tier'], 'intermediate, unless authority.type is vault or cert-manager');
  if (authority.type === 'vault' && pki !== undefined && !isThere('authority', 'vault', 'pki', 'role')) {
    yield at(['authority', 'vault', 'pki', 'role'], 'the role that leaves are signed by (with authority.tier: per-svid)');
  }
}

function* stepCaRules({ authority }: Draft, written: unknown): Iterable<Problem> {
  const section = ['authority', 'stepCa'];
  const at = (path: readonly Step[], allowed: string): Problem => ({ path: formatPath([...section, ...path]), found: show(valueAt(written, [...section, ...path])), allowed });
  const isThere = (...path: Step[]): boolean => valueAt(written, [...section, ...path]) !== undefined;
  if (authority?.stepCa === undefined) return;
  if (!isThere('caFile') && !isThere('fingerprint')) yield at(['fingerprint'], 'the SHA-256 fingerprint of its root, or caFile: whoever answers first is not believed');
  if (isThere('caFile') && isThere('fingerprint')) yield at(['fingerprint'], 'nothing, beside caFile');
  const type = authority.stepCa.provisioner?.['type'];
  if (type === 'jwk') {
    if (!isThere('provisioner', 'key') && !isThere('provisioner', 'passwordFile')) yield at(['provisioner', 'key'], 'the file with the private key, or passwordFile to open the one that step-ca keeps');
    if (isThere('provisioner', 'certificate')) yield at(['provisioner', 'certificate'], 'nothing, unless provisioner.type is x5c');
  }
  for (const name of type === 'x5c' ? ['certificate', 'key'] : []) {
    if (!isThere('provisioner', name)) yield at(['provisioner', name], 'a value (with provisioner.type: x5c)');
  }
}

/** What each node attestor needs. */
const SPIRE_ATTESTATION: Readonly<Record<string, readonly string[]>> = { join_token: ['tokenFile'], x509pop: ['certificate', 'key'], k8s_psat: ['cluster', 'tokenFile'] };

/** A SPIRE server signs CAs in one form only, and verifies tokens with the keys in its bundle. */
function* spireRules({ authority, jwt }: Draft, written: unknown): Iterable<Problem> {
  const at = (path: readonly Step[], allowed: string): Problem => ({ path: formatPath(path), found: show(valueAt(written, path)), allowed });
  const isThere = (...path: Step[]): boolean => valueAt(written, path) !== undefined;
  if (authority?.type !== 'spire') return;
  const { method } = authority.spire?.attestation ?? {};
  for (const name of SPIRE_ATTESTATION[method ?? ''] ?? []) {
    if (!isThere('authority', 'spire', 'attestation', name)) yield at(['authority', 'spire', 'attestation', name], `a value (with attestation.method: ${method})`);
  }
  if (authority.acceptUnconstrainedCA === false) yield at(['authority', 'acceptUnconstrainedCA'], 'true, with authority.type: spire: its CAs have no path length');
  if (authority.nameConstraint === 'uri') yield at(['authority', 'nameConstraint'], 'none, with authority.type: spire: its CAs have no name constraint');
  if (jwt?.signer === 'transit') yield at(['jwt', 'signer'], "node, with authority.type: spire: keys elsewhere are not in the server's bundle");
}

/** Whom to believe, and a way to the API server. */
function* certManagerRules({ authority, attestation, kubernetes }: Draft, written: unknown): Iterable<Problem> {
  if (authority?.type !== 'cert-manager') return;
  const path = ['authority', 'certManager'];
  const at = (where: readonly Step[], allowed: string): Problem => ({ path: formatPath(where), found: show(valueAt(written, where)), allowed });
  const isRooted = valueAt(written, [...path, 'rootsConfigMap']) !== undefined || (authority.certManager?.roots?.length ?? 1) > 0;
  if (valueAt(written, path) !== undefined && !isRooted) yield at([...path, 'roots'], 'the files with the trust anchors, or authority.certManager.rootsConfigMap');
  if (attestation?.kubernetes?.enabled === false && kubernetes !== undefined && valueAt(written, ['kubernetes', 'kubeconfig']) === undefined) {
    yield at(['kubernetes', 'kubeconfig'], 'the way to the API server (with authority.type: cert-manager), unless attestation.kubernetes.enabled is true');
  }
}

/** What a node of a cluster has to be told, and what it must not be. */
function* kubernetesRules({ trustDomain, attestation, authority, clusterName, kubernetes, entries }: Draft, written: unknown): Iterable<Problem> {
  const enabled = attestation?.kubernetes?.enabled;
  const report = (path: readonly Step[], allowed: string): Problem => ({ path: formatPath(path), found: show(valueAt(written, path)), allowed });
  if (enabled === true) {
    if (clusterName === '') yield report(['clusterName'], 'the name of the cluster, such as prod-eu1 (with attestation.kubernetes)');
    if (kubernetes !== undefined && valueAt(written, ['kubernetes', 'nodeName']) === undefined) {
      yield report(['kubernetes', 'nodeName'], 'the name of this node, such as "${NODE_NAME}" (with attestation.kubernetes)');
    }
    if (authority?.type === 'embedded' && authority.singleNode === false) {
      const why = 'as many roots as nodes would share one trust domain; a cluster of one node says authority.singleNode: true';
      const others = AUTHORITY_TYPES.filter((type) => type !== 'embedded').join(', ');
      yield report(['authority', 'type'], `one of ${others}, with attestation.kubernetes: ${why}`);
    }
  }
  if (enabled === true && trustDomain !== undefined && valueAt(written, ['trust', 'publish', 'clusterTrustBundle']) === true) {
    const problem = clusterTrustBundleProblem(trustDomain);
    if (problem !== undefined) yield report(['trust', 'publish', 'clusterTrustBundle'], `false: ${problem}`);
  }
  if (enabled !== false) return;
  if (valueAt(written, ['trust', 'publish', 'configMap']) !== undefined || valueAt(written, ['trust', 'publish', 'clusterTrustBundle']) === true) {
    yield report(['trust', 'publish'], 'nothing, unless attestation.kubernetes.enabled is true');
  }
  for (const [index, entry] of (entries ?? []).entries()) {
    for (const [at, selector] of (entry?.selectors ?? []).entries()) {
      if (selector?.startsWith('k8s:') !== true) continue;
      yield report(['entries', index, 'selectors', at], 'k8s selectors only with attestation.kubernetes.enabled: true, else they never match');
    }
  }
}

function entryRules(entry: DraftEntry, at: readonly Step[], draft: Draft, written: unknown): Problem[] {
  const report = (steps: readonly Step[], allowed: string): Problem => {
    const path = [...at, ...steps];
    return { path: formatPath(path), found: show(valueAt(written, path)), allowed };
  };
  return [
    ...idRule(entry, draft, report),
    ...selectorRules(entry, report),
    ...forgeableRule(entry, draft, report),
    ...pathRule(entry, draft, report),
    ...entryTtlRule(entry, draft, report),
    ...dnsNameRules(entry, report),
  ];
}

type Report = (steps: readonly Step[], allowed: string) => Problem;

function* idRule({ id }: DraftEntry, { trustDomain }: Draft, report: Report): Iterable<Problem> {
  if (id === undefined || trustDomain === undefined || trustDomainOf(id) === trustDomain) return;
  yield report(['id'], `an ID in the trust domain ${trustDomain} (trustDomain)`);
}

function* selectorRules({ selectors }: DraftEntry, report: Report): Iterable<Problem> {
  if (selectors === undefined) return;
  if (selectors.length === 0) yield report(['selectors'], 'at least one selector: without any it would apply to every caller');
  for (const index of repeats(selectors)) yield report(['selectors', index], 'each selector once');
  if (selectors.length > 0 && selectors.every((selector) => selector !== undefined && isNarrowing(selector))) {
    const why = 'a process can change its path and sha256 by exec after it has connected';
    yield report(['selectors'], `a uid, user, gid, group or k8s:ns selector among them: ${why}`);
  }
}

/** Where nothing yields a k8s selector, that is what is wrong. */
function* forgeableRule({ selectors }: DraftEntry, { attestation }: Draft, report: Report): Iterable<Problem> {
  if (selectors === undefined || selectors.includes(undefined) || attestation?.kubernetes?.enabled === false) return;
  if (areForgeable(selectors.filter((selector) => selector !== undefined))) yield report(['selectors'], BINDING_SELECTOR);
}

function* pathRule({ selectors }: DraftEntry, { attestation }: Draft, report: Report): Iterable<Problem> {
  if (attestation?.unix?.path !== false) return;
  for (const [index, selector] of (selectors ?? []).entries()) {
    if (selector === undefined || !/^unix:(?:path|sha256):/.test(selector)) continue;
    yield report(['selectors', index], 'path and sha256 selectors only with attestation.unix.path: true, else they never match');
  }
}

function* entryTtlRule({ x509Ttl }: DraftEntry, { authority }: Draft, report: Report): Iterable<Problem> {
  if (x509Ttl === undefined || authority?.ttl === undefined || authority.ttl >= 2 * x509Ttl) return;
  const most = formatDuration(Math.floor(authority.ttl / 2));
  yield report(['x509Ttl'], `at most ${most}, half of authority.ttl (${formatDuration(authority.ttl)})`);
}

function* dnsNameRules({ dnsNames }: DraftEntry, report: Report): Iterable<Problem> {
  if (dnsNames === undefined) return;
  const count = dnsNames.length;
  if (count > MOST_DNS_NAMES) yield report(['dnsNames'], `at most ${MOST_DNS_NAMES} DNS names; these are ${count}`);
  for (const index of repeats(dnsNames)) yield report(['dnsNames', index], 'each DNS name once');
}

function* overlapRules(entries: readonly (DraftEntry | undefined)[], written: unknown): Iterable<Problem> {
  const owned = entries.flatMap((entry, index) => ownershipOf(entry, index));
  const repeated = repeatedEntries(owned);
  for (const [later, earlier] of repeated) {
    const path = ['entries', later];
    const found = show(valueAt(written, [...path, 'id']));
    yield { path: formatPath(path), found, allowed: `an ID once with the same selectors; entries[${earlier}] has both` };
  }
  for (const [later, earlier] of hintClashes(owned)) {
    if (repeated.has(later)) continue;
    const path = ['entries', later, 'hint'];
    const why = `a caller of one can be a caller of entries[${earlier}], which has the same hint`;
    const found = show(valueAt(written, path));
    yield { path: formatPath(path), found, allowed: `a hint that is unique for each caller: ${why}` };
  }
}

function ownershipOf(entry: DraftEntry | undefined, index: number): Ownership[] {
  const selectors = new Set<Selector>();
  for (const selector of entry?.selectors ?? []) {
    if (selector === undefined) return [];
    selectors.add(selector);
  }
  return selectors.size === 0 ? [] : [{ index, id: entry?.id, hint: entry?.hint ?? '', selectors }];
}

/** The indexes of values that stand earlier in `values` already. */
function repeats(values: readonly (string | undefined)[]): number[] {
  const seen = new Set<string>();
  return values.flatMap((value, index) => {
    if (value === undefined) return [];
    if (seen.has(value)) return [index];
    seen.add(value);
    return [];
  });
}

/** What stands in `document` at `path`, or undefined. */
function valueAt(document: unknown, path: readonly Step[]): unknown {
  let value = document;
  for (const step of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return undefined;
    value = Reflect.get(value, step);
  }
  return value;
}
