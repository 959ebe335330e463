import { objectAt, objectsAt, textAt, type JsonObject } from '../../kubernetes/json.ts';
import type { PublicBundle } from './documents.ts';

/** Whose fields the published ones are, for server-side apply. */
export const FIELD_MANAGER = 'signet';
/** On a published object: whose bundle it is. A bundle is stored with the name of its trust domain (TD-02). */
export const TRUST_DOMAIN_ANNOTATION = 'signet.dev/trust-domain';

/** Somewhere in the cluster where the trust bundle can be read. */
export interface Place {
  /** For people: `ConfigMap signet-system/signet-bundle`. */
  readonly name: string;
  /** What is there now; undefined where this cluster has no such kind of object. */
  read(signal: AbortSignal): Promise<Standing | undefined>;
}

/** A place as it was found. */
export interface Standing {
  /** What an agent wrote there and nobody has changed since; nothing when there is none. */
  readonly published: PublicBundle;
  /** True when it says this and nothing else. */
  says(bundle: PublicBundle): boolean;
  /** @throws KubernetesError 409 when it is not any more what was found, or when the field is somebody else's. */
  replace(bundle: PublicBundle, signal: AbortSignal): Promise<void>;
}

/** `metadata` to apply: with the version that was found, so that of two writers one is refused. */
export function metadataFor(name: string, trustDomain: string, found: JsonObject | undefined): JsonObject {
  const { uid, resourceVersion } = objectAt(found ?? {}, 'metadata');
  return {
    name,
    labels: { 'app.kubernetes.io/name': 'signet', 'app.kubernetes.io/part-of': 'signet' },
    annotations: { [TRUST_DOMAIN_ANNOTATION]: trustDomain },
    ...(found === undefined ? {} : { uid, resourceVersion }),
  };
}

export function trustDomainIn(found: JsonObject | undefined): string {
  return textAt(objectAt(objectAt(found ?? {}, 'metadata'), 'annotations'), TRUST_DOMAIN_ANNOTATION);
}

/** True when the field was last written by an agent: a value that somebody else writes is not ours any more. */
export function isOurField(found: JsonObject, ...path: readonly string[]): boolean {
  return objectsAt(objectAt(found, 'metadata'), 'managedFields').some((entry) => {
    if (textAt(entry, 'manager') !== FIELD_MANAGER || textAt(entry, 'operation') !== 'Apply') return false;
    const parent = path.slice(0, -1).reduce((inner, key) => objectAt(inner, `f:${key}`), objectAt(entry, 'fieldsV1'));
    return Object.hasOwn(parent, `f:${path.at(-1) ?? ''}`);
  });
}
