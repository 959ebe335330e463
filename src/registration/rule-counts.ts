import type { CustomObject } from '../kubernetes/cluster.ts';
import type { Pod } from '../kubernetes/pod.ts';
import type { RuleSet } from './rule-set.ts';
import { problemText } from './rules/problems.ts';
import type { RuleSource } from './rules/rule.ts';
import type { Decision } from './rules/rules.ts';
import type { RuleTally } from './status/tally.ts';

/** What one rule comes to on this node. */
export interface RuleCount extends Omit<RuleTally, 'kind'> {
  readonly kind: RuleSource;
  /** '' for one without a class. */
  readonly className: string;
}

/** A count that is being added up. */
type Counted = { -readonly [K in keyof RuleCount]: RuleCount[K] };

/** The objects that rules are read from, where they are read from any. */
export type RuleObjects = Partial<Readonly<Record<RuleSource, readonly CustomObject[]>>>;

/** What each rule comes to for `pods`, those that are refused too. */
export function countRules(
  { pods: podRules, statics, refused }: RuleSet,
  objects: RuleObjects,
  pods: Iterable<Pod>,
  decide: (pod: Pod) => readonly Decision[],
): readonly RuleCount[] {
  const counted = new Map<string, Counted>();
  for (const rule of [...podRules, ...statics, ...refused]) {
    const problem = 'problems' in rule ? problemText(rule.problems) : undefined;
    const { source: kind, name, uid, generation } = rule;
    const className = classOf(objects[kind] ?? [], name);
    const none = { podsSelected: 0, podsFailed: 0, entriesMasked: 0 };
    counted.set(`${kind}/${name}`, { kind, name, className, uid, generation, ...none, problem });
  }
  for (const pod of pods) for (const decision of decide(pod)) count(decision, counted);
  return [...counted.values()];
}

function classOf(objects: readonly CustomObject[], name: string): string {
  const className = objects.find((object) => object.name === name)?.spec['className'];
  return typeof className === 'string' ? className : '';
}

function count({ source, rule, outcome, problems }: Decision, all: ReadonlyMap<string, Counted>): void {
  const counted = all.get(`${source}/${rule}`);
  if (counted === undefined || (outcome !== 'applies' && outcome !== 'masked' && outcome !== 'failed')) return;
  counted.podsSelected += 1;
  if (outcome === 'failed') counted.podsFailed += 1;
  if (outcome === 'masked') counted.entriesMasked += 1;
  counted.problem ??= problems?.[0];
}
