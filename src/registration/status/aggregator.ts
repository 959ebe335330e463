import { sleep, type Clock } from '../../clock.ts';
import { messageOf } from '../../errors.ts';
import type { KubernetesClient, ListWatch } from '../../kubernetes/api-client.ts';
import { KubernetesError, hasStatus } from '../../kubernetes/api-error.ts';
import { Informer } from '../../kubernetes/informer.ts';
import type { JsonObject } from '../../kubernetes/json.ts';
import { CLUSTER_SPIFFE_IDS, CLUSTER_STATIC_ENTRIES, NODE_REPORTS, apiVersionOf, pathOf } from '../../kubernetes/resources.ts';
import type { Resource } from '../../kubernetes/resources.ts';
import type { Log } from '../../log.ts';
import type { Random } from '../../random.ts';
import { ProblemEvents } from './problem-events.ts';
import { ruleTrim, says, statusObject, type RuleObject, type StatusFields } from './rule-object.ts';
import { byRule, reportTrim, statusOf, sumOf, type Report, type RuleSum } from './sums.ts';
import type { RuleKind, RuleTally } from './tally.ts';
import { DEFAULT_WRITE_LIMITS, WritePlan, type WritePlanLimits } from './write-plan.ts';

/** Where rules and reports are. */
export interface StatusResources {
  /** Not optional: without it the sums would be those of one node, and nothing is written. */
  readonly reports: Resource;
  readonly spiffeIds: Resource;
  readonly staticEntries: Resource;
}

export const STATUS_RESOURCES: StatusResources = {
  reports: NODE_REPORTS,
  spiffeIds: CLUSTER_SPIFFE_IDS,
  staticEntries: CLUSTER_STATIC_ENTRIES,
};

export interface AggregatorOptions {
  readonly client: ListWatch & Pick<KubernetesClient, 'applyStatus' | 'create'>;
  /** Of the holder itself: its lines come from `own`, not from its report. */
  readonly nodeName: string;
  /** UID of the holder's pod, for Events. */
  readonly reporter: string;
  /**
   * The tallies of the holder's own node: all rules that it has evaluated, also those that select nothing. The same array as long
   * as nothing has changed.
   */
  readonly own: () => readonly RuleTally[];
  /** Rules of another class are somebody else's, and so is their status. */
  readonly isOurs: (rule: RuleObject) => boolean;
  /** How many namespaces a ClusterSPIFFEID selects, where the holder knows. */
  readonly namespacesSelected?: ((rule: RuleObject) => number | undefined) | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly log?: Log | undefined;
  readonly resources?: StatusResources;
  readonly limits?: Partial<WritePlanLimits>;
}

const FIELD_MANAGER = 'signet-rule-status';
const TICK_MS = 2_000;
/** Without any change, for Events that the server has forgotten and writes that were refused. */
const IDLE_MS = 60_000;
/** Each write to a rule goes to every agent that watches rules. */
const PACE_MS = 500;
const MOST_WRITES = 20;
const SUSPICIOUS_TIMES = 3;

/** What `run` gathers about one rule. */
interface Finding {
  readonly rule: RuleObject;
  readonly sum: RuleSum;
  readonly wanted: StatusFields;
}

/**
 * Adds up the reports of all nodes and writes the sums to the status of the rules, only where they differ. For the one agent that
 * holds the Lease. Whatever two holders do at the same moment comes to the same.
 */
export class RuleStatusAggregator {
  readonly #options: AggregatorOptions;
  readonly #resources: StatusResources;
  /** HTTP statuses of refused writes that were said in this term. */
  readonly #said = new Set<number | undefined>();

  constructor(options: AggregatorOptions) {
    this.#options = options;
    this.#resources = options.resources ?? STATUS_RESOURCES;
  }

  /** Works until `signal` aborts; then resolves. */
  async run(signal: AbortSignal): Promise<void> {
    this.#said.clear();
    const { spiffeIds, staticEntries, reports } = this.#resources;
    const informers = {
      reports: this.#informer(reports, reportTrim()),
      spiffeIds: this.#informer(spiffeIds, ruleTrim('ClusterSPIFFEID')),
      staticEntries: this.#informer(staticEntries, ruleTrim('ClusterStaticEntry')),
    };
    const all = Object.values(informers);
    const closeAll = (): Promise<unknown> => Promise.all(all.map((informer) => informer.close()));
    // Closing rejects what waits for the first list.
    signal.addEventListener('abort', () => void closeAll(), { once: true });
    try {
      signal.throwIfAborted();
      for (const informer of all) informer.start();
      await Promise.all(all.map((informer) => informer.whenSynced()));
      await this.#follow(informers, signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      await closeAll();
    }
  }

