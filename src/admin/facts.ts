import type { Container, Pod } from '../kubernetes/pod.ts';
import type { Entry } from '../spiffe/entry.ts';
import type { Selector } from '../spiffe/selector.ts';
import type { IdentityFact, JwtFact, PodFact, SelectorFact, X509Fact } from './messages.ts';
import type { AdminSource } from './source.ts';

export function podFact(pod: Pod): PodFact {
  return {
    namespace: pod.namespace,
    name: pod.name,
    uid: pod.uid,
    service_account: pod.serviceAccount,
    node: pod.nodeName,
    phase: pod.phase,
    deleting: pod.deletionTimestamp !== undefined,
    containers: pod.containers.map(({ name }) => name),
  };
}

/** Where each kind of selector comes from, for a process as far as it is one. */
export interface Origins {
  readonly pid: number | undefined;
  readonly pod: Pod | undefined;
  readonly container: Container | undefined;
}

const UNIX_ORIGINS: Readonly<Record<string, string>> = {
  uid: 'SO_PEERCRED',
  gid: 'SO_PEERCRED',
  supplementary_gid: 'SO_PEERGROUPS',
  user: '/etc/passwd',
  group: '/etc/group',
  supplementary_group: '/etc/group',
};

/** Each selector with who vouches for it. */
export function selectorFacts(selectors: readonly Selector[], origins: Origins): SelectorFact[] {
  return [...new Set(selectors)].sort().map((selector) => ({ selector, from: originOf(selector, origins) }));
}

function originOf(selector: Selector, { pid, pod, container }: Origins): string {
  const [type = '', key = ''] = selector.split(':', 2);
  if (type === 'unix') return UNIX_ORIGINS[key] ?? `/proc/${pid}/exe`;
  const where = pod === undefined ? 'pod' : `pod ${pod.namespace}/${pod.name}`;
  if (key === 'pod-uid' && pid !== undefined) return `/proc/${pid}/cgroup`;
  if (key.startsWith('container-')) return `status of container ${container?.name ?? '?'}`;
  if (key === 'pod-label') return `labels of ${where}`;
  if (key.startsWith('pod-owner')) return `owner references of ${where}`;
  if (/^pod-(?:init-)?image/.test(key)) return `container statuses of ${where}`;
  return `${where} (API server)`;
}

/** The identities that `entries` stand for, the default one first, with what is held of each. */
export function identityFacts(entries: readonly Entry[], source: Pick<AdminSource, 'x509' | 'jwt'>): IdentityFact[] {
  return entries.map((entry, index) => {
    const [x509, jwt] = [x509Fact(entry, source), jwtFact(entry, source)];
    return {
      spiffe_id: entry.id,
      default: index === 0,
      hint: entry.hint,
      dns_names: entry.dnsNames,
      ...(x509 === undefined ? {} : { x509 }),
      ...(jwt === undefined ? {} : { jwt }),
    };
  });
}

function x509Fact(entry: Entry, { x509 }: Pick<AdminSource, 'x509'>): X509Fact | undefined {
  const state = x509.describe(entry);
  if (state === undefined) return undefined;
  const { svid, renewAt, readers, failures } = state;
  const validity =
    svid === undefined ? {} : { serial: svid.serial, not_before: isoTime(svid.notBefore), not_after: isoTime(svid.notAfter) };
  return { ...validity, ...(renewAt === undefined ? {} : { renew_at: isoTime(renewAt) }), readers, failures };
}

function jwtFact(entry: Entry, { jwt }: Pick<AdminSource, 'jwt'>): JwtFact | undefined {
  const { tokens, soonestExpiry } = jwt.describe(entry);
  return soonestExpiry === undefined ? undefined : { tokens, soonest_expiry: isoTime(soonestExpiry) };
}

/** RFC 3339 in UTC, to the second. */
export function isoTime(ms: number): string {
  return new Date(ms).toISOString().replace(/\.[0-9]+Z$/, 'Z');
}
