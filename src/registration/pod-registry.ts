import type { Clock } from '../clock.ts';
import type { EventBus } from '../events.ts';
import type { CustomObject, Needs } from '../kubernetes/cluster.ts';
import type { TextMap } from '../kubernetes/json.ts';
import type { KubernetesNode } from '../kubernetes/objects.ts';
import type { PodListener } from '../kubernetes/pod-index.ts';
import type { Pod } from '../kubernetes/pod.ts';
import type { Entry } from '../spiffe/entry.ts';
import { podUidOf, type Selector } from '../spiffe/selector.ts';
import { distinctIdentities, EntryRegistry } from './entry-registry.ts';
import type { HoldOptions } from './held-entries.ts';
import { PodEntries } from './pod-entries.ts';
import { countRules, type RuleCount } from './rule-counts.ts';
import { readRules, type RuleSet, type RuleSetOptions } from './rule-set.ts';
import { problemText } from './rules/problems.ts';
import type { Facts } from './rules/facts.ts';
import type { Rule } from './rules/rule.ts';
import { configRules, evaluate, type Evaluation } from './rules/rules.ts';
import { needsOf } from './rules/select.ts';
import type { RuleTally } from './status/tally.ts';

interface CustomObjects {
  /** True once all of them were told. */
  readonly synced: boolean;
  items(): Iterable<CustomObject>;
}

/** What is needed of the cluster as this node sees it. */
export interface ClusterView {
  readonly pods: { find(uid: string): Pod | undefined; listed(): Iterable<Pod>; onChange(listener: PodListener): () => void };
  readonly spiffeIds: CustomObjects | undefined;
  readonly staticEntries: CustomObjects | undefined;
  readonly node: KubernetesNode | undefined;
  /** True when the rules are known, and what they look at. */
  readonly knowsRules: boolean;
  readonly isSynced: boolean;
  namespaceLabels(name: string): TextMap | undefined;
  need(needs: Needs): void;
  onChange(listener: () => void): () => void;
}

export interface PodRegistryOptions extends RuleSetOptions, HoldOptions {
  readonly clusterName: string;
  readonly clusterDomain: string;
  readonly excludeNamespaces: readonly string[];
}

/** More pods than a node has; the one that was missed first is forgotten. */
const MOST_MISSED = 4_096;

/**
 * Which callers of a node of a cluster own which identities: the entries of the configuration, and what the cluster's rules give
 * to pods. Rules are evaluated here, on the node, so that a change is in force as soon as it is known.
 */
export class PodRegistry {
  readonly #options: PodRegistryOptions;
  readonly #cluster: ClusterView;
  readonly #clock: Clock;
  readonly #events: EventBus;
  readonly #listeners = new Set<() => void>();
  readonly #pods = new Map<string, PodEntries>();
  /** UIDs of pods that were asked for and are not known. */
  readonly #missed = new Set<string>();
  readonly #static: EntryRegistry;
  readonly #stops: readonly (() => void)[];
  /** Resolves when something has been judged anew. */
  #turn = Promise.withResolvers<void>();
  #isKnown = false;
  #isSynced = false;
  #configured: readonly Entry[];
  #rules: RuleSet = { pods: [], statics: [], refused: [] };

