import { containerSegment, isHostPath, isQosOf, podSegment, type PodSegment } from './cgroup-names.ts';

/** Where the kubelet keeps its pods, and from where this process looks at it. */
export interface CgroupRoot {
  /** The kubelet's cgroup root from the top: `/kubepods`. Undefined where a private cgroup namespace hides it. */
  readonly path: string | undefined;
  /**
   * How many cgroups this process's namespace root lies below the top, by the second field of a line in /proc/<pid>/cgroup (the
   * controllers). A hierarchy that is not named: 0.
   */
  readonly depths: ReadonlyMap<string, number>;
  /** The UID of the pod in which this process runs; undefined outside one. */
  readonly podUid: string | undefined;
}

/** Where a process runs. `unclear` is a refusal: perhaps in a container, in any case not known to be outside one. */
export type Placement =
  | { readonly kind: 'pod'; readonly podUid: string; readonly containerId: string | undefined }
  | { readonly kind: 'outside' }
  | { readonly kind: 'unclear'; readonly why: string };

interface Line {
  /** Empty for cgroup v2, `name=…` for a hierarchy without controllers. */
  readonly controllers: string;
  readonly path: string;
}

/**
 * What one line says. `refused`: below the kubelet's root, but nobody's container, or no path at all. `elsewhere`: perhaps in
 * some other container.
 */
type Finding =
  | { readonly kind: 'pod'; readonly podUid: string; readonly containerId: string | undefined }
  | { readonly kind: 'outside' }
  | { readonly kind: 'refused' | 'elsewhere'; readonly why: string };

/** On cgroup v1 the kubelet makes each pod's cgroup in the hierarchies of these. */
const RESOURCES = new Set(['cpu', 'cpuacct', 'cpuset', 'memory', 'pids']);

/** A path relative to a private cgroup namespace leaves it by at most: container in a sub-cgroup, container, pod, QoS class. */
const MOST_STEPS = 4;

const LONGEST_QUOTE = 300;

/** The root at `path` as a process of the host's own cgroup namespace sees it. */
export function cgroupRootAt(path: string): CgroupRoot {
  return { path, depths: new Map(), podUid: undefined };
}

/**
 * Where the process runs whose `/proc/<pid>/cgroup` (cgroups(7)) is `text`.
 *
 * The kubelet's root is the only place where just root can make a cgroup that looks like a pod's, so a path counts only if it
 * begins there. Below it the outermost pod counts, and the container right after it: what follows is the container's own making.
 *
 * On cgroup v1 every hierarchy has a line. All those that the kubelet uses must name the same pod and container. The others
 * (`name=…`, net_cls, the `0::` of a hybrid machine, …) are not always managed by the runtime: they may name that same container,
 * or lie outside the kubelet's root. Nobody gains by moving in one of them: without a pod in the others there is no pod, and
 * without a host path in all of them there is no `outside`. Nor is there one of `/` alone on v1: see `isShownNowhere`.
 */
export function placementOf(text: string, root: CgroupRoot): Placement {
  const lines = parseLines(text);
  if (lines === undefined) return unclear(`its cgroup file is not of the known form: ${quote(text)}`);
  const findings = lines.map((line) => ({ line, finding: judge(line, root) }));
  const [pod] = findings.flatMap(({ finding }) => (finding.kind === 'pod' ? [finding] : []));
  if (pod === undefined) {
    const doubts = findings.flatMap(({ finding }) => ('why' in finding ? [finding.why] : []));
    if (doubts[0] !== undefined) return unclear(doubts[0]);
    return isShownNowhere(lines) ? unclear('it is at "/" in every hierarchy of cgroup v1, where a process is shown too whose main thread has ended') : { kind: 'outside' };
  }
  const isDecisive = decisiveAmong(lines);
  if (!lines.some(isDecisive)) return unclear('it is in a pod only in hierarchies that the kubelet does not use');
  for (const { line, finding } of findings) {
    if (finding.kind === 'pod' && finding.podUid === pod.podUid && finding.containerId === pod.containerId) continue;
    if (finding.kind === 'pod') return unclear(`its cgroups name two containers: ${quote(text)}`);
    if (finding.kind === 'refused') return unclear(finding.why);
    if (!isDecisive(line)) continue;
    return unclear(`it is in pod ${pod.podUid} in some hierarchies, but not in "${line.controllers}": ${quote(line.path)}`);
  }
  return pod;
}

