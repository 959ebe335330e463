import type { KubernetesClient } from './api-client.ts';
import type { Pod, TrimPod } from './pod.ts';
import { PODS, onNode } from './resources.ts';

/** All pods of this node, as they are now. */
export type ListPods = (signal: AbortSignal) => Promise<readonly Pod[]>;

/** Lists the pods of `nodeName` from the API server, by quorum and not from its cache. */
export function podsFromApi(client: KubernetesClient, nodeName: string, trim: TrimPod): ListPods {
  return async (signal) => {
    const pods: Pod[] = [];
    await client.list(PODS, { fieldSelector: onNode(nodeName), signal }, (raw) => {
      const pod = trim(raw, pods.length);
      if (pod !== undefined) pods.push(pod);
    });
    return pods;
  };
}

/**
 * Answers many questions with few lists: at most one is under way, and whoever asks meanwhile shares the next one, since the one
 * under way may have been read before the pod in question was there.
 */
export class PodLookup {
  readonly #list: ListPods;
  readonly #stop = new AbortController();
  #current: Promise<unknown> | undefined;
  #next: Promise<readonly Pod[]> | undefined;

  constructor(list: ListPods) {
    this.#list = list;
  }

  /** A list that began after this call. It is not given up with one caller, since others wait for it too. */
  pods(): Promise<readonly Pod[]> {
    this.#next ??= this.#begin();
    return this.#next;
  }

  close(reason: Error): void {
    this.#stop.abort(reason);
  }

  async #begin(): Promise<readonly Pod[]> {
    await this.#current?.catch(() => undefined);
    this.#next = undefined;
    const running = this.#list(this.#stop.signal);
    this.#current = running;
    try {
      return await running;
    } finally {
      if (this.#current === running) this.#current = undefined;
    }
  }
}