  #informer<T>(resource: Resource, trim: (raw: JsonObject) => T | undefined): Informer<T> {
    const { client, clock, random, log } = this.#options;
    return new Informer({ client, resource, trim, clock, random, ...(log === undefined ? {} : { log }) });
  }

  async #follow(informers: Informers, signal: AbortSignal): Promise<void> {
    const { clock, reporter, client, log, limits } = this.#options;
    const plan = new WritePlan({ ...DEFAULT_WRITE_LIMITS, ...limits });
    const versionOf = ({ kind }: RuleObject): string => apiVersionOf(this.#resourceOf(kind));
    const events = new ProblemEvents({ client, reporter, clock, log, apiVersionOf: versionOf });
    let isDirty = true;
    let own: readonly RuleTally[] | undefined;
    let lookedAt = 0;
    for (const informer of Object.values(informers)) informer.onChange(() => (isDirty = true));
    for (;;) {
      const now = clock.monotonic();
      if (isDirty || plan.pending > 0 || own !== this.#options.own() || now - lookedAt >= IDLE_MS) {
        [isDirty, own, lookedAt] = [false, this.#options.own(), now];
        const findings = this.#findings(informers, own);
        const known = findings.map(({ rule }) => rule.uid);
        plan.retain(new Set([...known, ...known.map(problemKey)]));
        events.retain(new Set(known));
        await this.#tellProblems(findings, events, plan, signal);
        await this.#writeDue(findings, plan, signal);
      }
      await sleep(clock, TICK_MS, signal);
    }
  }

  #findings({ reports, spiffeIds, staticEntries }: Informers, own: readonly RuleTally[]): Finding[] {
    const { nodeName, isOurs, namespacesSelected } = this.#options;
    const others = byRule(reports.items(), nodeName);
    const ownByRule = new Map(own.map((tally) => [tally.uid, tally]));
    const findings: Finding[] = [];
    for (const rule of [...spiffeIds.items(), ...staticEntries.items()]) {
      if (!isOurs(rule)) continue;
      const sum = sumOf(rule, ownByRule.get(rule.uid), others.get(rule.uid) ?? []);
      if (sum !== undefined) findings.push({ rule, sum, wanted: statusOf(rule, sum, namespacesSelected?.(rule)) });
    }
    return findings;
  }

  async #writeDue(findings: readonly Finding[], plan: WritePlan, signal: AbortSignal): Promise<void> {
    const now = this.#options.clock.monotonic();
    const due = findings.filter(({ rule, sum, wanted }) => {
      if (!says(rule.status, wanted)) return plan.isDue(rule.uid, JSON.stringify(wanted), sum.late > 0, now);
      plan.isRight(rule.uid);
      return false;
    });
    // What is left is due in the next round, with what is known by then.
    for (const finding of due.slice(0, MOST_WRITES)) {
      await this.#write(finding, plan, signal);
      await sleep(this.#options.clock, PACE_MS, signal);
    }
  }

  async #write({ rule, wanted }: Finding, plan: WritePlan, signal: AbortSignal): Promise<void> {
    const { client, clock, log } = this.#options;
    const { kind, name, uid, resourceVersion } = rule;
    const resource = this.#resourceOf(kind);
    const times = plan.wrote(uid, JSON.stringify(wanted), clock.monotonic());
    // Only to the very version that was looked at: a successor may have the same name. (A UID is not compared for a status.)
    const metadata = { name, resourceVersion };
    const object = { apiVersion: apiVersionOf(resource), kind, metadata, status: statusObject(kind, wanted) };
    try {
      await client.applyStatus(pathOf(resource, name), object, { fieldManager: FIELD_MANAGER, force: true, signal });
      if (times !== SUSPICIOUS_TIMES) return;
      const message = `the status of ${kind} ${name} does not stay as it is written: does another program write it too?`;
      log?.warn({ event: 'rule_status.contested', path: name, count: times }, message);
    } catch (error) {
      signal.throwIfAborted();
      // The rule has changed or gone: the watch tells.
      if (!hasStatus(error, 404, 409)) this.#fails(error);
    }
  }

  /** Of a rule whose sum is still moving nothing is told yet. */
  async #tellProblems(findings: readonly Finding[], events: ProblemEvents, plan: WritePlan, signal: AbortSignal): Promise<void> {
    const now = this.#options.clock.monotonic();
    let told = 0;
    for (const { rule, sum } of findings) {
      const key = problemKey(rule.uid);
      if (!events.isDue(rule, sum.problem)) plan.isRight(key);
      else if (told < MOST_WRITES && plan.isDue(key, sum.problem ?? '', sum.late > 0, now)) {
        told += 1;
        plan.isRight(key);
        await events.tell(rule, sum.problem, signal);
      }
    }
  }

  #resourceOf(kind: RuleKind): Resource {
    return kind === 'ClusterSPIFFEID' ? this.#resources.spiffeIds : this.#resources.staticEntries;
  }

  #fails(error: unknown): void {
    const status = error instanceof KubernetesError ? error.status : undefined;
    if (this.#said.has(status)) return;
    this.#said.add(status);
    const reason = messageOf(error);
    this.#options.log?.warn({ event: 'rule_status.failed', reason }, `the status of a rule cannot be written: ${reason}`);
  }
}

interface Informers {
  readonly reports: Informer<Report>;
  readonly spiffeIds: Informer<RuleObject>;
  readonly staticEntries: Informer<RuleObject>;
}

function problemKey(uid: string): string {
  return `${uid}/problem`;
}
