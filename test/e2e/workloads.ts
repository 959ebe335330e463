import type { Images } from './images.ts';
import type { KubeObject, Kubectl } from './kubectl.ts';
import { eventually } from './wait.ts';

/** Where pods of the tests see the socket; the project's example mounts it there too. */
export const SOCKET_DIRECTORY = '/run/signet/public';
export const ENDPOINT = `unix://${SOCKET_DIRECTORY}/api.sock`;

const SVID_TIMEOUT_MS = 90_000;

export interface Svid {
  readonly id: string;
  readonly serial: string;
  /** Unix time in milliseconds. */
  readonly notAfter: number;
  /** A fingerprint of the public key. */
  readonly key: string;
  readonly dnsNames: readonly string[] | null;
  /** The key identifier of the root that the chain leads to. */
  readonly root: string;
}

/** A line of a workload program; which members there are depends on `event`. */
export interface Line {
  readonly event: string;
  /** Unix time in milliseconds. */
  readonly t: number;
  readonly svids?: readonly Svid[];
  readonly error?: string;
  /** Of an update: how many X.509 authorities there are for each trust domain, and what they do not verify. */
  readonly authorities?: Readonly<Record<string, number>>;
  readonly unverified?: readonly string[];
  readonly [key: string]: unknown;
}

export interface PodPlan {
  readonly namespace: string;
  readonly name: string;
  /** Default: the namespace's `default`. */
  readonly serviceAccount?: string;
  /** Of the workload program; none for pods whose containers are all in `spec`. */
  readonly args?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly restart?: 'Never' | 'Always';
  /** The node's directory with the socket. Default: that of the project's manifests. */
  readonly socketDirectory?: string;
  /** Merged over the pod's spec. */
  readonly spec?: Readonly<Record<string, unknown>>;
}

export function container(
  images: Images,
  name: string,
  args: readonly string[],
  more: Readonly<Record<string, unknown>> = {},
): Readonly<Record<string, unknown>> {
  return {
    name,
    image: images.workload,
    imagePullPolicy: 'IfNotPresent',
    args,
    env: [{ name: 'SPIFFE_ENDPOINT_SOCKET', value: ENDPOINT }],
    resources: { requests: { cpu: '5m', memory: '8Mi' } },
    volumeMounts: [{ name: 'spiffe', mountPath: SOCKET_DIRECTORY, readOnly: true }],
    ...more,
  };
}

export function podOf(images: Images, plan: PodPlan): KubeObject {
  const { namespace, name, labels = {} } = plan;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, labels: { 'app.kubernetes.io/part-of': 'signet-e2e', ...labels } },
    spec: {
      ...(plan.serviceAccount === undefined ? {} : { serviceAccountName: plan.serviceAccount }),
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      terminationGracePeriodSeconds: 1,
      restartPolicy: plan.restart ?? 'Never',
      containers: [container(images, 'main', plan.args ?? ['stay'])],
      volumes: [{ name: 'spiffe', hostPath: { path: plan.socketDirectory ?? SOCKET_DIRECTORY, type: 'Directory' } }],
      ...plan.spec,
    },
  };
}

/** What a pod of the tests has printed so far. */
export async function linesOf(kubectl: Kubectl, namespace: string, pod: string, from?: string): Promise<readonly Line[]> {
  return parseLines(await kubectl.logs(namespace, pod, from));
}

export function parseLines(text: string): readonly Line[] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Line);
}

/** The first line that `wanted` accepts. */
export function lineOf(
  kubectl: Kubectl,
  pod: { namespace: string; name: string; container?: string },
  wanted: (line: Line) => boolean,
  what: string,
  timeoutMs = SVID_TIMEOUT_MS,
): Promise<Line> {
  let last: Line | undefined;
  const where = `${pod.namespace}/${pod.name}`;
  const found = eventually(`${where}: ${what}`, timeoutMs, async () => {
    const lines = await linesOf(kubectl, pod.namespace, pod.name, pod.container);
    last = lines.at(-1);
    return lines.find(wanted);
  });
  return found.catch((error: unknown) =>
    Promise.reject(
      last === undefined ? error : new Error(`${where}: ${what} did not come; the last line is ${JSON.stringify(last)}`),
    ),
  );
}

export function eventOf(
  kubectl: Kubectl,
  pod: { namespace: string; name: string; container?: string },
  event: string,
  timeoutMs?: number,
): Promise<Line> {
  return lineOf(kubectl, pod, (line) => line.event === event || line.event === 'failed', `a line "${event}"`, timeoutMs);
}

export function idsOf(line: Line): readonly string[] {
  return (line.svids ?? []).map((svid) => svid.id);
}
