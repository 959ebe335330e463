import type { Pod } from '../kubernetes/pod.ts';
import type { Rule, StaticRule } from '../registration/rules/rule.ts';
import { evaluate, type Decision } from '../registration/rules/rules.ts';
import type { Selector } from '../spiffe/selector.ts';
import type { EntryVerdict, Explanation, RuleVerdict } from './messages.ts';
import type { RegistrationFacts } from './source.ts';

/** What every rule says of one caller, and the IDs that they give it. */
export interface Decided {
  readonly verdicts: Pick<Explanation, 'rules' | 'static_entries'>;
  readonly ids: ReadonlySet<string>;
}

/** For a caller in a pod; without a process, what it has as a user is not known. */
export function decideInside(
  registration: RegistrationFacts,
  pod: Pod,
  selectors: readonly Selector[],
  isProcess: boolean,
): Decided {
  const { rules, facts, options } = {
    rules: registration.rules(),
    facts: registration.facts(pod),
    options: registration.options,
  };
  const { decisions, entries } = evaluate(rules, { ...facts, selectors }, options);
  const fixed = new Map(
    rules.flatMap((rule) => (rule.kind === 'static' ? [[keyOf(rule.source, rule.name), rule] as const] : [])),
  );
  const verdicts: { rules: RuleVerdict[]; static_entries: EntryVerdict[] } = { rules: [], static_entries: [] };
  for (const decision of decisions) {
    const rule = fixed.get(keyOf(decision.source, decision.rule));
    if (rule === undefined) verdicts.rules.push(ruleVerdict(decision));
    else verdicts.static_entries.push(entryVerdict(rule, selectors, decision, isProcess));
  }
  return { verdicts, ids: new Set(entries.map(({ id }) => id)) };
}

/** For a process of the host: only static entries can mean it. */
export function decideOutside(rules: readonly Rule[], selectors: readonly Selector[]): Decided {
  const fixed = rules.filter((rule) => rule.kind === 'static');
  const verdicts = fixed.map((rule) => entryVerdict(rule, selectors, undefined, true));
  const ids = new Set(verdicts.flatMap(({ applies, spiffe_id: id }) => (applies ? [id] : [])));
  return { verdicts: { rules: [], static_entries: verdicts }, ids };
}

function keyOf(source: string, name: string): string {
  return `${source} ${name}`;
}

function ruleVerdict({ source, rule, applies, outcome, why, id, problems, missing = [] }: Decision): RuleVerdict {
  const isForOthers = missing.length > 0;
  return {
    kind: source,
    name: rule,
    applies: applies && !isForOthers,
    outcome,
    why,
    ...(id === undefined ? {} : { spiffe_id: id }),
    problems: problems ?? [],
  };
}

function entryVerdict(
  { source, name, entry }: StaticRule,
  selectors: readonly Selector[],
  decision: Decision | undefined,
  isProcess: boolean,
): EntryVerdict {
  const missing = entry.selectors.filter((selector) => !selectors.includes(selector));
  const about = {
    spiffe_id: entry.id,
    from: source === 'config' ? name : `${source} ${name}`,
    selectors: entry.selectors,
    missing,
  };
  const dependsOnProcess =
    !isProcess &&
    missing.length > 0 &&
    missing.length < entry.selectors.length &&
    missing.every((selector) => selector.startsWith('unix:'));
  if (dependsOnProcess) {
    return { ...about, applies: false, why: `it depends on the process, which must have ${missing.join(', ')}` };
  }
  if (decision !== undefined) return { ...about, applies: decision.applies, why: decision.why };
  return {
    ...about,
    applies: missing.length === 0,
    why: missing.length === 0 ? `the caller has ${entry.selectors.join(', ')}` : `the caller lacks ${missing.join(', ')}`,
  };
}
