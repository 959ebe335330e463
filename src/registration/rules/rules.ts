import { entryKey, type Entry } from '../../spiffe/entry.ts';
import type { SpiffeId } from '../../spiffe/id.ts';
import { podUidSelector, type Selector } from '../../spiffe/selector.ts';
import type { Facts } from './facts.ts';
import { makeEntry } from './make-entry.ts';
import { ORDER_CLASSES, type OrderClass, type PodRule, type Rule, type RuleSource, type StaticRule } from './rule.ts';
import { select } from './select.ts';

/**
 * What became of a rule for one pod:
 * `applies`: it gives the pod an entry. `masked`: it would, but an earlier rule gives the same one. `failed`: it selects the pod
 * and cannot give it an entry (see `problems`). `unselected`: it means other pods. `superseded`: a fallback or the default, and
 * another rule selects the pod. `excluded`: the pod's namespace is. `undecided`: something is not known yet.
 * `caller`: a static entry, which depends on the caller, and none is meant.
 */
export type Outcome = 'applies' | 'masked' | 'failed' | 'unselected' | 'superseded' | 'excluded' | 'undecided' | 'caller';

/** What was decided of one rule, for `explain` and for the status of rules. */
export interface Decision {
  readonly rule: string;
  readonly source: RuleSource;
  readonly order: OrderClass;
  readonly outcome: Outcome;
  /** True for `applies` only. */
  readonly applies: boolean;
  /** For people: `namespace labels do not match: env In [prod] (it is "dev")`. */
  readonly why: string;
  /** With `applies` and `masked`. */
  readonly id?: SpiffeId;
  /** The selectors of the entry that `facts.selectors` lacks: it is for callers that have them too. */
  readonly missing?: readonly Selector[];
  /** With `failed`: each sentence begins with the path of the template. */
  readonly problems?: readonly string[];
}

/** An entry of the pod, with the rule that gives it. */
export interface RuleEntry extends Entry {
  readonly rule: string;
  readonly source: RuleSource;
  readonly order: OrderClass;
}

export interface Evaluation {
  /** In the order of `compareRuleEntries`; the first one that a caller has all selectors of is its default identity. */
  readonly entries: readonly RuleEntry[];
  /** One for each rule, in the order of their classes, then of their names. */
  readonly decisions: readonly Decision[];
  /** False while something is `undecided`: it must not be said then that the pod has no identity. */
  readonly complete: boolean;
}

export interface EvaluateOptions {
  /** Pods of these namespaces get nothing from ClusterSPIFFEIDs and the default rule; static entries name whom they mean. */
  readonly excludeNamespaces?: readonly string[];
}

interface Verdict {
  readonly rule: Rule;
  readonly outcome: Outcome;
  readonly why: string;
  readonly entry?: RuleEntry;
  readonly problems?: readonly string[];
}

/** These rules take the pod out of the reach of fallbacks and of the default, even where they fail: nobody else was meant. */
const SELECTS: ReadonlySet<Outcome> = new Set(['applies', 'masked', 'failed']);

/** Which rules apply to one pod, which entries they give it, and why. Depends on nothing but its arguments. */
export function evaluate(rules: readonly Rule[], facts: Facts, options: EvaluateOptions = {}): Evaluation {
  const excluded = options.excludeNamespaces?.includes(facts.pod.namespace) === true;
  const verdicts: Verdict[] = [];
  for (const rule of [...rules].sort(compareRules)) {
    if (rule.kind === 'static') verdicts.push(judgeStatic(rule, facts));
    else verdicts.push(excluded ? excludedFrom(rule, facts) : judge(rule, facts, verdicts));
  }
  const entries = verdicts.flatMap(({ entry }) => entry ?? []).sort(compareRuleEntries);
  const first = new Map<string, RuleEntry>();
  for (const entry of entries) if (!first.has(entryKey(entry))) first.set(entryKey(entry), entry);
  return {
    entries: [...first.values()],
    decisions: verdicts.map((verdict) => decisionOf(masked(verdict, first), facts)),
    complete: verdicts.every(({ outcome }) => outcome !== 'undecided'),
  };
}

/** By priority (the highest first), then by class, then by the bytes of the ID: the same on every node and after each restart. */
export function compareRuleEntries(a: RuleEntry, b: RuleEntry): number {
  return (
    b.priority - a.priority ||
    classOf(a) - classOf(b) ||
    compareBytes(a.id, b.id) ||
    compareBytes(entryKey(a), entryKey(b)) ||
    compareBytes(a.source, b.source) ||
    compareBytes(a.rule, b.rule)
  );
}

/** Entries of the configuration as rules, named by their place in it. */
export function configRules(entries: readonly Entry[]): readonly StaticRule[] {
  return entries.map((entry, index) => {
    const base = { source: 'config' as const, uid: '', generation: 0, order: 'static' as const, notes: [], federatesWith: [] };
    return { ...base, kind: 'static', name: `entries[${index}]`, entry };
  });
}

