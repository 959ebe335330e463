import { messageOf } from '../errors.ts';
import type { KubernetesClient } from '../kubernetes/api-client.ts';
import type { TextMap } from '../kubernetes/json.ts';
import { trimNamespace, trimNode, type KubernetesNode } from '../kubernetes/objects.ts';
import { podTrim } from '../kubernetes/pod.ts';
import { NAMESPACES, NODES, PODS, onNode, pathOf } from '../kubernetes/resources.ts';
import type { Facts } from '../registration/rules/facts.ts';
import type { Rule } from '../registration/rules/rule.ts';
import { needsOf } from '../registration/rules/select.ts';

/** What asks the API server once. */
export type Asking = Pick<KubernetesClient, 'get' | 'list'>;

/** What proposed rules look at and the agent does not follow, since no rule that counts needs it. */
export class ExtraFacts {
  readonly #namespaceLabels = new Map<string, TextMap>();
  readonly #annotations = new Map<string, TextMap>();
  #node: KubernetesNode | undefined;
  /** What could not be had, as sentences. */
  readonly notes: string[] = [];

  /** Asks for what `rules` need. Never throws but for the signal's reason: what cannot be had stays unknown. */
  static async ask(rules: readonly Rule[], client: Asking, nodeName: string, signal: AbortSignal): Promise<ExtraFacts> {
    const facts = new ExtraFacts();
    const needs = needsOf(rules);
    await Promise.all([
      needs.has('namespaceLabels') && facts.#attempt('The labels of the namespaces', facts.#askNamespaces(client, signal)),
      needs.has('node') && facts.#attempt('The node', facts.#askNode(client, nodeName, signal)),
      needs.has('annotations') && facts.#attempt("The pods' annotations", facts.#askPods(client, nodeName, signal)),
    ]);
    signal.throwIfAborted();
    return facts;
  }

  /** `facts` with what they lack. */
  fill(facts: Facts): Facts {
    const { pod } = facts;
    return {
      ...facts,
      node: facts.node ?? this.#node,
      namespaceLabels: facts.namespaceLabels ?? this.#namespaceLabels.get(pod.namespace),
      pod: { ...pod, annotations: pod.annotations ?? this.#annotations.get(pod.uid) },
    };
  }

  async #attempt(what: string, asked: Promise<void>): Promise<void> {
    await asked.catch((error: unknown) => void this.notes.push(`${what} could not be read: ${messageOf(error)}.`));
  }

  async #askNamespaces(client: Asking, signal: AbortSignal): Promise<void> {
    await client.list(NAMESPACES, { signal }, (raw) => {
      const namespace = trimNamespace(raw);
      if (namespace !== undefined) this.#namespaceLabels.set(namespace.name, namespace.labels);
    });
  }

  async #askNode(client: Asking, nodeName: string, signal: AbortSignal): Promise<void> {
    this.#node = trimNode(await client.get(pathOf(NODES, nodeName), { signal }));
  }

  async #askPods(client: Asking, nodeName: string, signal: AbortSignal): Promise<void> {
    const trim = podTrim({ annotations: true });
    await client.list(PODS, { fieldSelector: onNode(nodeName), signal }, (raw) => {
      const pod = trim(raw);
      if (pod?.annotations !== undefined) this.#annotations.set(pod.uid, pod.annotations);
    });
  }
}
