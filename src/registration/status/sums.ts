import { objectAt, objectsAt, textAt, type JsonObject } from '../../kubernetes/json.ts';
import type { RuleObject, StatusFields } from './rule-object.ts';
import { MOST_RULES, countsOf, shorten, type RuleTally, type TallyCounts } from './tally.ts';

/** What the holder keeps of a NodeReport. */
export interface Report {
  readonly nodeName: string;
  readonly tallies: readonly TallyCounts[];
}

/** One rule over all nodes. */
export interface RuleSum {
  readonly podsSelected: number;
  readonly podsFailed: number;
  readonly entriesMasked: number;
  /** Of the node that holds the Lease if it has one, else the one that most nodes tell. */
  readonly problem: string | undefined;
  /** Nodes that have told of an earlier version of the rule and not yet of this one. */
  readonly late: number;
}

/** More texts than this are not shared any more; they are rule UIDs and problems. */
const MOST_TEXTS = 4_096;

/**
 * For an informer on NodeReports. The same rule's UID comes in each node's report: the text is kept once. Lines beyond the bounds
 * that an agent keeps are dropped, whoever wrote them.
 */
export function reportTrim(): (raw: JsonObject) => Report | undefined {
  const texts = new Map<string, string>();
  const shared = (text: string): string => {
    const known = texts.get(text);
    if (known !== undefined) return known;
    if (texts.size >= MOST_TEXTS) texts.clear();
    texts.set(text, text);
    return text;
  };
  return (raw) => {
    const nodeName = textAt(objectAt(raw, 'metadata'), 'name');
    if (nodeName === '') return undefined;
    const lines = objectsAt(objectAt(raw, 'spec'), 'rules').slice(0, MOST_RULES);
    const tallies = lines.map(countsOf).map(({ uid, problem, ...counts }) => ({
      ...counts,
      uid: shared(uid),
      problem: problem === undefined ? undefined : shared(shorten(problem)),
    }));
    return Object.freeze({ nodeName, tallies });
  };
}

/** By the UID of the rule, the lines of all nodes but `ownNode`, whose lines are at hand. */
export function byRule(reports: Iterable<Report>, ownNode: string): Map<string, TallyCounts[]> {
  const found = new Map<string, TallyCounts[]>();
  for (const { nodeName, tallies } of reports) {
    if (nodeName === ownNode) continue;
    for (const tally of tallies) {
      const list = found.get(tally.uid);
      if (list === undefined) found.set(tally.uid, [tally]);
      else list.push(tally);
    }
  }
  return found;
}

/**
 * Adds up what the nodes say of a rule. Only lines of its present version count: those of an earlier one tell of failures that
 * may be mended. Undefined as long as the holder's own node has not evaluated this version: then nothing is known for sure.
 */
export function sumOf(rule: RuleObject, own: RuleTally | undefined, others: readonly TallyCounts[]): RuleSum | undefined {
  if (own === undefined || own.generation < rule.generation) return undefined;
  const current = others.filter(({ generation }) => generation >= rule.generation);
  const problems = current.map(({ problem }) => problem);
  return {
    podsSelected: total([own, ...current], 'podsSelected'),
    podsFailed: total([own, ...current], 'podsFailed'),
    entriesMasked: total([own, ...current], 'entriesMasked'),
    problem: own.problem === undefined || own.problem === '' ? mostFrequent(problems) : shorten(own.problem),
    late: others.length - current.length,
  };
}

/**
 * The status that SPIRE's schema has for it. `entryFailures` is 0: an entry that was rendered needs no server to accept it.
 *
 * @param namespacesSelected how many namespaces the rule selects, where that is known.
 */
export function statusOf(rule: RuleObject, sum: RuleSum, namespacesSelected: number | undefined): StatusFields {
  const { podsSelected, podsFailed, entriesMasked, problem } = sum;
  const rendered = Math.max(podsSelected - podsFailed, 0);
  if (rule.kind === 'ClusterSPIFFEID') {
    const entriesToSet = Math.max(rendered - entriesMasked, 0);
    const counts = { podsSelected, podEntryRenderFailures: podsFailed, entriesMasked, entriesToSet, entryFailures: 0 };
    return { namespacesSelected, ...counts };
  }
  const isRendered = problem === undefined && podsFailed === 0;
  const isMasked = entriesMasked > 0 && entriesMasked >= rendered;
  return { rendered: isRendered, masked: isMasked, set: isRendered && !isMasked };
}

function total(tallies: readonly TallyCounts[], key: 'podsSelected' | 'podsFailed' | 'entriesMasked'): number {
  return tallies.reduce((sum, tally) => sum + tally[key], 0);
}

/** Of equally frequent ones the first by its bytes, so that two holders choose alike. */
function mostFrequent(problems: readonly (string | undefined)[]): string | undefined {
  const counts = new Map<string, number>();
  for (const problem of problems) if (problem !== undefined) counts.set(problem, (counts.get(problem) ?? 0) + 1);
  const [first] = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
  return first?.[0];
}
