import type { Entry } from '../../spiffe/entry.ts';
import type { TrustDomain } from '../../spiffe/id.ts';
import type { LabelSelector } from './label-selector.ts';
import type { Problem } from './problems.ts';
import type { Template } from './syntax.ts';

/** Where a rule comes from. */
export type RuleSource = 'config' | 'ClusterStaticEntry' | 'ClusterSPIFFEID' | 'default';

/** After an explicit priority the classes decide, in this order: what says more exactly whom it means comes first. */
export const ORDER_CLASSES = ['static', 'pod-and-namespace', 'pod', 'namespace', 'all', 'fallback', 'default'] as const;
export type OrderClass = (typeof ORDER_CLASSES)[number];

interface RuleBase {
  /** Of the object; `entries[2]` in the configuration; `default`. */
  readonly name: string;
  readonly source: RuleSource;
  /** metadata.uid and metadata.generation of the object; '' and 0 for what is in the configuration. */
  readonly uid: string;
  readonly generation: number;
  readonly order: OrderClass;
  /** What is in the rule and does nothing here, for the operator. */
  readonly notes: readonly string[];
}

/** Gives pods an ID that is made from what they are. */
export interface PodRule extends RuleBase {
  readonly kind: 'pod';
  /** Undefined: pods of all namespaces. */
  readonly namespaceSelector: LabelSelector | undefined;
  /** Undefined: all pods. */
  readonly podSelector: LabelSelector | undefined;
  /** Only pods of these namespaces; empty: all. */
  readonly namespaces: readonly string[];
  readonly idTemplate: Template;
  readonly dnsNameTemplates: readonly Template[];
  readonly workloadSelectorTemplates: readonly Template[];
  /** Milliseconds; undefined: the agent's. */
  readonly x509TtlMs: number | undefined;
  readonly jwtTtlMs: number | undefined;
  readonly federatesWith: readonly TrustDomain[];
  readonly hint: string;
}

/** Gives the callers that have its selectors the ID that it names. */
export interface StaticRule extends RuleBase {
  readonly kind: 'static';
  readonly entry: Entry;
  readonly federatesWith: readonly TrustDomain[];
}

export type Rule = PodRule | StaticRule;

/** A rule that counts for nothing until it is put right. */
export interface RefusedRule {
  readonly name: string;
  readonly source: RuleSource;
  readonly uid: string;
  readonly generation: number;
  readonly problems: readonly Problem[];
}

/** What a ClusterSPIFFEID or ClusterStaticEntry turned out to be. `foreign`: of a class that is not this agent's. */
export type ParsedRule =
  | { readonly kind: 'rule'; readonly rule: Rule }
  | { readonly kind: 'refused'; readonly refused: RefusedRule }
  | { readonly kind: 'foreign'; readonly name: string; readonly className: string };

/** Which objects are this agent's: two programs can share a cluster's rules. */
export interface ClassOptions {
  /** Rules of this class count. */
  readonly className: string;
  /** And those that name none. */
  readonly watchClassless: boolean;
}
