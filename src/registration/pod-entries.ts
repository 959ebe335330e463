import type { Alarm, Clock } from '../clock.ts';
import type { Pod } from '../kubernetes/pod.ts';
import { entryKey } from '../spiffe/entry.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import { HeldEntries, type HoldOptions } from './held-entries.ts';
import { compareRuleEntries, type Decision, type Evaluation, type RuleEntry } from './rules/rules.ts';

/** Whoever may label a pod could otherwise give it as many identities as there are labels to write in the delay. */
const MOST_WITHDRAWN = 16;
/** A pod that changes more often is judged by its last state. */
const MOST_JUDGED = 4;
const JUDGED_PER_MS = 1_000;

/** What rules give to one pod, as long as it is known. */
export class PodEntries {
  readonly #evaluate: (pod: Pod) => Evaluation;
  readonly #clock: Clock;
  readonly #onJudged: () => void;
  readonly #held: HeldEntries<RuleEntry>;
  #pod: Pod;
  #isComplete = false;
  #hasNews = false;
  /** Monotonic milliseconds of the last judgements, the oldest first. */
  #judgedAt: readonly number[] = [];
  /** Set while the last state is still to be judged. */
  #alarm: Alarm | undefined;
  /** What each rule gave when that was last decided. */
  #given: ReadonlyMap<string, SpiffeId> = new Map();

  /** `onJudged` is called after a judgement that had to wait, and when entries have come to the end of their delay. */
  constructor(pod: Pod, evaluate: (pod: Pod) => Evaluation, options: HoldOptions, clock: Clock, onJudged: () => void) {
    this.#pod = pod;
    this.#evaluate = evaluate;
    this.#clock = clock;
    this.#onJudged = onJudged;
    this.#held = new HeldEntries({ ...options, mostWithdrawn: MOST_WITHDRAWN }, clock, () => this.#dropped());
    this.#judge();
  }

  /** As the pod was when it was last seen. */
  get pod(): Pod {
    return this.#pod;
  }

  get all(): readonly RuleEntry[] {
    return this.#held.all;
  }

  /** False while something is undecided, or the pod's last state was not judged yet. */
  get isSettled(): boolean {
    return this.#isComplete && this.#alarm === undefined;
  }

  /** True when the entries are others now, or whether they are all, than when it was last asked. */
  takeNews(): boolean {
    const hasNews = this.#hasNews;
    this.#hasNews = false;
    return hasNews;
  }

  /** Judges a pod that is not as it was. */
  see(pod: Pod): void {
    if (pod !== this.#pod) this.judge(pod);
  }

  /** Judges the pod now, or, after many judgements in a short time, as soon as it is its turn. */
  judge(pod: Pod): void {
    this.#pod = pod;
    if (this.#alarm !== undefined) return;
    const waitMs = this.#turnInMs();
    if (waitMs <= 0) return this.#judge();
    this.#alarm = this.#clock.after(waitMs, () => {
      this.#alarm = undefined;
      this.#judge();
      // Until now nobody was told for sure that there are none.
      this.#hasNews ||= this.#held.all.length === 0;
      this.#onJudged();
    });
  }

  close(): void {
    this.#alarm?.cancel();
    this.#held.close();
  }

  #turnInMs(): number {
    const [oldest] = this.#judgedAt;
    if (oldest === undefined || this.#judgedAt.length < MOST_JUDGED) return 0;
    return oldest + JUDGED_PER_MS - this.#clock.monotonic();
  }

  /** What is undecided gives nothing and takes nothing away. */
  #judge(): void {
    this.#judgedAt = [...this.#judgedAt, this.#clock.monotonic()].slice(-MOST_JUDGED);
    const { entries, decisions, complete } = this.#evaluate(this.#pod);
    const wasComplete = this.#isComplete;
    this.#isComplete = complete;
    const kept = this.#keptBeside(entries, decisions);
    const hasOthers = this.#held.replace(kept.length === 0 ? entries : [...entries, ...kept].sort(compareRuleEntries));
    this.#hasNews ||= hasOthers || wasComplete !== complete;
  }

  /** The entries by rules of which it cannot be said now what they give. A rule gives at most one identity. */
  #keptBeside(entries: readonly RuleEntry[], decisions: readonly Decision[]): readonly RuleEntry[] {
    const keys = new Set(entries.map(entryKey));
    const given = new Map<string, SpiffeId>();
    const undecided = new Set<SpiffeId>();
    for (const { source, rule, outcome, id } of decisions) {
      const name = `${source}/${rule}`;
      const last = outcome === 'undecided' ? this.#given.get(name) : id;
      if (last === undefined) continue;
      given.set(name, last);
      if (outcome === 'undecided') undecided.add(last);
    }
    this.#given = given;
    if (undecided.size === 0) return [];
    return this.#held.current.filter((entry) => undecided.has(entry.id) && !keys.has(entryKey(entry)));
  }

  #dropped(): void {
    this.#hasNews = true;
    this.#onJudged();
  }
}
