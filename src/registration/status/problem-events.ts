import { createHash } from 'node:crypto';
import type { Clock } from '../../clock.ts';
import { messageOf } from '../../errors.ts';
import type { KubernetesClient } from '../../kubernetes/api-client.ts';
import { hasStatus } from '../../kubernetes/api-error.ts';
import type { JsonObject } from '../../kubernetes/json.ts';
import { EVENTS, apiVersionOf, namespacedPathOf } from '../../kubernetes/resources.ts';
import type { Log } from '../../log.ts';
import type { RuleObject } from './rule-object.ts';

export interface ProblemEventsOptions {
  readonly client: Pick<KubernetesClient, 'create'>;
  /** Who tells it, for people: the UID of the agent's pod. */
  readonly reporter: string;
  readonly clock: Clock;
  readonly log?: Log | undefined;
  /** Of the rules of one kind. */
  readonly apiVersionOf: (rule: RuleObject) => string;
}

interface Told {
  readonly generation: number;
  readonly problem: string | undefined;
  readonly at: number;
}

/** Events about objects without a namespace live here (Kubernetes refuses any other). */
const NAMESPACE = 'default';
/** An API server forgets an Event after an hour; a problem that lasts is told again a little later. */
const REPEAT_MS = 65 * 60_000;
/** Of one version of one rule the text may change with each pod. */
const LEAST_MS = 300_000;
const LONGEST_NAME = 253;

/**
 * Tells a rule's problem as a Kubernetes Event, which `kubectl describe` shows with the rule. Its name follows from rule and
 * problem: another holder that tells the same changes nothing.
 */
export class ProblemEvents {
  readonly #options: ProblemEventsOptions;
  readonly #told = new Map<string, Told>();
  #failure: string | undefined;

  constructor(options: ProblemEventsOptions) {
    this.#options = options;
  }

  /** True when `tell` would write. */
  isDue(rule: RuleObject, problem: string | undefined): boolean {
    const told = this.#told.get(rule.uid);
    if (told === undefined) return problem !== undefined;
    const age = this.#options.clock.monotonic() - told.at;
    if (told.problem === problem) return problem !== undefined && age >= REPEAT_MS;
    return told.generation !== rule.generation || age >= LEAST_MS;
  }

  /** Rejects only with the reason of `signal`. What cannot be told is tried again as if it had been told. */
  async tell(rule: RuleObject, problem: string | undefined, signal: AbortSignal): Promise<void> {
    const now = this.#options.clock.monotonic();
    if (problem === undefined) this.#told.delete(rule.uid);
    else this.#told.set(rule.uid, { generation: rule.generation, problem, at: now });
    try {
      await this.#options.client.create(namespacedPathOf(EVENTS, NAMESPACE), this.#event(rule, problem), { signal });
      this.#failure = undefined;
    } catch (error) {
      signal.throwIfAborted();
      if (!hasStatus(error, 409)) this.#fails(messageOf(error));
    }
  }

  /** Keeps only what was told of the rules with these UIDs. */
  retain(uids: ReadonlySet<string>): void {
    for (const uid of this.#told.keys()) if (!uids.has(uid)) this.#told.delete(uid);
  }

  #event(rule: RuleObject, problem: string | undefined): JsonObject {
    const { clock, reporter } = this.#options;
    const { kind, name, uid } = rule;
    return {
      apiVersion: apiVersionOf(EVENTS),
      kind: 'Event',
      metadata: { name: eventName(rule, problem), namespace: NAMESPACE },
      eventTime: new Date(clock.now()).toISOString().replace('Z', '000Z'),
      reportingController: 'signet.dev/agent',
      reportingInstance: reporter.slice(0, 128),
      regarding: { apiVersion: this.#options.apiVersionOf(rule), kind, name, uid },
      action: 'Evaluate',
      reason: problem === undefined ? 'RuleAccepted' : 'RuleProblem',
      type: problem === undefined ? 'Normal' : 'Warning',
      note: problem ?? 'no node reports a problem with this rule any more',
    };
  }

  #fails(reason: string): void {
    if (this.#failure === reason) return;
    this.#failure = reason;
    this.#options.log?.warn({ event: 'rule_event.failed', reason }, `a problem of a rule cannot be told as an Event: ${reason}`);
  }
}

function eventName({ name, uid, generation }: RuleObject, problem: string | undefined): string {
  const hash = createHash('sha256').update(JSON.stringify([uid, generation, problem ?? null])).digest('hex').slice(0, 16);
  // A name must not end in anything but a letter or a digit before the next dot.
  return `${name.slice(0, LONGEST_NAME - 17).replace(/[^a-z0-9]+$/, '')}.${hash}`;
}
