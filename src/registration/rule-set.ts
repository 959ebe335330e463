import type { CustomObject } from '../kubernetes/cluster.ts';
import { parseClusterSpiffeId } from './rules/cluster-spiffe-id.ts';
import { parseClusterStaticEntry, type StaticEntryOptions } from './rules/cluster-static-entry.ts';
import { parseDefaultRule, type DefaultRuleOptions } from './rules/default-rule.ts';
import type { ParsedRule, PodRule, RefusedRule, StaticRule } from './rules/rule.ts';

export interface RuleSetOptions extends StaticEntryOptions {
  readonly defaultRule: DefaultRuleOptions;
}

/** All rules that count now, and those that count for nothing until they are put right. */
export interface RuleSet {
  readonly pods: readonly PodRule[];
  readonly statics: readonly StaticRule[];
  readonly refused: readonly RefusedRule[];
}

/** Reads the rules of the cluster and the default one. A rule of another class is not this agent's. */
export function readRules(spiffeIds: Iterable<CustomObject>, staticEntries: Iterable<CustomObject>, options: RuleSetOptions): RuleSet {
  const parsed: (ParsedRule | undefined)[] = [
    ...[...spiffeIds].map((object) => parseClusterSpiffeId(rawOf(object), options)),
    ...[...staticEntries].map((object) => parseClusterStaticEntry(rawOf(object), options)),
    parseDefaultRule(options.defaultRule),
  ];
  const rules = parsed.flatMap((one) => (one?.kind === 'rule' ? [one.rule] : []));
  return {
    pods: rules.filter((rule) => rule.kind === 'pod'),
    statics: rules.filter((rule) => rule.kind === 'static'),
    refused: parsed.flatMap((one) => (one?.kind === 'refused' ? [one.refused] : [])),
  };
}

function rawOf({ uid, name, generation, spec }: CustomObject): Readonly<Record<string, unknown>> {
  return { metadata: { uid, name, generation }, spec };
}
