import type { Clock } from '../../clock.ts';
import type { KubernetesClient, ListWatch } from '../../kubernetes/api-client.ts';
import { LeaseElection } from '../../kubernetes/lease.ts';
import { nodeUidOf } from '../../kubernetes/node-owner.ts';
import type { Log } from '../../log.ts';
import type { Random } from '../../random.ts';
import { RuleStatusAggregator, STATUS_RESOURCES, type StatusResources } from './aggregator.ts';
import { NodeReporter } from './node-reporter.ts';
import type { RuleObject } from './rule-object.ts';
import type { RuleTally } from './tally.ts';

export type StatusClient = ListWatch & Pick<KubernetesClient, 'get' | 'create' | 'apply' | 'applyStatus'>;

export interface RuleStatusOptions {
  readonly client: StatusClient;
  readonly nodeName: string;
  /** UID of the agent's pod, or `host`. */
  readonly reporter: string;
  /** Of the agents: where their Lease is. */
  readonly namespace: string;
  /** By class, as the rules themselves are chosen. */
  readonly isOurs: (rule: RuleObject) => boolean;
  readonly namespacesSelected?: (rule: RuleObject) => number | undefined;
  /** Default: one GET of the Node before the first write, and about one an hour. */
  readonly nodeUid?: (signal: AbortSignal) => Promise<string | undefined>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log?: Log;
  /** Default `signet-rule-status`. */
  readonly leaseName?: string;
  readonly resources?: StatusResources;
}

export const RULE_STATUS_LEASE = 'signet-rule-status';

/**
 * What an agent does for the status of rules: it keeps the report of its own node and, while it holds the Lease, adds up the
 * reports of all. No agent writes to a rule but the holder.
 */
export class RuleStatus {
  readonly #reporter: NodeReporter;
  readonly #election: LeaseElection;
  #own: readonly RuleTally[] = [];

  constructor(options: RuleStatusOptions) {
    const { client, nodeName, namespace, clock, random, log, resources = STATUS_RESOURCES } = options;
    const nodeUid = options.nodeUid ?? ((signal) => nodeUidOf(client, nodeName, signal));
    this.#reporter = new NodeReporter({ ...options, nodeUid, resource: resources.reports });
    const aggregator = new RuleStatusAggregator({ ...options, resources, own: () => this.#own });
    this.#election = new LeaseElection({
      client,
      namespace,
      name: options.leaseName ?? RULE_STATUS_LEASE,
      // Not the pod's UID alone: outside of pods two agents could have the same name for themselves.
      identity: `${nodeName}_${random.bytes(6).toString('hex')}`,
      hold: (signal) => aggregator.run(signal),
      clock,
      random,
      log,
    });
  }

  get isHolder(): boolean {
    return this.#election.isHolder;
  }

  /**
   * The tallies of all rules that this node has evaluated, also of those that select nothing here. Call it whenever they may have
   * changed, however often; before the first call nothing is written.
   */
  set(tallies: readonly RuleTally[]): void {
    this.#own = tallies;
    this.#reporter.set(tallies);
  }

  start(): void {
    this.#election.start();
  }

  /** Gives the Lease back if it is ours; the report stays for the next agent of this node. Takes about 2 s at most. */
  async close(): Promise<void> {
    await Promise.all([this.#reporter.close(), this.#election.close()]);
  }
}
