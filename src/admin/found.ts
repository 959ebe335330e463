import type { ProcessDescription } from '../attestation/kubernetes.ts';
import { containerSelectors, podSelectors } from '../attestation/pod-selectors.ts';
import { isSignetError, messageOf } from '../errors.ts';
import type { Container, Pod } from '../kubernetes/pod.ts';
import type { Selector } from '../spiffe/selector.ts';
import type { PlacementFact, ProcessFact } from './messages.ts';
import { noSuchProcess } from './process.ts';
import { Refusal } from './refusal.ts';
import type { AdminSource } from './source.ts';

/** What attestation comes to for one process or pod. */
export interface Found {
  readonly placement: PlacementFact;
  readonly pod?: Pod | undefined;
  readonly container?: Container | undefined;
  readonly selectors: readonly Selector[];
  /** Why such a caller is not attested. */
  readonly refused?: string;
  readonly notes: readonly string[];
}

/** Looks at a process as the attestors would at a caller. @throws Refusal `no_such_process`; the signal's reason */
export async function findProcess(process: ProcessFact, source: AdminSource, signal: AbortSignal): Promise<Found> {
  if (process.kernel_thread) return noCaller('a thread of the kernel', 'it is a thread of the kernel, which makes no calls');
  // A zombie's leader may have threads that live, but where they are cannot be told from it.
  if (/[ZXx]/.test(process.state)) {
    return noCaller(
      'it has ended',
      'it has ended and waits for its parent to notice (a zombie); only living processes get identities',
    );
  }
  const described = source.kubernetes?.describe(process.pid);
  const { pod, container } = described ?? {};
  const at = { placement: placementFact(described), pod, container };
  if (described !== undefined && described.placement.kind !== 'outside' && pod === undefined) {
    return { ...at, selectors: [], refused: `it cannot be attested: ${described.why}`, notes: [] };
  }
  try {
    const unix = await source.unix.attest(process, signal);
    const isUnnamed = pod !== undefined && container === undefined;
    const notes = isUnnamed ? ['No status names its container yet: selectors of the container come when it does.'] : [];
    return { ...at, selectors: [...unix, ...kubernetesSelectors(pod, container)], notes };
  } catch (error) {
    signal.throwIfAborted();
    if (isSignetError(error, 'caller_gone')) throw noSuchProcess(process.pid);
    return { ...at, selectors: [], refused: messageOf(error), notes: [] };
  }
}

/** A pod as the API server has it, with the container that is meant. @throws Refusal `no_such_container` */
export function findContainer(pod: Pod, containerName: string | undefined, namesakes: number): Found {
  const container = containerOf(pod, containerName);
  const isUnnamed = container !== undefined && container.containerId === '';
  const notes = [
    'Selectors by user and group depend on the process: --pid N tells them.',
    ...onlyIf(namesakes > 1, `${namesakes} pods have had this name; this is about the one with UID ${pod.uid}.`),
    ...onlyIf(
      pod.deletionTimestamp !== undefined,
      'The pod is being deleted; its processes keep their identities until they end.',
    ),
    ...onlyIf(container === undefined, 'Selectors of a container are told with --container NAME.'),
    ...onlyIf(isUnnamed, `No status names container ${container?.name} yet: its selectors come when it does.`),
  ];
  const placement: PlacementFact = { kind: 'pod', why: 'as the API server has it', cgroup: [] };
  return { placement, pod, container, selectors: kubernetesSelectors(pod, isUnnamed ? undefined : container), notes };
}

function noCaller(why: string, refused: string): Found {
  return { placement: { kind: 'unclear', why, cgroup: [] }, selectors: [], refused, notes: [] };
}

function onlyIf(holds: boolean, note: string): string[] {
  return holds ? [note] : [];
}

function kubernetesSelectors(pod: Pod | undefined, container: Container | undefined): Selector[] {
  if (pod === undefined) return [];
  return [...podSelectors(pod), ...(container === undefined ? [] : containerSelectors(container))];
}

function placementFact(described: ProcessDescription | undefined): PlacementFact {
  if (described === undefined) return { kind: 'unattested', why: 'this agent does not attest pods', cgroup: [] };
  const { placement, why, cgroup } = described;
  return { kind: placement.kind === 'outside' ? 'host' : placement.kind, why, cgroup };
}

function containerOf(pod: Pod, name: string | undefined): Container | undefined {
  const apps = pod.containers.filter(({ kind }) => kind === 'app');
  if (name === undefined) return apps.length === 1 ? apps[0] : undefined;
  const found = pod.containers.find((container) => container.name === name);
  if (found !== undefined) return found;
  const known = pod.containers.map((container) => container.name).join(', ');
  throw new Refusal('no_such_container', `pod ${pod.namespace}/${pod.name} has no container ${name}`, `it has ${known}`);
}
