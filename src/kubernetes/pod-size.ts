/** What is kept of a pod and may be of any size. */
interface Kept {
  readonly labels: object;
  readonly annotations: object | undefined;
  readonly owners: readonly unknown[];
  readonly containers: readonly unknown[];
}

/** Far more than the labels, owners and images of any pod that somebody has written; annotations alone may be 256 KiB. */
const MOST = 65_536;
/** Enough for an ordinary pod, however many there are. */
const LEAST = 4_096;
/** What is shared out. Pods that were refused by the kubelet stay in the list: there can be some 12,000 on one node. */
const ALL = 8 * 1_048_576;
/** Of an entry of a map or a list, besides its text. */
const ENTRY = 64;

/** How much is kept of one pod, in bytes, where there are `known` others: 64 KiB up to 128 pods, then less, at least 4 KiB. */
export function mostKept(known: number): number {
  return Math.min(MOST, Math.max(LEAST, Math.floor(ALL / Math.max(known, 1))));
}

/** How much there is to keep of a pod, in bytes, near enough for a bound. */
export function keptBytes(pod: Kept): number {
  const { labels, annotations = {}, owners, containers } = pod;
  const entries = Object.keys(labels).length + Object.keys(annotations).length + owners.length + containers.length;
  return Buffer.byteLength(JSON.stringify(pod)) + ENTRY * entries;
}
