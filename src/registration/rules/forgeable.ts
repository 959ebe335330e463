import type { Selector } from '../../spiffe/selector.ts';

const BINDING = /^k8s:(?:ns|pod-uid):/;

/** What to add to selectors that are forgeable. */
export const BINDING_SELECTOR =
  'also k8s:ns:<namespace>, such as k8s:ns:shop with k8s:sa:web: any namespace can have a pod with these';

/**
 * True for selectors of pods that say neither which namespace nor which pod: names, labels, owners and accounts are chosen by
 * whoever may create a pod, in whatever namespace, and so are images: a genuine one runs with any command and any volumes.
 */
export function areForgeable(selectors: readonly Selector[]): boolean {
  return selectors.some((selector) => selector.startsWith('k8s:')) && !selectors.some((selector) => BINDING.test(selector));
}
