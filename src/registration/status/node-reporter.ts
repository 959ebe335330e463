import type { Alarm, Clock } from '../../clock.ts';
import { messageOf } from '../../errors.ts';
import type { KubernetesClient } from '../../kubernetes/api-client.ts';
import { KubernetesError, hasStatus } from '../../kubernetes/api-error.ts';
import { objectAt, objectsAt, textAt, type JsonObject } from '../../kubernetes/json.ts';
import { ownedByNode } from '../../kubernetes/node-owner.ts';
import { NODE_REPORTS, apiVersionOf, pathOf, type Resource } from '../../kubernetes/resources.ts';
import type { Log } from '../../log.ts';
import type { Random } from '../../random.ts';
import { linesIn, linesOf, type RuleTally } from './tally.ts';

export interface NodeReporterOptions {
  readonly client: Pick<KubernetesClient, 'get' | 'apply'>;
  readonly nodeName: string;
  /** Who writes the report: the UID of the agent's pod. Told to people, and no reason to write anew. */
  readonly reporter: string;
  /**
   * `metadata.uid` of the Node, which owns the report: with the Node goes the report. Undefined where there is no such Node. May
   * reject; is asked before the first write and about once an hour.
   */
  readonly nodeUid: (signal: AbortSignal) => Promise<string | undefined>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log?: Log | undefined;
  /** Default `NODE_REPORTS`. */
  readonly resource?: Resource;
  /** Without a change before a write, default 5,000 ms, and up to twice as much more: a new rule concerns all nodes at once. */
  readonly quietMs?: number;
  /** At least this long between two writes, default 60,000 ms, and up to a fifth more at random. */
  readonly intervalMs?: number;
  /** How often the report is read, in case someone has removed or changed it, default one hour, moved by up to a quarter. */
  readonly verifyMs?: number;
}

const FIELD_MANAGER = 'signet-node-report';
const QUIET_MS = 5_000;
const INTERVAL_MS = 60_000;
const VERIFY_MS = 3_600_000;
/** Where the cluster lacks the CRD or refuses the write, the next attempts come ever later, up to this. */
const LONGEST_RETRY_MS = 900_000;

/**
 * Keeps the NodeReport of this node as the tallies say, with as few writes as that takes: only on a difference, after a quiet
 * time, at most once a minute. A report carries no time and no heartbeat, so that at rest nothing is written at all.
 */
export class NodeReporter {
  readonly #options: NodeReporterOptions;
  readonly #resource: Resource;
  readonly #path: string;
  readonly #stop = new AbortController();
  #wanted: readonly RuleTally[] | undefined;
  #wantedText = '';
  /** What the server has, in text; undefined before it was read. */
  #written: string | undefined;
  #owner: string | undefined;
  #alarm: Alarm | undefined;
  #writing: Promise<void> | undefined;
  /** When the first difference came that is not yet written; monotonic. */
  #differsSince: number | undefined;
  #notBefore = -Infinity;
  #failures = 0;
  #failure: string | undefined;
  #cut = 0;

  constructor(options: NodeReporterOptions) {
    this.#options = options;
    this.#resource = options.resource ?? NODE_REPORTS;
    this.#path = pathOf(this.#resource, options.nodeName);
  }

