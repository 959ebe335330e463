import { setImmediate } from 'node:timers/promises';
import { containerSelectors, podSelectors } from '../attestation/pod-selectors.ts';
import type { Clock } from '../clock.ts';
import type { Pod } from '../kubernetes/pod.ts';
import type { Facts } from '../registration/rules/facts.ts';
import type { Rule } from '../registration/rules/rule.ts';
import { evaluate, type Decision, type Evaluation } from '../registration/rules/rules.ts';
import type { DryRun, DryRunPod, DryRunRule } from './messages.ts';
import { applyRules, type ReadRule } from './proposed-rules.ts';
import { Refusal } from './refusal.ts';
import { readRuleFile } from './rule-file.ts';
import type { AdminSource, RegistrationFacts } from './source.ts';

/** Callers of the agent wait no longer than this for their turn while rules are tried. */
const SLICE_MS = 10;

const NOTES = [
  'Only rules and pods that this agent knows are taken into account; "entries" replaces all entries of the configuration.',
  'Entries that also ask for a user or group count only for processes that have it, and are not told here.',
] as const;

/** Tries rules on the pods of this node, as if they had been applied. Changes nothing. */
export class DryRunner {
  readonly #source: AdminSource;
  readonly #clock: Clock;
  #isBusy = false;

  constructor(source: AdminSource, clock: Clock) {
    this.#source = source;
    this.#clock = clock;
  }

  /** @throws Refusal `no_kubernetes`, `bad_rules`, `busy`; the signal's reason */
  async run(text: string, signal: AbortSignal): Promise<DryRun> {
    const { kubernetes, registration } = this.#source;
    if (kubernetes === undefined) {
      throw new Refusal('no_kubernetes', 'this agent does not attest pods', 'set attestation.kubernetes.enabled: true');
    }
    if (this.#isBusy) throw new Refusal('busy', 'another dry run is under way', 'try again');
    this.#isBusy = true;
    try {
      const before = registration.rules();
      const { rules: after, read } = applyRules(readRuleFile(text), before, registration.options);
      const counts = new Map<string, number>();
      const pods: DryRunPod[] = [];
      for await (const pod of this.#inSlices([...kubernetes.pods()], signal)) {
        pods.push(tryOn(pod, before, after, registration, counts));
      }
      pods.sort((a, b) => (`${a.namespace}/${a.name}` < `${b.namespace}/${b.name}` ? -1 : 1));
      return { rules: read.map((rule) => withCount(rule, counts)), pods, notes: NOTES };
    } finally {
      this.#isBusy = false;
    }
  }

  async *#inSlices(pods: readonly Pod[], signal: AbortSignal): AsyncIterable<Pod> {
    let begun = this.#clock.monotonic();
    for (const pod of pods) {
      if (this.#clock.monotonic() - begun >= SLICE_MS) {
        await setImmediate();
        begun = this.#clock.monotonic();
      }
      signal.throwIfAborted();
      yield pod;
    }
  }
}

function tryOn(
  pod: Pod,
  before: readonly Rule[],
  after: readonly Rule[],
  registration: RegistrationFacts,
  counts: Map<string, number>,
): DryRunPod {
  const selectors = [
    ...podSelectors(pod),
    ...pod.containers.flatMap((container) => (container.containerId === '' ? [] : containerSelectors(container))),
  ];
  const facts: Facts = { ...registration.facts(pod), selectors };
  const [now, then] = [evaluate(before, facts, registration.options), evaluate(after, facts, registration.options)];
  for (const decision of then.decisions) {
    if (isSelecting(decision)) counts.set(keyOf(decision), (counts.get(keyOf(decision)) ?? 0) + 1);
  }
  const ids = { now: idsOf(now), then: idsOf(then) };
  const changed = ids.now.length !== ids.then.length || ids.now.some((id, index) => id !== ids.then[index]);
  return { namespace: pod.namespace, name: pod.name, ...ids, changed, problems: problemsOf(now, then) };
}

function isSelecting({ outcome }: Decision): boolean {
  return outcome === 'applies' || outcome === 'masked';
}

function keyOf({ source, rule }: Pick<Decision, 'source' | 'rule'>): string {
  return `${source} ${rule}`;
}

function idsOf({ entries }: Evaluation): string[] {
  return [...new Set(entries.map(({ id }) => id))];
}

/** What would go wrong and does not yet, and what could not be told. */
function problemsOf(now: Evaluation, then: Evaluation): string[] {
  const failing = new Set(now.decisions.flatMap((decision) => (decision.outcome === 'failed' ? [keyOf(decision)] : [])));
  return then.decisions.flatMap((decision) => {
    const isNew = decision.outcome === 'failed' && !failing.has(keyOf(decision));
    return isNew || decision.outcome === 'undecided' ? [`${decision.source} ${decision.rule}: ${decision.why}`] : [];
  });
}

function withCount({ kind, name, ruleNames, change, problems }: ReadRule, counts: ReadonlyMap<string, number>): DryRunRule {
  const pods = ruleNames.reduce((most, rule) => Math.max(most, counts.get(rule) ?? 0), 0);
  return { kind, name, change, pods, problems };
}