function judge(rule: PodRule, facts: Facts, before: readonly Verdict[]): Verdict {
  const { outcome, why } = select(rule, facts);
  if (outcome === 'unselected') return { rule, outcome, why };
  const instead = rule.order === 'fallback' || rule.order === 'default' ? steppedBack(rule, before) : undefined;
  if (instead !== undefined) return instead;
  if (outcome === 'undecided') return { rule, outcome, why };
  const { entry, problems } = makeEntry(rule, facts);
  if (problems !== undefined) return { rule, outcome: 'failed', why: `${why}; but ${problems.join('; ')}`, problems };
  return { rule, outcome: 'applies', why, entry: { ...entry, rule: rule.name, source: rule.source, order: rule.order } };
}

/** A fallback, or the default, where a rule that comes before it selects the pod or may do so. */
function steppedBack(rule: PodRule, before: readonly Verdict[]): Verdict | undefined {
  const others = before.filter((other) => other.rule.kind === 'pod' && other.rule.order !== rule.order);
  const selecting = others.find(({ outcome }) => SELECTS.has(outcome));
  if (selecting !== undefined) {
    const but = selecting.outcome === 'failed' ? ', although it fails' : '';
    return { rule, outcome: 'superseded', why: `${nameOf(selecting.rule)} selects the pod${but}` };
  }
  const open = others.find(({ outcome }) => outcome === 'undecided');
  return open && { rule, outcome: 'undecided', why: `it waits for ${nameOf(open.rule)}: ${open.why}` };
}

function excludedFrom(rule: PodRule, { pod }: Facts): Verdict {
  return { rule, outcome: 'excluded', why: `namespace ${pod.namespace} is among registration.excludeNamespaces` };
}

/** The entry is bound to the pod, so that two pods never share its key. */
function judgeStatic(rule: StaticRule, { pod, selectors }: Facts): Verdict {
  const { entry } = rule;
  // A container's user with the same number is someone else.
  if (entry.selectors.every((selector) => selector.startsWith('unix:'))) {
    return { rule, outcome: 'unselected', why: 'it has unix selectors only, which count for no caller in a pod' };
  }
  if (selectors === undefined) return { rule, outcome: 'caller', why: `it is for callers with ${entry.selectors.join(', ')}` };
  const missing = entry.selectors.filter((selector) => !selectors.includes(selector));
  if (missing.length > 0) return { rule, outcome: 'unselected', why: `the caller lacks ${missing.join(', ')}` };
  const bound = { ...entry, selectors: [...new Set([podUidSelector(pod.uid), ...entry.selectors])] };
  const why = `the caller has ${entry.selectors.join(', ')}`;
  return { rule, outcome: 'applies', why, entry: { ...bound, rule: rule.name, source: rule.source, order: rule.order } };
}

function masked(verdict: Verdict, first: ReadonlyMap<string, RuleEntry>): Verdict {
  const winner = verdict.entry && first.get(entryKey(verdict.entry));
  if (winner === undefined || winner === verdict.entry) return verdict;
  const name = nameOf({ source: winner.source, name: winner.rule });
  return { ...verdict, outcome: 'masked', why: `${verdict.why}; but ${name} gives the same identity first` };
}

function decisionOf({ rule, outcome, why, entry, problems }: Verdict, { pod, selectors }: Facts): Decision {
  const owned = new Set(selectors ?? []).add(podUidSelector(pod.uid));
  const missing = entry?.selectors.filter((selector) => !owned.has(selector)) ?? [];
  const only = missing.length === 0 ? '' : `; only for callers with ${missing.join(', ')}`;
  return {
    rule: rule.name,
    source: rule.source,
    order: rule.order,
    outcome,
    applies: outcome === 'applies',
    why: `${why}${only}`,
    ...(entry && { id: entry.id }),
    ...(missing.length > 0 && { missing }),
    ...(problems && { problems }),
  };
}

function nameOf({ source, name }: Pick<Rule, 'source' | 'name'>): string {
  if (source === 'default') return 'the default rule';
  return source === 'config' ? name : `${source} ${name}`;
}

function compareRules(a: Rule, b: Rule): number {
  return classOf(a) - classOf(b) || compareBytes(a.source, b.source) || compareNames(a, b);
}

/** `entries[10]` comes after `entries[9]`. */
function compareNames(a: Rule, b: Rule): number {
  return a.source === 'config' ? 0 : compareBytes(a.name, b.name);
}

function classOf({ order }: { readonly order: OrderClass }): number {
  return ORDER_CLASSES.indexOf(order);
}

/** IDs and names are ASCII, so that the order of their characters is that of their bytes. */
function compareBytes(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
