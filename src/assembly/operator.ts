import type { AdminSource } from '../admin/source.ts';
import type { AgentStatus, AuthorityFact, PodIndexFact, RuleFact } from '../admin/messages.ts';
import { isoTime } from '../admin/facts.ts';
import type { Config } from '../config/config.ts';
import type { EventBus } from '../events.ts';
import { textAt, objectAt } from '../kubernetes/json.ts';
import { hasStatus } from '../kubernetes/api-error.ts';
import { namespacedPathOf, PODS } from '../kubernetes/resources.ts';
import type { Readiness } from '../telemetry/readiness.ts';
import type { KubernetesRooms } from './kubernetes.ts';
import { termsOf, type Measured } from './figures.ts';
import type { Rooms } from './rooms.ts';

export interface OperatorView extends Measured {
  readonly rooms: Rooms;
  readonly readiness: Readiness;
  readonly events: EventBus;
  readonly version: string;
  /** Milliseconds since the Unix epoch. */
  readonly startedAt: number;
}

/** What the operator's socket may see of the agent. */
export function adminSource(view: OperatorView): AdminSource {
  const { config, rooms, kubernetes } = view;
  return {
    unix: { attest: (process, signal) => rooms.unix.attest({ ...process, connection: 0, pidfd: -1, owner: '', startTime: undefined }, signal) },
    kubernetes: kubernetes && kubernetesFacts(kubernetes),
    registration: registrationFacts(config, rooms, kubernetes),
    x509: rooms.x509,
    jwt: rooms.jwt,
    rules: () => (kubernetes === undefined ? [] : ruleFacts(kubernetes)),
    status: () => statusOf(view),
    ...(rooms.authority.orders === undefined
      ? {}
      : { authority: { orders: rooms.authority.orders, commanded: (fact) => view.events.publish('authorityCommanded', fact) } }),
  };
}

function kubernetesFacts(kubernetes: KubernetesRooms): AdminSource['kubernetes'] {
  return {
    nodeName: kubernetes.nodeName,
    client: kubernetes.client,
    describe: (pid) => kubernetes.attestor.describe(pid),
    pods: () => kubernetes.cluster.pods.all(),
    locate: async (namespace, name, signal) => {
      try {
        const pod = await kubernetes.client.get(namespacedPathOf(PODS, namespace, name), { signal });
        return textAt(objectAt(pod, 'spec'), 'nodeName');
      } catch (error) {
        if (hasStatus(error, 404)) return undefined;
        throw error;
      }
    },
  };
}

function registrationFacts(config: Config, rooms: Rooms, kubernetes: KubernetesRooms | undefined): AdminSource['registration'] {
  const { trustDomain, clusterName, clusterDomain, registration } = config;
  const { excludeNamespaces, className, watchClassless } = registration;
  return {
    match: (selectors) => rooms.registry.match(selectors),
    isComplete: (selectors) => kubernetes?.registry.isComplete(selectors) ?? true,
    rules: () => rooms.registry.allRules,
    facts: (pod) => kubernetes?.registry.facts(pod) ?? { trustDomain, clusterName, clusterDomain, pod },
    options: { trustDomain, excludeNamespaces, className, watchClassless },
  };
}

/** Of the rules for pods, and those that are refused: what each comes to on this node. */
function ruleFacts({ registry }: KubernetesRooms): RuleFact[] {
  return registry.counts().map(({ kind, name, className, podsSelected, podsFailed, entriesMasked, problem }) => ({
    kind,
    name,
    class_name: className,
    pods_selected: podsSelected,
    pods_failed: podsFailed,
    entries_masked: entriesMasked,
    ...(problem === undefined ? {} : { problem }),
  }));
}

function statusOf(view: OperatorView): AgentStatus {
  const { config, rooms, kubernetes, readiness, listener } = view;
  const reasons = readiness.reasons();
  const rules = kubernetes?.registry.rules;
  const states = rooms.x509.describeAll().flatMap(({ svid }) => svid?.notAfter ?? []);
  const soonest = states.length === 0 ? {} : { soonest_expiry: isoTime(Math.min(...states)) };
  return {
    version: view.version,
    pid: process.pid,
    started_at: isoTime(view.startedAt),
    trust_domain: config.trustDomain,
    socket: config.socketPath,
    ready: readiness.ready,
    degraded: readiness.ready && reasons.length > 0,
    reasons,
    authority: authorityFact(view),
    ...(kubernetes === undefined ? {} : { pods: podIndexFact(kubernetes) }),
    identities: { x509: rooms.x509.size, jwt: rooms.jwt.describeAll().tokens, ...soonest },
    rules: { total: rules?.pods.length ?? 0, refused: rules?.refused.length ?? 0, static_entries: rooms.registry.size },
    connections: listener.limits.taken.connections,
  };
}

function authorityFact(view: OperatorView): AuthorityFact {
  const { x509, jwt } = termsOf(view);
  const { x509Authorities, jwtAuthorities } = view.rooms.trust.own();
  const { lastSuccess, failing } = view.rooms.authority.status?.() ?? {};
  return {
    type: view.config.authority.type,
    ...(x509 === undefined ? {} : { x509_not_after: isoTime(x509.notAfter) }),
    ...(jwt === undefined ? {} : { jwt_not_after: isoTime(jwt.notAfter) }),
    roots: x509Authorities.length,
    jwt_keys: jwtAuthorities.length,
    ...(lastSuccess === undefined ? {} : { last_success: isoTime(lastSuccess) }),
    ...(failing === undefined ? {} : { failing }),
  };
}

function podIndexFact(kubernetes: KubernetesRooms): PodIndexFact {
  const { pods, isSynced, lastContact, failure } = kubernetes.cluster;
  return {
    node: kubernetes.nodeName,
    size: pods.size,
    unlisted: pods.unlisted,
    synced: isSynced,
    ...(lastContact === undefined ? {} : { last_contact: isoTime(lastContact) }),
    conflicts: pods.conflicts,
    ...(failure === undefined ? {} : { failing: failure }),
  };
}