  /** All tallies of this node, also those that come to nothing. May be called as often as anything changes. */
  set(tallies: readonly RuleTally[]): void {
    const { lines, cut } = linesOf(tallies);
    this.#sayCut(cut);
    const text = JSON.stringify(lines);
    if (this.#wanted !== undefined && text === this.#wantedText) return;
    this.#wanted = lines;
    this.#wantedText = text;
    this.#plan();
  }

  /** Writes nothing any more. The report stays: the next agent of this node goes on with it. */
  async close(): Promise<void> {
    this.#stop.abort(new KubernetesError('stopped', 'the node reporter was closed'));
    this.#alarm?.cancel();
    await this.#writing;
  }

  #plan(): void {
    if (this.#writing !== undefined || this.#stop.signal.aborted) return;
    this.#alarm?.cancel();
    const { clock, random, quietMs = QUIET_MS, intervalMs = INTERVAL_MS, verifyMs = VERIFY_MS } = this.#options;
    if (this.#written === this.#wantedText) {
      this.#differsSince = undefined;
      // A read now and then finds a report that someone else has removed.
      this.#alarm = clock.after(verifyMs * (0.75 + 0.5 * random.fraction()), () => this.#verify());
      return;
    }
    const now = clock.monotonic();
    this.#differsSince ??= now;
    const quietAt = now + quietMs * (1 + 2 * random.fraction());
    const dueAt = Math.max(Math.min(quietAt, this.#differsSince + intervalMs), this.#notBefore);
    this.#alarm = clock.after(dueAt - now, () => this.#sync());
  }

  #verify(): void {
    this.#written = undefined;
    this.#sync();
  }

  #sync(): void {
    this.#writing = this.#bringUpToDate(this.#stop.signal).then(
      () => this.#worked(),
      (error: unknown) => this.#failed(error),
    );
    void this.#writing.then(() => {
      this.#writing = undefined;
      this.#plan();
    });
  }

  async #bringUpToDate(signal: AbortSignal): Promise<void> {
    this.#written ??= await this.#read(signal);
    if (this.#wanted === undefined || this.#written === this.#wantedText) return;
    const [text, spec] = [this.#wantedText, { reporter: this.#options.reporter, rules: this.#wanted }];
    this.#pause(this.#options.intervalMs ?? INTERVAL_MS);
    await this.#options.client.apply(this.#path, this.#object(spec), { fieldManager: FIELD_MANAGER, force: true, signal });
    this.#written = text;
    this.#differsSince = undefined;
  }

  /** The lines that the server has. A report that belongs to no Node, or to an earlier one, is written anew. */
  async #read(signal: AbortSignal): Promise<string> {
    this.#owner = await this.#options.nodeUid(signal).catch(() => this.#owner);
    try {
      const report = await this.#options.client.get(this.#path, { signal });
      const owners = objectsAt(objectAt(report, 'metadata'), 'ownerReferences').map((owner) => textAt(owner, 'uid'));
      const isOwned = this.#owner === undefined || owners.includes(this.#owner);
      return isOwned ? JSON.stringify(linesIn(report)) : 'owned by another';
    } catch (error) {
      // No report says the same as one without lines.
      if (hasStatus(error, 404)) return '[]';
      throw error;
    }
  }

  #object(spec: JsonObject): JsonObject {
    const { nodeName } = this.#options;
    const metadata = ownedByNode(nodeName, nodeName, this.#owner);
    return { apiVersion: apiVersionOf(this.#resource), kind: 'NodeReport', metadata, spec };
  }

  /** No write for `ms`, and up to a fifth more. */
  #pause(ms: number): void {
    const { clock, random } = this.#options;
    this.#notBefore = clock.monotonic() + ms * (1 + 0.2 * random.fraction());
  }

  #worked(): void {
    const { log } = this.#options;
    if (this.#failure !== undefined) log?.info({ event: 'node_report.recovered' }, 'the report of this node is right again');
    this.#failures = 0;
    this.#failure = undefined;
  }

  /** What the server has is uncertain then: an answer may have been lost. */
  #failed(error: unknown): void {
    if (this.#stop.signal.aborted) return;
    const reason = messageOf(error);
    const askedMs = error instanceof KubernetesError ? (error.retryAfterMs ?? 0) : 0;
    const waitMs = (this.#options.intervalMs ?? INTERVAL_MS) * 2 ** Math.min(this.#failures, 10);
    this.#failures += 1;
    this.#written = undefined;
    this.#pause(Math.max(Math.min(waitMs, LONGEST_RETRY_MS), Math.min(askedMs, LONGEST_RETRY_MS)));
    if (this.#failure === reason) return;
    this.#failure = reason;
    this.#options.log?.warn({ event: 'node_report.failed', reason }, `the report of this node cannot be written: ${reason}`);
  }

  #sayCut(cut: number): void {
    if (cut > 0 && this.#cut === 0) {
      const message = `the report of this node has no room for ${cut} rules; their status will count too few pods`;
      this.#options.log?.warn({ event: 'node_report.cut', count: cut }, message);
    }
    this.#cut = cut;
  }
}
