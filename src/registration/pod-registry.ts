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
import { HeldEntries, type HoldOptions } from './held-entries.ts';
import { readRules, type RuleSet, type RuleSetOptions } from './rule-set.ts';
import { problemText } from './rules/problems.ts';
import type { Facts } from './rules/facts.ts';
import type { Rule, RuleSource } from './rules/rule.ts';
import { configRules, evaluate, type Evaluation } from './rules/rules.ts';
import { needsOf } from './rules/select.ts';
import type { RuleTally } from './status/tally.ts';

/** What is needed of the cluster as this node sees it. */
export interface ClusterView {
  readonly pods: { find(uid: string): Pod | undefined; listed(): Iterable<Pod>; onChange(listener: PodListener): () => void };
  readonly spiffeIds: { items(): Iterable<CustomObject> } | undefined;
  readonly staticEntries: { items(): Iterable<CustomObject> } | undefined;
  readonly node: KubernetesNode | undefined;
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

/** What one rule comes to on this node. */
export interface RuleCount extends Omit<RuleTally, 'kind'> {
  readonly kind: RuleSource;
  /** '' for one without a class. */
  readonly className: string;
}

interface Known {
  /** As the pod was when the entries were worked out. */
  pod: Pod;
  complete: boolean;
  readonly held: HeldEntries;
}

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
  readonly #pods = new Map<string, Known>();
  readonly #static: EntryRegistry;
  readonly #stops: readonly (() => void)[];
  #knowing = Promise.withResolvers<void>();
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
    const own = this.#entriesOf(uid).filter((entry) => entry.selectors.every((selector) => owned.has(selector)));
    // Rules have no priority of their own: an entry with a higher one than theirs, or the same, comes first.
    const [first, last] = [fixed.filter(({ priority }) => priority >= 0), fixed.filter(({ priority }) => priority < 0)];
    return distinctIdentities([...first, ...own, ...last]);
  }

  /** Resolves when the rules are known, if they matter for such a caller. */
  async whenKnown(selectors: readonly Selector[], signal: AbortSignal): Promise<void> {
    if (this.#cluster.knowsRules || podUidOf(selectors) === undefined) return;
    const aborted = Promise.withResolvers<never>();
    const abort = (): void => aborted.reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    await Promise.race([this.#knowing.promise, aborted.promise]).finally(() => signal.removeEventListener('abort', abort));
  }

  /** False while "none" may only mean that something is not known yet. */
  isComplete(selectors: readonly Selector[]): boolean {
    if (!this.#cluster.isSynced) return false;
    const uid = podUidOf(selectors);
    return uid === undefined || (this.#pods.get(uid)?.complete ?? true);
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
    const counted = new Map<string, Counted>();
    for (const rule of [...this.#rules.pods, ...this.#rules.statics, ...this.#rules.refused]) {
      const problem = 'problems' in rule ? problemText(rule.problems) : undefined;
      const { source: kind, name, uid, generation } = rule;
      const className = this.#classOf(kind, name);
      counted.set(`${kind}/${name}`, { kind, name, className, uid, generation, podsSelected: 0, podsFailed: 0, entriesMasked: 0, problem });
    }
    for (const pod of this.#cluster.pods.listed()) this.#count(pod, counted);
    return [...counted.values()];
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
    for (const { held } of this.#pods.values()) held.close();
    this.#static.close();
  }

  #entriesOf(uid: string): readonly Entry[] {
    const pod = this.#cluster.pods.find(uid);
    const known = this.#pods.get(uid);
    if (pod === undefined) return known?.held.all ?? [];
    if (known === undefined) return this.#learn(pod).held.all;
    if (known.pod !== pod) this.#evaluate(known, pod);
    return known.held.all;
  }

  #learn(pod: Pod): Known {
    const known: Known = { pod, complete: false, held: new HeldEntries(this.#options, this.#clock, () => this.#tell()) };
    this.#pods.set(pod.uid, known);
    this.#evaluate(known, pod);
    return known;
  }

  /** True when the pod's entries are others now. What is undecided gives nothing and takes nothing away. */
  #evaluate(known: Known, pod: Pod): boolean {
    const { entries, complete } = this.decide(pod);
    known.pod = pod;
    known.complete = complete;
    if (complete) return known.held.replace(entries);
    const added = new Set(entries.map(({ id }) => id));
    return known.held.replace([...entries, ...known.held.all.filter(({ id }) => !added.has(id))]);
  }

  #podChanged(change: Parameters<PodListener>[0], pod: Pod): void {
    const known = this.#pods.get(pod.uid);
    if (change === 'removed') {
      known?.held.close();
      this.#pods.delete(pod.uid);
      this.#static.release(pod.uid);
    } else if (known !== undefined && this.#evaluate(known, pod)) {
      this.#tell();
    }
  }

  #read(): void {
    const { spiffeIds, staticEntries } = this.#cluster;
    const before = this.#rules;
    this.#rules = readRules(spiffeIds?.items() ?? [], staticEntries?.items() ?? [], this.#options);
    this.#tellRefused(before);
    const needs = needsOf(this.#rules.pods);
    this.#cluster.need({ annotations: needs.has('annotations'), namespaces: needs.has('namespaceLabels'), node: needs.has('node') });
    let isOther = this.#settle(this.#cluster.knowsRules, this.#cluster.isSynced);
    for (const known of [...this.#pods.values()]) {
      const wasComplete = known.complete;
      const hasOthers = this.#evaluate(known, this.#cluster.pods.find(known.pod.uid) ?? known.pod);
      isOther ||= hasOthers || known.complete !== wasComplete;
    }
    // It tells a change of its own.
    this.replace(this.#configured);
    if (isOther) this.#tell();
  }

  /** A new rule may look at what is not followed yet: then whoever comes waits again. True when something is known now, or not any more. */
  #settle(isKnown: boolean, isSynced: boolean): boolean {
    const isOther = isKnown !== this.#isKnown || isSynced !== this.#isSynced;
    if (isKnown) this.#knowing.resolve();
    else if (this.#isKnown) this.#knowing = Promise.withResolvers();
    this.#isKnown = isKnown;
    this.#isSynced = isSynced;
    return isOther;
  }

  #tellRefused({ refused: before }: RuleSet): void {
    const known = new Set(before.map(({ uid, generation }) => `${uid}/${generation}`));
    for (const { source, name, uid, generation, problems } of this.#rules.refused) {
      if (!known.has(`${uid}/${generation}`)) this.#events.publish('ruleRefused', { kind: source, name, problem: problemText(problems) });
    }
  }

  #classOf(kind: RuleSource, name: string): string {
    const { spiffeIds, staticEntries } = this.#cluster;
    const objects = kind === 'ClusterSPIFFEID' ? spiffeIds : kind === 'ClusterStaticEntry' ? staticEntries : undefined;
    const className = [...(objects?.items() ?? [])].find((object) => object.name === name)?.spec['className'];
    return typeof className === 'string' ? className : '';
  }

  #count(pod: Pod, all: ReadonlyMap<string, Counted>): void {
    for (const { source, rule, outcome, problems } of this.decide(pod).decisions) {
      const counted = all.get(`${source}/${rule}`);
      if (counted === undefined || (outcome !== 'applies' && outcome !== 'masked' && outcome !== 'failed')) continue;
      counted.podsSelected += 1;
      if (outcome === 'failed') counted.podsFailed += 1;
      if (outcome === 'masked') counted.entriesMasked += 1;
      counted.problem ??= problems?.[0];
    }
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

/** A count that is being added up. */
type Counted = { -readonly [K in keyof RuleCount]: RuleCount[K] };