/**
 * A process whose main thread has ended is shown at `/` (in a private namespace: at `/..`) in every hierarchy of cgroup v1, in one
 * reading, wherever its other threads are. What it is in v2 says nothing of that: not every runtime manages both.
 */
function isShownNowhere(lines: readonly Line[]): boolean {
  const ofV1 = lines.filter(({ controllers }) => controllers !== '');
  return ofV1.length > 0 && ofV1.every(({ path }) => splitCgroupPath(path)?.segments.length === 0);
}

function parseLines(text: string): Line[] | undefined {
  const lines: Line[] = [];
  for (const line of text.replace(/\n$/, '').split('\n')) {
    const [, controllers, path] = /^[0-9]{1,10}:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined) return undefined;
    lines.push({ controllers, path });
  }
  return lines;
}

/** Without any controller of cgroup v1 that the kubelet uses, it uses cgroup v2. */
function decisiveAmong(lines: readonly Line[]): (line: Line) => boolean {
  const usesV1 = ({ controllers }: Line): boolean => controllers.split(',').some((name) => RESOURCES.has(name));
  return lines.some(usesV1) ? usesV1 : ({ controllers }) => controllers === '';
}

/** The steps up and the segments after them, or undefined for a path that the kernel does not write for a living cgroup. */
export function splitCgroupPath(path: string): { readonly up: number; readonly segments: readonly string[] } | undefined {
  const all = path === '/' ? [] : path.slice(1).split('/');
  const first = all.findIndex((segment) => segment !== '..');
  const up = first === -1 ? all.length : first;
  const segments = all.slice(up);
  const isOdd = (segment: string): boolean => segment === '' || segment === '.' || segment === '..';
  return segments.some(isOdd) || path.endsWith(' (deleted)') ? undefined : { up, segments };
}

/** What every line of `text` has as its path, by controllers; undefined when it is not of the known form. */
export function cgroupPaths(text: string): ReadonlyMap<string, string> | undefined {
  const lines = parseLines(text);
  return lines === undefined ? undefined : new Map(lines.map(({ controllers, path }) => [controllers, path]));
}

/**
 * A private cgroup namespace shows `/../..` for what is above it. A path with as many steps up as the namespace is deep comes
 * from the top and is known in full. One with less leaves our own ancestors further down. Since this process runs in a pod, those
 * are what is above the kubelet's root, the root, the QoS class and our pod: just root can make a cgroup in any of them.
 */
function judge({ controllers, path }: Line, root: CgroupRoot): Finding {
  const split = splitCgroupPath(path);
  if (split === undefined) return refused(path, 'is not one of a living cgroup');
  const { up, segments } = split;
  const leaves = (root.depths.get(controllers) ?? 0) - up;
  if (leaves < 0) return elsewhere(path, 'leads out of the known hierarchy');
  if (leaves === 0) return judgeFromTop(path, segments, root);
  if (root.podUid === undefined) return elsewhere(path, 'is relative to a cgroup namespace whose place is not known');
  const rootSegments = segmentsOf(root);
  if (rootSegments === undefined) return judgeFromOurBranch(path, up, segments, undefined, root.podUid);
  const level = leaves - rootSegments.length;
  if (level < 0) return judgeOutsideRoot(path, [...rootSegments.slice(0, leaves), ...segments], root);
  if (level === 0) return judgeBelowRoot(path, segments, rootSegments.at(-1) ?? '');
  return judgeFromOurBranch(path, up, segments, level, root.podUid);
}

function segmentsOf({ path }: CgroupRoot): readonly string[] | undefined {
  return path?.slice(1).split('/');
}

