import { beginsAsId } from './cluster-spiffe-id.ts';
import { show } from './problems.ts';
import type { PodRule, RefusedRule } from './rule.ts';
import { SpecReader } from './spec.ts';

/** `registration.defaultRule` of the configuration. */
export interface DefaultRuleOptions {
  readonly enabled: boolean;
  /** The path of the ID with its leading slash, or the whole ID. */
  readonly template: string;
  /** Only pods of these namespaces; empty: all. */
  readonly namespaces: readonly string[];
}

export type ParsedDefaultRule =
  { readonly kind: 'rule'; readonly rule: PodRule } | { readonly kind: 'refused'; readonly refused: RefusedRule };

/** The rule for pods that no other rule selects; undefined when it is switched off. Its order is the last of all. */
export function parseDefaultRule({ enabled, template: text, namespaces }: DefaultRuleOptions): ParsedDefaultRule | undefined {
  if (!enabled) return undefined;
  const base = { name: 'default', source: 'default' as const, uid: '', generation: 0 };
  const reader = new SpecReader('registration.defaultRule', { template: text });
  const idTemplate = reader.template(text, 'template');
  const [first] = idTemplate?.nodes ?? [];
  const isPath = first?.kind === 'text' && first.text.startsWith('/');
  if (idTemplate !== undefined && !isPath && !beginsAsId(idTemplate)) {
    reader.refuse('template', show(text), 'a template that begins with "/" (a path) or "spiffe://" (a whole ID)');
  }
  if (idTemplate === undefined || reader.problems.length > 0)
    return { kind: 'refused', refused: { ...base, problems: reader.problems } };
  return {
    kind: 'rule',
    rule: {
      ...base,
      kind: 'pod',
      order: 'default',
      notes: [],
      podSelector: undefined,
      namespaceSelector: undefined,
      namespaces,
      idTemplate,
      dnsNameTemplates: [],
      workloadSelectorTemplates: [],
      x509TtlMs: undefined,
      jwtTtlMs: undefined,
      federatesWith: [],
      hint: '',
    },
  };
}
