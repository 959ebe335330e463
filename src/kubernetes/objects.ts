import { objectAt, textAt, textsAt, type JsonObject, type TextMap } from './json.ts';

/** What is kept of a namespace. */
export interface Namespace {
  readonly uid: string;
  readonly name: string;
  readonly labels: TextMap;
}

/** What is kept of a node. */
export interface KubernetesNode {
  readonly uid: string;
  readonly name: string;
  readonly labels: TextMap;
  readonly annotations: TextMap;
  readonly providerId: string;
  readonly podCidr: string;
}

/** For an informer on `NAMESPACES`. */
export function trimNamespace(raw: JsonObject): Namespace | undefined {
  const metadata = objectAt(raw, 'metadata');
  const [uid, name] = [textAt(metadata, 'uid'), textAt(metadata, 'name')];
  return uid === '' || name === '' ? undefined : Object.freeze({ uid, name, labels: textsAt(metadata, 'labels') });
}

/** For an informer on `NODES`. */
export function trimNode(raw: JsonObject): KubernetesNode | undefined {
  const [metadata, spec] = [objectAt(raw, 'metadata'), objectAt(raw, 'spec')];
  const [uid, name] = [textAt(metadata, 'uid'), textAt(metadata, 'name')];
  if (uid === '' || name === '') return undefined;
  return Object.freeze({
    uid,
    name,
    labels: textsAt(metadata, 'labels'),
    annotations: textsAt(metadata, 'annotations'),
    providerId: textAt(spec, 'providerID'),
    podCidr: textAt(spec, 'podCIDR'),
  });
}
