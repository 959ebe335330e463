import { readFileSync, statSync } from 'node:fs';
import { SignetError, messageOf } from '../errors.ts';
import { isQosSegment, podSegment } from './cgroup-names.ts';
import { cgroupPaths, placementOf, splitCgroupPath, type CgroupRoot, type Placement } from './cgroup.ts';

export interface CgroupRootOptions {
  /** `attestation.kubernetes.cgroupRoot`: `/kubepods`, `/kubepods.slice`. Left out: learnt. */
  readonly configured?: string | undefined;
  /** The UID of the agent's own pod (downward API: metadata.uid); undefined where the agent is a process of the host. */
  readonly podUid?: string | undefined;
  /** Default `/proc`. */
  readonly procRoot?: string;
  /** Where cgroup file systems are mounted; only looked at outside a pod. Default `/sys/fs/cgroup`. */
  readonly cgroupMount?: string;
}

/** Where kubelets keep pods unless they are told otherwise: both drivers, and both again in kind's nodes. */
const USUAL_ROOTS = ['/kubepods.slice', '/kubepods', '/kubelet.slice/kubelet-kubepods.slice', '/kubelet/kubepods'];

/** The hierarchies in which to look for them: of cgroup v2, and of v1. */
const MOUNTS = ['', 'memory', 'cpu', 'cpu,cpuacct', 'pids'];

const SETTING = 'attestation.kubernetes.cgroupRoot';
const HELP =
  `set ${SETTING} to the cgroup below which the kubelet keeps its pods ` +
  '(in /proc/<pid>/cgroup of a process in a pod: what is before the QoS class and the pod)';
const NEEDS_HOST_PID = 'the pod of the agent needs hostPID: true, and POD_UID from metadata.uid';

/** Where PID 1 of a host is, or that of a container that plays one (kind, k3s). */
const INIT_CGROUPS = new Set(['', 'init.scope', 'init']);

/**
 * Finds the kubelet's cgroup root, in this order: as configured; from the cgroup of the agent's own pod; for a process of the
 * host from the usual places, if there is exactly one. In a private cgroup namespace, where a pod does not see the names above
 * it, `path` stays undefined, which is enough: see `placementOf`. Reads once; the root does not change while the agent runs.
 *
 * @throws SignetError `invalid_config` with what to set, `unavailable` when /proc cannot be read.
 */
export function learnCgroupRoot(options: CgroupRootOptions): CgroupRoot {
  const { podUid, procRoot = '/proc' } = options;
  const path = options.configured === undefined ? undefined : checkPath(options.configured);
  const own = readCgroups(`${procRoot}/self/cgroup`);
  const depths = depthsOf(readCgroups(`${procRoot}/1/cgroup`).paths);
  const isPrivate = [...depths.values()].some((depth) => depth > 0);
  const root: CgroupRoot = { path: path ?? (isPrivate ? undefined : learnPath(own.paths, options)), depths, podUid };
  if (podUid !== undefined) assertOwnPod(own.text, root, podUid);
  else if (isPrivate) throw refused(`the agent has its own cgroup namespace: ${NEEDS_HOST_PID}; else it needs the host's`);
  return root;
}

function learnPath(own: ReadonlyMap<string, string>, options: CgroupRootOptions): string {
  if (options.podUid === undefined) return usualRoot(options.cgroupMount ?? '/sys/fs/cgroup');
  const roots = new Set([...own.values()].flatMap((path) => rootAbove(path, options.podUid ?? '') ?? []));
  const [root] = roots;
  if (root === undefined) throw refused(`the agent's own cgroup does not name its pod ${options.podUid}: ${NEEDS_HOST_PID}`);
  if (roots.size > 1) throw refused(`the agent's own cgroup names its pod below ${[...roots].join(' and ')}; ${HELP}`);
  return root;
}

/** What is before the QoS class and the pod. */
function rootAbove(path: string, podUid: string): string | undefined {
  const segments = splitCgroupPath(path)?.segments ?? [];
  const at = segments.findIndex((segment) => podSegment(segment)?.podUid === podUid);
  const end = isQosSegment(segments[at - 1] ?? '') ? at - 1 : at;
  return end > 0 ? `/${segments.slice(0, end).join('/')}` : undefined;
}

function usualRoot(mount: string): string {
  const isThere = (root: string): boolean => MOUNTS.some((hierarchy) => isDirectory(`${mount}/${hierarchy}${root}`));
  const found = USUAL_ROOTS.filter(isThere);
  const [root] = found;
  if (root !== undefined && found.length === 1) return root;
  const what = root === undefined ? `none of ${USUAL_ROOTS.join(', ')} is there` : `${found.join(' and ')} are there`;
  throw refused(`the kubelet's cgroup root is not to be told: ${what}; ${HELP}`);
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** In each hierarchy, how far process 1 is above the root of our cgroup namespace. */
function depthsOf(init: ReadonlyMap<string, string>): Map<string, number> {
  const depths = new Map<string, number>();
  for (const [controllers, path] of init) {
    const { up, segments } = splitCgroupPath(path) ?? { up: Number.NaN, segments: [] };
    const isInPod = segments.some((segment) => podSegment(segment) !== undefined);
    const isHosts = up === 0 ? !isInPod : INIT_CGROUPS.has(segments.join('/'));
    if (!isHosts) throw refused(`process 1 is at ${JSON.stringify(path)}, which is not where a host has it: ${NEEDS_HOST_PID}`);
    depths.set(controllers, up);
  }
  return depths;
}

/** Whatever was configured or learnt must be true of the agent itself. */
function assertOwnPod(text: string, root: CgroupRoot, podUid: string): void {
  const placement = placementOf(text, root);
  if (placement.kind === 'pod' && placement.podUid === podUid) return;
  const below = root.path ?? 'its namespace';
  throw refused(`the agent runs in pod ${podUid}, but its cgroup does not say so below ${below}: ${whyNot(placement)}; ${HELP}`);
}

function whyNot(placement: Placement): string {
  if (placement.kind === 'unclear') return placement.why;
  return placement.kind === 'pod' ? `it names pod ${placement.podUid}` : 'it is that of a process of the host';
}

function checkPath(path: string): string {
  const segments = path.split('/').slice(1);
  const isName = (segment: string): boolean => !['', '.', '..'].includes(segment);
  const isGood = path.startsWith('/') && segments.every(isName) && !/[\n\0]/.test(path);
  if (isGood) return path;
  throw refused(`${SETTING} is ${JSON.stringify(path)}: it is an absolute path without a slash at its end, as /kubepods.slice`);
}

function readCgroups(file: string): { readonly text: string; readonly paths: ReadonlyMap<string, string> } {
  const text = readText(file);
  const paths = cgroupPaths(text);
  if (paths !== undefined) return { text, paths };
  throw new SignetError('unavailable', `${file} is not of the known form: ${JSON.stringify(text.slice(0, 300))}`);
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch (error) {
    throw new SignetError('unavailable', `${file} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

function refused(message: string): SignetError {
  return new SignetError('invalid_config', message);
}