function judgeFromTop(path: string, segments: readonly string[], root: CgroupRoot): Finding {
  const rootSegments = segmentsOf(root);
  const isBelow = rootSegments?.every((segment, index) => segments[index] === segment) === true;
  if (!isBelow) return judgeOutsideRoot(path, segments, root);
  return judgeBelowRoot(path, segments.slice(rootSegments.length), rootSegments.at(-1) ?? '');
}

function judgeOutsideRoot(path: string, segments: readonly string[], root: CgroupRoot): Finding {
  if (isHostPath(segments)) return { kind: 'outside' };
  const named = root.path === undefined ? '' : ` ${root.path}`;
  return elsewhere(path, `is neither below the kubelet's cgroup root${named} nor known to be the host's own`);
}

function judgeBelowRoot(path: string, segments: readonly string[], rootName: string): Finding {
  const [first = '', second = ''] = segments;
  const direct = podSegment(first);
  const classed = podSegment(second);
  // With runc's own driver below a kubelet of systemd's, the slices above the pod are lost, and only then.
  const isDirect = direct !== undefined && (direct.qosClass === undefined || direct.containerId !== undefined);
  const pod = isDirect ? direct : classed !== undefined && isQosOf(first, classed) ? classed : undefined;
  if (pod === undefined) return refused(path, 'is below the kubelet\'s cgroup root, but not that of a pod');
  const isForeign = rootName.endsWith('.slice') && `${pod.stem}.slice` !== rootName;
  if (isForeign) return refused(path, `names a pod in another form than a kubelet does below ${rootName}`);
  return judgePod(path, pod, segments[isDirect ? 1 : 2]);
}

/** @param level how far below the kubelet's root the path leaves our own ancestors; undefined when not known, else at least 1. */
function judgeFromOurBranch(
  path: string,
  up: number,
  segments: readonly string[],
  level: number | undefined,
  podUid: string,
): Finding {
  if (up === 0) return { kind: 'pod', podUid, containerId: undefined };
  const [first = '', second = ''] = segments;
  const sibling = containerSegment(first);
  if (sibling !== undefined && up === 1) return { kind: 'pod', podUid, containerId: sibling };
  const direct = podSegment(first);
  const classed = level === undefined ? podSegment(second) : undefined;
  const pod = direct ?? (classed !== undefined && isQosOf(first, classed) ? classed : undefined);
  if (pod === undefined) return refused(path, 'is beside this agent\'s own cgroup, but not that of a pod');
  // What is in our pod's own cgroup is a container of it, so no pod can be there: a pod is at least two steps away.
  const isNear = up <= MOST_STEPS && (up >= 2 || pod.containerId !== undefined);
  if (!isNear || (level ?? 1) !== 1) return refused(path, 'names a pod where the kubelet makes none');
  return judgePod(path, pod, segments[direct === undefined ? 2 : 1]);
}

function judgePod(path: string, { podUid, containerId }: PodSegment, next: string | undefined): Finding {
  if (containerId !== undefined || next === undefined) return { kind: 'pod', podUid, containerId };
  const container = containerSegment(next);
  if (container !== undefined) return { kind: 'pod', podUid, containerId: container };
  if (next.startsWith('crio-conmon-')) return refused(path, 'is that of a container\'s monitor');
  return refused(path, `names pod ${podUid}, but no container of a known runtime`);
}

function refused(path: string, what: string): Finding {
  return { kind: 'refused', why: `its cgroup ${quote(path)} ${what}` };
}

function elsewhere(path: string, what: string): Finding {
  return { kind: 'elsewhere', why: `its cgroup ${quote(path)} ${what}` };
}

function unclear(why: string): Placement {
  return { kind: 'unclear', why };
}

/** Names of cgroups are their makers' to choose. */
function quote(text: string): string {
  return JSON.stringify(text.length > LONGEST_QUOTE ? `${text.slice(0, LONGEST_QUOTE)}…` : text);
}
