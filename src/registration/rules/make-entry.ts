import { isSignetError } from '../../errors.ts';
import type { Entry } from '../../spiffe/entry.ts';
import { parseSpiffeId, pathOf, trustDomainOf, type SpiffeId } from '../../spiffe/id.ts';
import { parseSelector, podUidSelector, type Selector } from '../../spiffe/selector.ts';
import { brokenDnsName } from './common-spec.ts';
import type { Facts } from './facts.ts';
import { harmless, show } from './problems.ts';
import { render } from './render.ts';
import type { PodRule } from './rule.ts';
import type { Template } from './syntax.ts';

/** The entry, or what about this pod keeps a rule from giving one: sentences for people. */
export type MadeEntry =
  { readonly entry: Entry; readonly problems?: never } | { readonly entry?: never; readonly problems: readonly string[] };

/** Renders all templates of a rule for a pod. A rule that fails in one of them gives nothing. */
export function makeEntry(rule: PodRule, facts: Facts): MadeEntry {
  const [idPath, spec] =
    rule.source === 'default' ? ['registration.defaultRule.template', ''] : ['spec.spiffeIDTemplate', 'spec.'];
  const problems: string[] = [];
  const collect = <T>(path: string, make: () => T): T | undefined => {
    try {
      return make();
    } catch (error) {
      if (!isSignetError(error)) throw error;
      problems.push(harmless(`${path}: ${error.message}`));
      return undefined;
    }
  };
  const all = <T>(key: string, templates: readonly Template[], read: (template: Template, path: string) => T): T[] =>
    templates.flatMap((template, index) => {
      const path = `${spec}${key}[${index}]`;
      return collect(path, () => read(template, path)) ?? [];
    });
  const id = collect(idPath, () => renderId(rule, facts, idPath, problems));
  const dnsNames = all('dnsNameTemplates', rule.dnsNameTemplates, (template, path) =>
    renderDnsName(template, facts, path, problems),
  );
  const selectors = all('workloadSelectorTemplates', rule.workloadSelectorTemplates, (template) =>
    parseSelector(render(template, facts)),
  );
  if (id === undefined || problems.length > 0) return { problems };
  return { entry: entryOf(rule, id, dnsNames, [podUidSelector(facts.pod.uid), ...selectors]) };
}

function entryOf(rule: PodRule, id: SpiffeId, dnsNames: readonly string[], selectors: readonly Selector[]): Entry {
  const { x509TtlMs, jwtTtlMs, hint } = rule;
  return { id, selectors: [...new Set(selectors)], x509TtlMs, jwtTtlMs, dnsNames: [...new Set(dnsNames)], hint, priority: 0 };
}

/** Only the default rule may leave the trust domain out: rules of others are read as SPIRE's controller manager reads them. */
function renderId(rule: PodRule, facts: Facts, path: string, problems: string[]): SpiffeId | undefined {
  const text = render(rule.idTemplate, facts, { oneSegment: true });
  const id = parseSpiffeId(rule.source === 'default' && text.startsWith('/') ? `spiffe://${facts.trustDomain}${text}` : text);
  if (trustDomainOf(id) !== facts.trustDomain)
    problems.push(`${path}: ${show(id)} is not in the trust domain ${facts.trustDomain}`);
  else if (pathOf(id) === '') problems.push(`${path}: ${show(id)} has no path, which the identity of a workload has`);
  return id;
}

function renderDnsName(template: Template, facts: Facts, path: string, problems: string[]): string {
  const name = render(template, facts);
  const allowed = brokenDnsName(name);
  if (allowed !== undefined) problems.push(`${path}: found ${show(name)}, allowed: ${allowed}`);
  return name;
}
