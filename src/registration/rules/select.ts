import type { Facts } from './facts.ts';
import type { Need } from './fields.ts';
import { formatRequirement, mismatch, type LabelSelector } from './label-selector.ts';
import type { PodRule, Rule } from './rule.ts';
import { needs } from './template.ts';

/** Whether a rule means a pod, and why, for people. */
export interface Selection {
  readonly outcome: 'selected' | 'unselected' | 'undecided';
  readonly why: string;
}

/** What must be watched for these rules. */
export function needsOf(rules: readonly Rule[]): ReadonlySet<Need> {
  return new Set(rules.flatMap((rule) => (rule.kind === 'pod' ? [...needsOfRule(rule)] : [])));
}

function needsOfRule(rule: PodRule): ReadonlySet<Need> {
  const all = new Set(templatesOf(rule).flatMap((template) => [...needs(template)]));
  return (rule.namespaceSelector ?? []).length > 0 ? all.add('namespaceLabels') : all;
}

function templatesOf({ idTemplate, dnsNameTemplates, workloadSelectorTemplates }: PodRule) {
  return [idTemplate, ...dnsNameTemplates, ...workloadSelectorTemplates];
}

/** What is cheap and always known is asked first, so that as little as possible is undecided. */
export function select(rule: PodRule, facts: Facts): Selection {
  return (
    refusedByNamespace(rule, facts) ??
    refusedByServiceAccount(rule, facts) ??
    refusedByPodLabels(rule, facts) ??
    refusedByNamespaceLabels(rule, facts) ??
    undecidedFor(rule, facts) ?? { outcome: 'selected', why: reasonOf(rule) }
  );
}

function refusedByNamespace({ namespaces }: PodRule, { pod }: Facts): Selection | undefined {
  if (namespaces.length === 0 || namespaces.includes(pod.namespace)) return undefined;
  return unselected(`namespace ${pod.namespace} is not among registration.defaultRule.namespaces: ${namespaces.join(', ')}`);
}

/** Two static pods of one namespace would otherwise be one identity, and anyone's with an empty name in it. */
function refusedByServiceAccount({ source }: PodRule, { pod }: Facts): Selection | undefined {
  if (source !== 'default' || pod.serviceAccount !== '') return undefined;
  return unselected('the pod has no service account (static pods have none): only a rule of its own can give it an identity');
}

function refusedByPodLabels({ podSelector }: PodRule, { pod }: Facts): Selection | undefined {
  const broken = mismatch(podSelector ?? [], pod.labels);
  return broken === undefined ? undefined : unselected(`pod labels do not match: ${broken}`);
}

function refusedByNamespaceLabels({ namespaceSelector = [] }: PodRule, { namespaceLabels }: Facts): Selection | undefined {
  if (namespaceSelector.length === 0) return undefined;
  if (namespaceLabels === undefined) return undecided('the labels of the namespace are not known yet');
  const broken = mismatch(namespaceSelector, namespaceLabels);
  return broken === undefined ? undefined : unselected(`namespace labels do not match: ${broken}`);
}

function undecidedFor(rule: PodRule, { pod, node }: Facts): Selection | undefined {
  const needed = needsOfRule(rule);
  if (needed.has('annotations') && pod.annotations === undefined)
    return undecided('the annotations of the pod are not known yet');
  return needed.has('node') && node === undefined ? undecided('the node is not known yet') : undefined;
}

function reasonOf({ podSelector = [], namespaceSelector = [], order }: PodRule): string {
  const reasons = [...described('namespace', namespaceSelector), ...described('pod', podSelector)];
  const what = reasons.length === 0 ? 'it selects all pods' : reasons.join('; ');
  if (order === 'default') return 'no other rule selects the pod';
  return order === 'fallback' ? `${what}; no rule that is not a fallback selects the pod` : what;
}

function described(what: string, selector: LabelSelector): string[] {
  return selector.length === 0 ? [] : [`${what} labels match: ${selector.map(formatRequirement).join(', ')}`];
}

function unselected(why: string): Selection {
  return { outcome: 'unselected', why };
}

function undecided(why: string): Selection {
  return { outcome: 'undecided', why };
}
