import { setImmediate } from 'node:timers/promises';
import { containerSelectors, podSelectors } from '../attestation/pod-selectors.ts';
import type { Clock } from '../clock.ts';
import type { Container, Pod } from '../kubernetes/pod.ts';
import type { Facts } from '../registration/rules/facts.ts';
import type { Rule } from '../registration/rules/rule.ts';
import { evaluate, type Decision, type EvaluateOptions, type Evaluation } from '../registration/rules/rules.ts';
import type { Selector } from '../spiffe/selector.ts';
import { ExtraFacts } from './extra-facts.ts';
import type { DryRun, DryRunPod, DryRunRule } from './messages.ts';
import { applyRules, type ReadRule } from './proposed-rules.ts';
import { Refusal } from './refusal.ts';
import { readRuleFile, type RuleDocument } from './rule-file.ts';
import type { AdminSource, KubernetesFacts, RegistrationFacts } from './source.ts';

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
      return await this.#try(readRuleFile(text), kubernetes, registration, signal);
    } finally {
      this.#isBusy = false;
    }
  }

  async #try(
    documents: readonly RuleDocument[],
    { client, nodeName, pods }: KubernetesFacts,
    registration: RegistrationFacts,
    signal: AbortSignal,
  ): Promise<DryRun> {
    const before = registration.rules();
    const { rules: after, read } = applyRules(documents, before, registration.options);
    const extra = client === undefined ? undefined : await ExtraFacts.ask(after, client, nodeName, signal);
    const trial = new Trial(before, after, registration.options);
    const tried: DryRunPod[] = [];
    for await (const pod of this.#inSlices([...pods()], signal)) {
      const facts = registration.facts(pod);
      tried.push(trial.tryOn(pod, extra?.fill(facts) ?? facts));
    }
    tried.sort((a, b) => (`${a.namespace}/${a.name}` < `${b.namespace}/${b.name}` ? -1 : 1));
    return { rules: read.map((rule) => trial.withCount(rule)), pods: tried, notes: [...(extra?.notes ?? []), ...NOTES] };
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

/** Two sets of rules, held against one pod after the other. */
class Trial {
  readonly #before: readonly Rule[];
  readonly #after: readonly Rule[];
  readonly #options: EvaluateOptions;
  /** Pods of each rule, by `<source> <name>`. */
  readonly #counts = new Map<string, number>();

  constructor(before: readonly Rule[], after: readonly Rule[], options: EvaluateOptions) {
    this.#before = before;
    this.#after = after;
    this.#options = options;
  }

  tryOn(pod: Pod, facts: Facts): DryRunPod {
    const selectors = [...podSelectors(pod), ...pod.containers.flatMap(selectorsOf)];
    const now = evaluate(this.#before, { ...facts, selectors }, this.#options);
    const then = evaluate(this.#after, { ...facts, selectors }, this.#options);
    for (const decision of then.decisions) {
      if (isSelecting(decision)) this.#counts.set(keyOf(decision), (this.#counts.get(keyOf(decision)) ?? 0) + 1);
    }
    const had = idsOf(now);
    // What is undecided takes nothing away.
    const ids = then.complete ? idsOf(then) : [...new Set([...idsOf(then), ...had])];
    const changed = had.length !== ids.length || had.some((id, index) => id !== ids[index]);
    return { namespace: pod.namespace, name: pod.name, now: had, then: ids, changed, problems: problemsOf(now, then) };
  }

  withCount({ kind, name, ruleNames, change, problems }: ReadRule): DryRunRule {
    const pods = ruleNames.reduce((most, rule) => Math.max(most, this.#counts.get(rule) ?? 0), 0);
    return { kind, name, change, pods, problems };
  }
}

/** Entries for one container of the pod count as its own. */
function selectorsOf(container: Container): Selector[] {
  return container.containerId === '' ? [] : containerSelectors(container);
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
    const isOpen = decision.outcome === 'undecided' && decision.source !== 'default';
    return isNew || isOpen ? [`${decision.source} ${decision.rule}: ${decision.why}`] : [];
  });
}
