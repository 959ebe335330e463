import type { Entry } from '../spiffe/entry.ts';
import { identityFacts, podFact, selectorFacts } from './facts.ts';
import { findContainer, findProcess, type Found } from './found.ts';
import type { Answer, Explanation, ProcessFact } from './messages.ts';
import { isStill, noSuchProcess, readProcess } from './process.ts';
import { Refusal } from './refusal.ts';
import type { AdminSource, KubernetesFacts } from './source.ts';
import { decideInside, decideOutside } from './verdicts.ts';

/** Works out, step by step as for a call, what a process or a pod owns and why. Attests nobody and issues nothing. */
export class Explainer {
  readonly #source: AdminSource;

  constructor(source: AdminSource) {
    this.#source = source;
  }

  /** @throws Refusal `no_such_process`, `failed`; the signal's reason */
  async process(pid: number, signal: AbortSignal): Promise<Explanation> {
    const asked = readProcess(pid);
    const snapshot = asked.process === pid ? asked : readProcess(asked.process);
    const found = await findProcess(snapshot.fact, this.#source, signal);
    signal.throwIfAborted();
    if (!isStill(snapshot)) throw noSuchProcess(snapshot.fact.pid);
    const explanation = this.#explain(found, snapshot.fact);
    if (asked === snapshot) return explanation;
    const note = `${pid} is a thread of process ${asked.process}; this is about the process.`;
    return { ...explanation, notes: [note, ...explanation.notes] };
  }

  /** @throws Refusal `no_kubernetes`, `no_such_pod`, `no_such_container`, `not_ready` */
  async pod(namespace: string, name: string, container: string | undefined, signal: AbortSignal): Promise<Explanation> {
    const { kubernetes } = this.#source;
    if (kubernetes === undefined) {
      const next = 'set attestation.kubernetes.enabled: true, or ask about a process: --pid N';
      throw new Refusal('no_kubernetes', 'this agent does not attest pods', next);
    }
    const pods = [...kubernetes.pods()].filter((pod) => pod.namespace === namespace && pod.name === name);
    const pod = pods.find(({ deletionTimestamp }) => deletionTimestamp === undefined) ?? pods[0];
    if (pod === undefined) throw await this.#noSuchPod(kubernetes, namespace, name, signal);
    return this.#explain(findContainer(pod, container, pods.length), undefined);
  }

  #explain(found: Found, process: ProcessFact | undefined): Explanation {
    const { placement, pod, container, selectors, refused, notes } = found;
    const subject = {
      placement,
      ...(process === undefined ? {} : { process }),
      ...(pod === undefined ? {} : { pod: podFact(pod) }),
      ...(container === undefined ? {} : { container: container.name }),
    };
    const known = { subject, selectors: selectorFacts(selectors, { pid: process?.pid, pod, container }) };
    if (refused === undefined) return { ...known, ...this.#owned(found, process !== undefined) };
    return { ...known, rules: [], static_entries: [], identities: [], answer: { kind: 'refused', why: refused }, notes };
  }

  #owned({ selectors, pod, notes }: Found, isProcess: boolean): Omit<Explanation, 'subject' | 'selectors'> {
    const { registration } = this.#source;
    const entries = registration.match(selectors);
    const isComplete = registration.isComplete?.(selectors) ?? true;
    const { verdicts, ids } =
      pod === undefined ? decideOutside(registration.rules(), selectors) : decideInside(registration, pod, selectors, isProcess);
    const stale = pod === undefined ? [] : entries.filter(({ id }) => !ids.has(id));
    return {
      ...verdicts,
      identities: identityFacts(entries, this.#source),
      answer: answerOf(entries, isComplete),
      notes: [...notes, ...stale.map(({ id }) => `No rule gives ${id} any more: it is about to be withdrawn.`)],
    };
  }

  async #noSuchPod(kubernetes: KubernetesFacts, namespace: string, name: string, signal: AbortSignal): Promise<Refusal> {
    if (this.#source.status().pods?.synced === false) {
      const next = 'is the API server reachable from the agent? See "signet status"';
      return new Refusal('not_ready', "the list of this node's pods is not complete yet", next);
    }
    // Only a help: without it the answer is as true.
    const node = await kubernetes.locate?.(namespace, name, signal).catch(() => undefined);
    const here = `there is no pod ${namespace}/${name} on this node (${kubernetes.nodeName})`;
    if (node === '') {
      return new Refusal(
        'no_such_pod',
        `${here}: it is not bound to a node yet`,
        `see "kubectl describe pod -n ${namespace} ${name}"`,
      );
    }
    if (node !== undefined && node !== kubernetes.nodeName) {
      return new Refusal('no_such_pod', `${here}: it runs on node ${node}`, `ask the agent of node ${node}`);
    }
    return new Refusal('no_such_pod', here, `see "kubectl get pod -n ${namespace} ${name} -o wide"`);
  }
}

function answerOf([first, ...others]: readonly Entry[], isComplete: boolean): Answer {
  if (first !== undefined) {
    const what = others.length === 0 ? 'one identity:' : `${others.length + 1} identities, the default one is`;
    return { kind: 'identities', why: `it gets ${what} ${first.id}` };
  }
  if (isComplete) return { kind: 'none', why: 'no rule and no entry applies to it (PermissionDenied: no identity issued)' };
  return { kind: 'refused', why: 'nothing applies that is known, but the rules of the cluster are not complete yet' };
}
