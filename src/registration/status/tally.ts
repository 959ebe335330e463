import { objectAt, objectsAt, textAt, type JsonObject } from '../../kubernetes/json.ts';

export type RuleKind = 'ClusterSPIFFEID' | 'ClusterStaticEntry';

/** What one rule object comes to on one node. */
export interface RuleTally {
  readonly kind: RuleKind;
  readonly name: string;
  /** `metadata.uid` and `metadata.generation` of the object that was evaluated. */
  readonly uid: string;
  readonly generation: number;
  /** Pods of this node that the rule selects, those that failed and those that were masked included. */
  readonly podsSelected: number;
  /** Selected pods for which no valid entry could be made. */
  readonly podsFailed: number;
  /** Entries that an earlier rule has made already for the same pod. */
  readonly entriesMasked: number;
  /** Why the rule, or its entry for some pod, is refused. One line. */
  readonly problem?: string | undefined;
}

/** What the holder keeps of a report's line. */
export type TallyCounts = Omit<RuleTally, 'kind' | 'name'>;

/** Rules in one report. Those with failures go first. */
export const MOST_RULES = 512;
/** Bytes of a problem's text, in UTF-8. */
export const LONGEST_PROBLEM = 256;

/**
 * The lines of this node's report, bounded, in an order that does not depend on that of `tallies`. A rule that selects no pod
 * here has no line: what such a rule is refused for, every node says alike, and the holder of the Lease knows it by itself. So a
 * new rule costs a write only on the nodes that it concerns.
 */
export function linesOf(tallies: readonly RuleTally[]): { readonly lines: readonly RuleTally[]; readonly cut: number } {
  const told = tallies.filter(({ podsSelected, podsFailed, entriesMasked }) => podsSelected + podsFailed + entriesMasked > 0);
  const kept = told.sort((a, b) => b.podsFailed - a.podsFailed || compare(a, b)).slice(0, MOST_RULES);
  return { lines: kept.sort(compare).map(lineOf), cut: told.length - kept.length };
}

/** The lines of a NodeReport as the server has it, in the form in which they are compared. */
export function linesIn(report: JsonObject): readonly RuleTally[] {
  return objectsAt(objectAt(report, 'spec'), 'rules').map((raw) =>
    lineOf({ kind: textAt(raw, 'kind') as RuleKind, name: textAt(raw, 'name'), ...countsOf(raw) }),
  );
}

/** The counts in one line. What is no number counts as 0. */
export function countsOf(raw: JsonObject): TallyCounts {
  return {
    uid: textAt(raw, 'uid'),
    generation: countAt(raw, 'generation'),
    podsSelected: countAt(raw, 'podsSelected'),
    podsFailed: countAt(raw, 'podsFailed'),
    entriesMasked: countAt(raw, 'entriesMasked'),
    problem: textAt(raw, 'problem') || undefined,
  };
}

/** One printable line of at most `most` bytes. */
export function shorten(text: string, most = LONGEST_PROBLEM): string {
  const line = text.replaceAll(/[\s\p{Cc}\p{Cs}]+/gu, ' ').trim();
  const bytes = Buffer.from(line);
  if (bytes.length <= most) return line;
  // A character that is cut in two becomes U+FFFD at the end.
  return `${bytes.subarray(0, most - 3).toString('utf8').replace(/\uFFFD$/, '')}…`;
}

/** Always with the same members in the same order. */
function lineOf(tally: RuleTally): RuleTally {
  const { kind, name, uid, generation, podsSelected, podsFailed, entriesMasked, problem } = tally;
  const line = { kind, name, uid, generation, podsSelected, podsFailed, entriesMasked };
  return problem === undefined || problem === '' ? line : { ...line, problem: shorten(problem) };
}

function countAt(raw: JsonObject, key: string): number {
  const value = raw[key];
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0 ? value : 0;
}

function compare(a: RuleTally, b: RuleTally): number {
  return compareText(a.kind, b.kind) || compareText(a.name, b.name) || compareText(a.uid, b.uid);
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