  constructor(entries: readonly Entry[], options: PodRegistryOptions, cluster: ClusterView, clock: Clock, events: EventBus) {
    this.#configured = entries;
    this.#options = options;
    this.#cluster = cluster;
    this.#clock = clock;
    this.#events = events;
    this.#static = new EntryRegistry(entries, options, clock, events);
    this.#stops = [
      this.#static.onChange(() => this.#tell()),
      cluster.pods.onChange((change, pod) => this.#podChanged(change, pod)),
      cluster.onChange(() => this.#read()),
    ];
    this.#read();
  }

  /** The rules that count, and those that are refused. */
  get rules(): RuleSet {
    return this.#rules;
  }

  /** How many entries count: of the configuration and of objects. */
  get size(): number {
    return this.#static.size;
  }

  /** All rules that count: the entries of the configuration, static ones, those for pods. */
  get allRules(): readonly Rule[] {
    return [...configRules(this.#configured), ...this.#rules.statics, ...this.#rules.pods];
  }

  /** The entries that a caller with these selectors owns; the first is its default identity. */
  match(selectors: readonly Selector[]): readonly Entry[] {
    const fixed = this.#static.match(selectors);
    const uid = podUidOf(selectors);
    if (uid === undefined) return fixed;
    const owned = new Set(selectors);
    const own = (this.#known(uid)?.all ?? []).filter((entry) => entry.selectors.every((selector) => owned.has(selector)));
    // Rules have no priority of their own: an entry with a higher one than theirs, or the same, comes first.
    const [first, last] = [fixed.filter(({ priority }) => priority >= 0), fixed.filter(({ priority }) => priority < 0)];
    return distinctIdentities([...first, ...own, ...last]);
  }

  /** Resolves when the rules are known, and what they look at as far as it matters for the pod of such a caller. */
  async whenKnown(selectors: readonly Selector[], signal: AbortSignal): Promise<void> {
    const uid = podUidOf(selectors);
    if (uid === undefined || this.#isDecided(uid)) return;
    const aborted = Promise.withResolvers<never>();
    aborted.promise.catch(() => undefined);
    const abort = (): void => aborted.reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    try {
      signal.throwIfAborted();
      while (!this.#isDecided(uid)) await Promise.race([this.#turn.promise, aborted.promise]);
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  /** False while "none" may only mean that something is not known yet: a rule, what it looks at, or the pod itself. */
  isComplete(selectors: readonly Selector[]): boolean {
    if (!this.#cluster.isSynced) return false;
    const uid = podUidOf(selectors);
    return uid === undefined || this.#known(uid)?.isSettled === true;
  }

  /** What each rule for pods says of one. */
  decide(pod: Pod): Evaluation {
    const { excludeNamespaces } = this.#options;
    return evaluate(this.#rules.pods, this.facts(pod), { excludeNamespaces });
  }

  /** What rules may ask of a pod. */
  facts(pod: Pod): Facts {
    const { trustDomain, clusterName, clusterDomain } = this.#options;
    return { trustDomain, clusterName, clusterDomain, pod, node: this.#cluster.node, namespaceLabels: this.#cluster.namespaceLabels(pod.namespace) };
  }

  /** What each rule comes to on this node: objects of the cluster, refused ones too, and the default rule. */
  counts(): readonly RuleCount[] {
    const { pods, spiffeIds, staticEntries } = this.#cluster;
    const objects = {
      ClusterSPIFFEID: [...(spiffeIds?.items() ?? [])],
      ClusterStaticEntry: [...(staticEntries?.items() ?? [])],
    };
    return countRules(this.#rules, objects, pods.listed(), (pod) => this.decide(pod).decisions);
  }

  /** The same of the objects alone, as they are reported. */
  tallies(): RuleTally[] {
    return this.counts().flatMap(({ className: _, kind, ...count }) => (kind === 'ClusterSPIFFEID' || kind === 'ClusterStaticEntry' ? [{ kind, ...count }] : []));
  }

  /** Takes `entries` for all that the configuration has. New ones count at once, missing ones after the delay. */
  replace(entries: readonly Entry[]): void {
    this.#configured = entries;
    this.#static.replace([...entries, ...this.#rules.statics.map(({ entry }) => entry)]);
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  close(): void {
    for (const stop of this.#stops) stop();
    for (const known of this.#pods.values()) known.close();
    this.#static.close();
  }

  /** A pod of which nothing is known does not wait: nobody may ever tell of it. */
  #isDecided(uid: string): boolean {
    return this.#knowsRules && (this.#known(uid)?.isSettled ?? true);
  }

  /** True when all rules are known, although what one of them looks at may not be. */
  get #knowsRules(): boolean {
    const { knowsRules, spiffeIds, staticEntries } = this.#cluster;
    return knowsRules || [spiffeIds, staticEntries].every((objects) => objects?.synced ?? true);
  }

  #known(uid: string): PodEntries | undefined {
    const pod = this.#cluster.pods.find(uid);
    // The hash of a static pod finds one with another UID: that is nobody's selector.
    if (pod?.uid !== uid) return this.#miss(uid);
    const known = this.#pods.get(uid);
    if (known === undefined) return this.#learn(pod);
    known.see(pod);
    return known;
  }

  #miss(uid: string): undefined {
    this.#missed.add(uid);
    const [oldest = ''] = this.#missed;
    if (this.#missed.size > MOST_MISSED) this.#missed.delete(oldest);
  }

  #learn(pod: Pod): PodEntries {
    this.#missed.delete(pod.uid);
    const known = new PodEntries(pod, (one) => this.decide(one), this.#options, this.#clock, () => this.#judged(known));
    known.takeNews();
    this.#pods.set(pod.uid, known);
    return known;
  }

  #podChanged(change: Parameters<PodListener>[0], pod: Pod): void {
    if (change === 'removed') return this.#forget(pod.uid);
    const known = this.#pods.get(pod.uid);
    if (known !== undefined) {
      known.see(pod);
      this.#judged(known);
    } else if (this.#missed.delete(pod.uid)) {
      this.#tell();
    }
  }

  #judged(known: PodEntries): void {
    this.#wake();
    if (known.takeNews()) this.#tell();
  }

  #forget(uid: string): void {
    const known = this.#pods.get(uid);
    this.#pods.delete(uid);
    this.#static.release(uid);
    known?.close();
    if (known === undefined) return;
    this.#wake();
    if (known.all.length > 0) this.#tell();
  }

  #read(): void {
    const { spiffeIds, staticEntries } = this.#cluster;
    const before = this.#rules;
    this.#rules = readRules(spiffeIds?.items() ?? [], staticEntries?.items() ?? [], this.#options);
    this.#tellRefused(before);
    const needs = needsOf(this.#rules.pods);
    this.#cluster.need({ annotations: needs.has('annotations'), namespaces: needs.has('namespaceLabels'), node: needs.has('node') });
    let isOther = this.#settle(this.#knowsRules, this.#cluster.isSynced);
    for (const known of [...this.#pods.values()]) {
      known.judge(this.#cluster.pods.find(known.pod.uid) ?? known.pod);
      isOther = known.takeNews() || isOther;
    }
    this.#wake();
    // It tells a change of its own.
    this.replace(this.#configured);
    if (isOther) this.#tell();
  }

  /** True when something is known now that was not, or not any more. */
  #settle(isKnown: boolean, isSynced: boolean): boolean {
    const isOther = isKnown !== this.#isKnown || isSynced !== this.#isSynced;
    this.#isKnown = isKnown;
    this.#isSynced = isSynced;
    return isOther;
  }

  /** Whoever waits looks again. */
  #wake(): void {
    this.#turn.resolve();
    this.#turn = Promise.withResolvers();
  }

  #tellRefused({ refused: before }: RuleSet): void {
    const known = new Set(before.map(({ uid, generation }) => `${uid}/${generation}`));
    for (const { source, name, uid, generation, problems } of this.#rules.refused) {
      if (!known.has(`${uid}/${generation}`)) this.#events.publish('ruleRefused', { kind: source, name, problem: problemText(problems) });
    }
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}
