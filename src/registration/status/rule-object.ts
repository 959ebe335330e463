import { objectAt, textAt, type JsonObject } from '../../kubernetes/json.ts';
import type { RuleKind } from './tally.ts';

/** What the holder keeps of a ClusterSPIFFEID or a ClusterStaticEntry. */
export interface RuleObject {
  readonly kind: RuleKind;
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly generation: number;
  /** `spec.className`; '' where there is none. */
  readonly className: string;
  /** The members of its status that we would write, as they are now. */
  readonly status: StatusFields;
}

/** A status, flat. Of ClusterSPIFFEID these are the members of `stats`. */
export type StatusFields = Readonly<Record<string, number | boolean | undefined>>;

const STATS = [
  'namespacesSelected',
  'podsSelected',
  'podEntryRenderFailures',
  'entriesMasked',
  'entriesToSet',
  'entryFailures',
] as const;
const FLAGS = ['rendered', 'masked', 'set'] as const;

/** For an informer. */
export function ruleTrim(kind: RuleKind): (raw: JsonObject) => RuleObject | undefined {
  return (raw) => {
    const metadata = objectAt(raw, 'metadata');
    const [name, uid, generation] = [textAt(metadata, 'name'), textAt(metadata, 'uid'), metadata['generation']];
    if (name === '' || uid === '' || typeof generation !== 'number') return undefined;
    const resourceVersion = textAt(metadata, 'resourceVersion');
    const className = textAt(objectAt(raw, 'spec'), 'className');
    const status = statusIn(kind, objectAt(raw, 'status'));
    return Object.freeze({ kind, name, uid, resourceVersion, generation, className, status });
  };
}

/** `status` as the object wants it. */
export function statusObject(kind: RuleKind, fields: StatusFields): JsonObject {
  const known = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
  return kind === 'ClusterSPIFFEID' ? { stats: known } : known;
}

/** True when `now` says all that `wanted` says. */
export function says(now: StatusFields, wanted: StatusFields): boolean {
  return Object.entries(wanted).every(([key, value]) => value === undefined || now[key] === value);
}

function statusIn(kind: RuleKind, status: JsonObject): StatusFields {
  const [from, keys] = kind === 'ClusterSPIFFEID' ? [objectAt(status, 'stats'), STATS] : [status, FLAGS];
  return Object.fromEntries(keys.map((key) => [key, plain(from[key])]));
}

function plain(value: unknown): number | boolean | undefined {
  return typeof value === 'number' || typeof value === 'boolean' ? value : undefined;
}
