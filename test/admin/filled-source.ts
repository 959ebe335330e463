import type { AgentStatus } from '../../src/admin/messages.ts';
import type { AdminSource, KubernetesFacts } from '../../src/admin/source.ts';
import { EntryRegistry } from '../../src/registration/entry-registry.ts';
import { EventBus } from '../../src/events.ts';
import { podTrim, type Pod } from '../../src/kubernetes/pod.ts';
import { parseClusterSpiffeId } from '../../src/registration/rules/cluster-spiffe-id.ts';
import { parseDefaultRule } from '../../src/registration/rules/default-rule.ts';
import type { Facts } from '../../src/registration/rules/facts.ts';
import type { Rule } from '../../src/registration/rules/rule.ts';
import { configRules, evaluate } from '../../src/registration/rules/rules.ts';
import type { Entry } from '../../src/spiffe/entry.ts';
import { parseSpiffeId, parseTrustDomain } from '../../src/spiffe/id.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { CONTAINER_ID, POD_UID, rawPod, running, type PodShape } from '../support/kubernetes-pods.ts';

export function entry(id: string, selectors: readonly string[], more: Partial<Entry> = {}): Entry {
  return {
    id: parseSpiffeId(id),
    selectors,
    x509TtlMs: undefined,
    jwtTtlMs: undefined,
    dnsNames: [],
    hint: '',
    priority: 0,
    ...more,
  };
}

export function pod(shape: PodShape = {}): Pod {
  const found = podTrim()(rawPod({ status: running(CONTAINER_ID), ...shape }));
  if (found === undefined) throw new Error('not a pod');
  return found;
}

export const STATUS: AgentStatus = {
  version: '1.2.3',
  pid: 7,
  started_at: '2030-01-01T00:00:00Z',
  trust_domain: 'example.org',
  socket: '/run/signet/public/api.sock',
  ready: true,
  degraded: false,
  reasons: [],
  authority: { type: 'embedded', x509_not_after: '2030-01-02T00:00:00Z', roots: 1, jwt_keys: 1 },
  identities: { x509: 2, jwt: 3 },
  rules: { total: 0, refused: 0, static_entries: 0 },
  connections: 1,
};

export type Described = ReturnType<KubernetesFacts['describe']>;

export interface Filling {
  readonly entries?: readonly Entry[];
  /** ClusterSPIFFEIDs by name, each with its spec. */
  readonly rules?: Readonly<Record<string, object>>;
  readonly excludeNamespaces?: readonly string[];
  /** The labels of namespaces are not followed. */
  readonly unknown?: boolean;
  /** Left out: pods are not attested. */
  readonly pods?: readonly Pod[];
  readonly place?: (pid: number) => Described;
  readonly elsewhere?: Readonly<Record<string, string>>;
  readonly overrides?: Partial<AdminSource>;
}

const TRUST_DOMAIN = parseTrustDomain('example.org');
const CLASS = { className: '', watchClassless: true };

/** A source that is filled by hand, with the real rules and the real registry behind it. */
export function filledSource({
  entries = [],
  rules = {},
  excludeNamespaces = [],
  unknown = false,
  pods,
  place = outside,
  elsewhere = {},
  overrides = {},
}: Filling = {}): AdminSource {
  const registry = new EntryRegistry(entries, { withdrawalDelayMs: 0 }, new FakeClock(), new EventBus());
  const all = [...configRules(entries), ...Object.entries(rules).map(([name, spec]) => rule(name, spec)), defaultRule()];
  const options = { trustDomain: TRUST_DOMAIN, excludeNamespaces, ...CLASS };
  const facts = (one: Pod): Facts => ({
    trustDomain: TRUST_DOMAIN,
    clusterName: 'test',
    clusterDomain: 'cluster.local',
    pod: one,
    ...(unknown ? {} : { namespaceLabels: { env: 'test' } }),
  });
  const match = (selectors: readonly string[]): readonly Entry[] => {
    const uid = selectors.find((selector) => selector.startsWith('k8s:pod-uid:'))?.slice('k8s:pod-uid:'.length);
    const found = pods?.find((one) => one.uid === uid);
    if (found === undefined) return registry.match(selectors);
    const owned = evaluate(all, { ...facts(found), selectors }, options).entries;
    return owned.filter((one) => one.selectors.every((selector) => selectors.includes(selector)));
  };
  const locate = async (namespace: string, name: string): Promise<string | undefined> => elsewhere[`${namespace}/${name}`];
  return {
    unix: { attest: async ({ uid, gid }) => [`unix:uid:${uid}`, `unix:gid:${gid}`] },
    kubernetes: pods === undefined ? undefined : { nodeName: 'node-1', describe: place, pods: () => pods, locate },
    registration: { match, rules: () => all, facts, options },
    x509: { describe: () => undefined },
    jwt: { describe: () => ({ tokens: 0, soonestExpiry: undefined }) },
    rules: () => [],
    status: () => STATUS,
    ...overrides,
  };
}

function rule(name: string, spec: object): Rule {
  const parsed = parseClusterSpiffeId({ metadata: { name }, spec }, CLASS);
  if (parsed.kind !== 'rule') throw new Error(`${name}: ${JSON.stringify(parsed)}`);
  return parsed.rule;
}

function defaultRule(): Rule {
  const template = '/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}';
  const parsed = parseDefaultRule({ enabled: true, template, namespaces: [] });
  if (parsed?.kind !== 'rule') throw new Error('no default rule');
  return parsed.rule;
}

export function outside(): Described {
  return {
    cgroup: ['0::/system.slice/web.service'],
    placement: { kind: 'outside' },
    why: 'it is a process of the host, outside any container',
    selectors: [],
  };
}

export function unclear(why: string): Described {
  return {
    cgroup: ['0::/docker/abc'],
    placement: { kind: 'unclear', why },
    why: `it may be in a container: ${why}`,
    selectors: [],
  };
}

export function inPod(found: Pod | undefined): Described {
  const cgroup = [`0::/kubepods/burstable/pod${POD_UID}/${CONTAINER_ID}`];
  const container = found?.containers.find(({ containerId }) => containerId === CONTAINER_ID);
  const placement = { kind: 'pod', podUid: POD_UID, containerId: CONTAINER_ID } as const;
  if (found === undefined) {
    return { cgroup, placement, why: `its cgroup names pod ${POD_UID}, which is not among the pods of this node`, selectors: [] };
  }
  return {
    cgroup,
    placement,
    why: `its cgroup names pod ${found.namespace}/${found.name}`,
    pod: found,
    ...(container === undefined ? {} : { container }),
    selectors: [],
  };
}
