/** The names that kubelets, container runtimes and systemd give to cgroups. One segment of a path each, never with a slash. */

/** A segment that names a pod. */
export interface PodSegment {
  /** With dashes; 32 hexadecimal digits for a static pod. */
  readonly podUid: string;
  /** What systemd's slices of this kubelet begin with: `kubepods`, `kubelet-kubepods`; undefined with the cgroupfs driver. */
  readonly stem: string | undefined;
  /** As the name tells (systemd only); undefined for guaranteed pods. */
  readonly qosClass: string | undefined;
  /** In the same segment: `….slice:cri-containerd:<container ID>`. */
  readonly containerId: string | undefined;
}

const CGROUPFS_POD = /^pod([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})$/;
const CGROUPFS_QOS = /^(?:burstable|besteffort)$/;

/** `kubepods`, or `kubelet-kubepods` in kind: one word for each slice above, as systemd wants it. */
const STEM = '(?:[A-Za-z0-9_.]+-)*kubepods';
const QOS = 'burstable|besteffort';
/** A dash would be a step down, so the kubelet writes the UID with underscores. */
const UID = '[0-9a-f]{8}(?:_[0-9a-f]{4}){3}_[0-9a-f]{12}|[0-9a-f]{32}';
const SYSTEMD_POD = new RegExp(`^(${STEM})(?:-(${QOS}))?-pod(${UID})\\.slice(?::[a-z][a-z-]*:([0-9a-f]{64}))?$`);
const SYSTEMD_QOS = new RegExp(`^${STEM}-(?:${QOS})\\.slice$`);

/** containerd, Docker and CRI-O. The scopes are those of the systemd driver. */
const CONTAINER = /^(?:(?:crio-)?([0-9a-f]{64})|(?:cri-containerd|docker|crio)-([0-9a-f]{64})\.scope)$/;

/** A trace of a container anywhere in a path. */
const CONTAINER_TRACE = /[0-9a-f]{64}|kubepods|(?:^|[-_])pod[0-9a-f]{8}/;

/** What belongs to a container runtime. Its service itself is the host's; what is below may be a container. */
const RUNTIME = /^(?:docker|libpod|podman|lxc|crio|cri-|nspawn|machine|buildkit|garden|ecs)/;

export function podSegment(segment: string): PodSegment | undefined {
  const plain = CGROUPFS_POD.exec(segment)?.[1];
  if (plain !== undefined) return { podUid: plain, stem: undefined, qosClass: undefined, containerId: undefined };
  const [, stem, qosClass, uid, containerId] = SYSTEMD_POD.exec(segment) ?? [];
  return uid === undefined ? undefined : { podUid: uid.replaceAll('_', '-'), stem, qosClass, containerId };
}

/** True for the cgroup that holds the burstable or the best-effort pods. */
export function isQosSegment(segment: string): boolean {
  return CGROUPFS_QOS.test(segment) || SYSTEMD_QOS.test(segment);
}

/** True when `segment` is the cgroup of a QoS class in which the kubelet makes such a pod. */
export function isQosOf(segment: string, pod: PodSegment): boolean {
  if (pod.stem === undefined) return CGROUPFS_QOS.test(segment);
  return pod.qosClass !== undefined && segment === `${pod.stem}-${pod.qosClass}.slice`;
}

export function containerSegment(segment: string): string | undefined {
  const [, plain, scoped] = CONTAINER.exec(segment) ?? [];
  return plain ?? scoped;
}

/**
 * True only for paths in which a host without containers keeps its processes: the root, systemd itself, a service in a slice, a
 * login session or the services of a user (systemd.special(7), systemd-logind(8)). A service's own sub-cgroups do not count,
 * since some services are container runtimes; nor does any path with a trace of a container in it.
 */
export function isHostPath(segments: readonly string[]): boolean {
  const [top = '', ...rest] = segments;
  if (segments.length === 0 || (top === 'init.scope' && rest.length === 0)) return true;
  const last = segments.at(-1) ?? '';
  const above = last.endsWith('.service') ? segments.slice(0, -1) : segments;
  if (segments.some((segment) => CONTAINER_TRACE.test(segment))) return false;
  if (above.some((segment) => RUNTIME.test(segment))) return false;
  if (top === 'user.slice') return rest[0] === undefined || /^user-[0-9]{1,10}\.slice$/.test(rest[0]);
  return last.endsWith('.service') && above.length > 0 && above.every((segment) => segment.endsWith('.slice'));
}
