import type { Registry } from 'prom-client';
import type { Clock } from '../clock.ts';
import { counterAt, gaugeAt, gaugesAt } from './instruments.ts';
import { REASON_CODES, type ReadinessSource } from './readiness.ts';
import { AUTHORITY_KINDS, type IdentityFigures, type MetricSources, type Term } from './sources.ts';

/** Everything that is read from the rooms at each scrape. */
export function addFigures(registry: Registry, sources: MetricSources, readiness: ReadinessSource, clock: Clock): void {
  addReadiness(registry, readiness);
  addIdentities(registry, sources, clock);
  addLoad(registry, sources);
  addAuthorities(registry, sources, clock);
  addPods(registry, sources, clock);
  addRules(registry, sources);
  addAudit(registry, sources);
}

function addReadiness(registry: Registry, readiness: ReadinessSource): void {
  gaugeAt(registry, 'signet_ready', '1 while identities can be served.', () => Number(readiness.ready));
  gaugesAt(registry, 'signet_readiness_reason', '1 for each reason why the agent is not ready, or has something away above it.', 'reason', () => {
    const present = new Set(readiness.reasons().map(({ code }) => code));
    return REASON_CODES.map((code) => [code, Number(present.has(code))] as const);
  });
}

function addIdentities(registry: Registry, sources: MetricSources, clock: Clock): void {
  gaugesAt(registry, 'signet_identities', 'SVIDs that are kept.', 'kind', () => {
    const figures = sources.identities();
    return figures === undefined ? [] : [['x509', figures.x509], ['jwt', figures.jwt]];
  });
  const least = (of: (life: Life) => number) => (): number | undefined => leastOf(sources.identities(), of);
  const secondsLeft = ({ notAfter }: Life): number => (notAfter - clock.now()) / 1000;
  const partLeft = (life: Life): number => part(life.notAfter, life.notAfter - life.issuedAt, clock);
  gaugeAt(registry, 'signet_x509_svid_soonest_expiry_seconds', 'Time until the first of the X.509-SVIDs in use ends.', least(secondsLeft));
  gaugeAt(registry, 'signet_x509_svid_least_life_left_ratio', 'Of the X.509-SVIDs in use, the smallest part of life that is left.', least(partLeft));
}

type Life = IdentityFigures['lives'] extends Iterable<infer T> ? T : never;

function leastOf(figures: IdentityFigures | undefined, of: (life: Life) => number): number | undefined {
  let least: number | undefined;
  for (const life of figures?.lives ?? []) least = Math.min(least ?? Infinity, of(life));
  return least;
}

function part(notAfter: number, lifeMs: number, clock: Clock): number {
  return Math.min(Math.max((notAfter - clock.now()) / lifeMs, 0), 1);
}

function addLoad(registry: Registry, sources: MetricSources): void {
  gaugeAt(registry, 'signet_connections', 'Connections that are open.', () => sources.load().connections);
  gaugeAt(registry, 'signet_calls', 'Calls that are open, streams included.', () => sources.load().calls);
  gaugeAt(registry, 'signet_streams', 'Streams that are open.', () => sources.load().streams);
  gaugeAt(registry, 'signet_owners', 'Users and pods whose use of the limits is counted.', () => sources.load().owners);
}

function addAuthorities(registry: Registry, sources: MetricSources, clock: Clock): void {
  const each = (of: (term: Term) => number) => (): [string, number][] => {
    const terms = sources.authorities();
    return AUTHORITY_KINDS.flatMap((kind) => (terms[kind] === undefined ? [] : [[kind, of(terms[kind])] as [string, number]]));
  };
  const secondsLeft = each(({ notAfter }) => (notAfter - clock.now()) / 1000);
  const partLeft = each(({ notAfter, lifeMs }) => part(notAfter, lifeMs, clock));
  gaugesAt(registry, 'signet_authority_expiry_seconds', 'Time until the signing certificate, the signing key or the root in use ends.', 'kind', secondsLeft);
  gaugesAt(registry, 'signet_authority_life_left_ratio', 'The part of their life that is left.', 'kind', partLeft);
  gaugesAt(registry, 'signet_bundle_authorities', 'Certificates and keys in the trust bundle.', 'kind', () => {
    const bundle = sources.bundle();
    return bundle === undefined ? [] : [['x509', bundle.x509Authorities], ['jwt', bundle.jwtAuthorities]];
  });
}

function addPods(registry: Registry, sources: MetricSources, clock: Clock): void {
  const age = (): number | undefined => {
    const lastContact = sources.pods()?.lastContact;
    return lastContact === undefined ? undefined : Math.max(clock.now() - lastContact, 0) / 1000;
  };
  const synced = (): number | undefined => {
    const pods = sources.pods();
    return pods === undefined ? undefined : Number(pods.synced);
  };
  gaugeAt(registry, 'signet_pod_index_pods', 'Pods of this node that are listed.', () => sources.pods()?.size);
  gaugeAt(registry, 'signet_pod_index_unlisted_pods', 'Pods that are known although they are not listed.', () => sources.pods()?.unlisted);
  gaugeAt(registry, 'signet_pod_index_oversized_pods', 'Pods that say more than is kept of one; their callers are refused.', () => sources.pods()?.oversized);
  gaugeAt(registry, 'signet_pod_index_synced', '1 once the pods of this node were told completely.', synced);
  gaugeAt(registry, 'signet_pod_index_last_contact_age_seconds', 'Time since anything was heard of the pods of this node.', age);
  counterAt(registry, 'signet_pod_index_conflicts_total', 'Requests for a static pod that two pods claim to be.', () => sources.pods()?.conflicts);
}

function addRules(registry: Registry, sources: MetricSources): void {
  gaugeAt(registry, 'signet_entries', 'Static entries that count.', () => sources.entries());
  gaugeAt(registry, 'signet_rules', 'Rules that count.', () => sources.rules()?.loaded);
  gaugeAt(registry, 'signet_rules_refused', 'Rules that do not count because something is wrong with them.', () => sources.rules()?.refused);
}

function addAudit(registry: Registry, sources: MetricSources): void {
  counterAt(registry, 'signet_audit_lines_total', 'Lines of the audit log that were written.', () => sources.audit()?.written);
  counterAt(registry, 'signet_audit_dropped_lines_total', 'Lines of the audit log that were lost.', () => sources.audit()?.dropped);
  counterAt(registry, 'signet_audit_failures_total', 'Attempts to open or write the audit log that failed.', () => sources.audit()?.failures);
}
