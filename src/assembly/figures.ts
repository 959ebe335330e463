import type { Config } from '../config/config.ts';
import type { Listener } from '../listener/listener.ts';
import type { AuditLog } from '../telemetry/audit.ts';
import type { AuthorityKind, MetricSources, PodFigures, Term } from '../telemetry/sources.ts';
import type { WorkloadApiServer } from '../workload-api/server.ts';
import { certificateEnd } from './certificates.ts';
import type { KubernetesRooms } from './kubernetes.ts';
import type { Rooms } from './rooms.ts';

/** What figures are taken of. What is not there (yet) is undefined. */
export interface Measured {
  readonly config: Config;
  readonly listener: Listener;
  readonly server: WorkloadApiServer;
  readonly rooms: Rooms | undefined;
  readonly kubernetes: KubernetesRooms | undefined;
  readonly audit: AuditLog | undefined;
}

/** Looked at whenever somebody asks for metrics. */
export function metricSources(agent: () => Measured): MetricSources {
  return {
    identities: () => {
      const { rooms } = agent();
      return rooms && { x509: rooms.x509.size, jwt: rooms.jwt.describeAll().tokens, lives: rooms.x509.lives() };
    },
    load: () => ({ ...agent().listener.limits.taken, streams: agent().server.admission.streams }),
    authorities: () => termsOf(agent()),
    bundle: () => {
      const bundle = agent().rooms?.trust.own();
      return bundle && { x509Authorities: bundle.x509Authorities.length, jwtAuthorities: bundle.jwtAuthorities.length };
    },
    entries: () => agent().rooms?.registry.size,
    pods: () => podFigures(agent().kubernetes),
    rules: () => {
      const rules = agent().kubernetes?.registry.rules;
      return rules && { loaded: rules.pods.length + rules.statics.length, refused: rules.refused.length };
    },
    audit: () => agent().audit?.figures,
  };
}

/** How this node knows its pods. What was remembered from before a restart is enough to serve those that are in it. */
export function podFigures(kubernetes: KubernetesRooms | undefined): PodFigures | undefined {
  if (kubernetes === undefined) return undefined;
  const { pods, isSynced, isSeeded, knowsRules, lastContact, failure } = kubernetes.cluster;
  const { size, unlisted, conflicts, oversized } = pods;
  return { size, unlisted, conflicts, oversized, synced: isSynced || (isSeeded && knowsRules), lastContact, failure };
}

/** The ends of what signs now; a kind that is missing cannot sign. */
export function termsOf({ config, rooms }: Pick<Measured, 'config' | 'rooms'>): Partial<Record<AuthorityKind, Term>> {
  const terms: Partial<Record<AuthorityKind, Term>> = {};
  if (rooms === undefined) return terms;
  const { x509, jwt } = rooms.authority.ends();
  const lifeMs = config.authority.ttlMs;
  if (x509 !== undefined) terms.x509 = { lifeMs, notAfter: x509 };
  if (jwt !== undefined) terms.jwt = { lifeMs, notAfter: jwt };
  const roots = rooms.trust.own().x509Authorities.map(certificateEnd);
  const last = roots.sort((a, b) => b.notAfter - a.notAfter)[0];
  if (last !== undefined) terms.root = last;
  return terms;
}
