import { CORE_SCHEMA, loadAll, YAMLException } from 'js-yaml';
import { messageOf } from '../errors.ts';
import { isObject, objectAt, textAt, type JsonObject } from '../kubernetes/json.ts';
import { Refusal } from './refusal.ts';

/** One document of a rule file, of which nothing but its kind is known. */
export interface RuleDocument {
  /** For problems: `document 2`. */
  readonly where: string;
  /** `ClusterSPIFFEID`, `ClusterStaticEntry`, `entries` for a configuration's, or whatever else is there. */
  readonly kind: string;
  /** `metadata.name`, or ''. */
  readonly name: string;
  readonly object: JsonObject;
}

/** More rules than a cluster has, and few enough to be tried on all pods of a node. */
const MOST_DOCUMENTS = 512;
const DEEPEST = 32;
/** A few lines of aliases can stand for more than fits into memory, and manifests do without. */
const MOST_ALIASES = 0;

/**
 * The documents of a YAML 1.2 text; the items of a `List` count as documents of their own, and empty documents not at all.
 *
 * @throws Refusal `bad_rules` where the text cannot be read as such, with the position.
 */
export function readRuleFile(text: string): RuleDocument[] {
  const documents = parse(text).flatMap((value, index) => documentsOf(value, `document ${index + 1}`));
  if (documents.length === 0) {
    throw new Refusal('bad_rules', 'there are no rules in it', 'known are ClusterSPIFFEID, ClusterStaticEntry and "entries"');
  }
  if (documents.length > MOST_DOCUMENTS) {
    throw new Refusal('bad_rules', `there are ${documents.length} rules in it; at most ${MOST_DOCUMENTS} are tried at a time`);
  }
  return documents;
}

function documentsOf(value: unknown, where: string): RuleDocument[] {
  if (value === null || value === undefined) return [];
  if (!isObject(value)) return [{ where, kind: Array.isArray(value) ? 'a list' : `a ${typeof value}`, name: '', object: {} }];
  const kind = textAt(value, 'kind');
  const items: unknown = value['items'];
  if (kind.endsWith('List') && Array.isArray(items)) {
    return items.flatMap((item, index) => documentsOf(item, `${where}, item ${index + 1}`));
  }
  const isConfiguration = kind === '' && Object.hasOwn(value, 'entries');
  return [{ where, kind: isConfiguration ? 'entries' : kind, name: textAt(objectAt(value, 'metadata'), 'name'), object: value }];
}

function parse(text: string): unknown[] {
  try {
    return loadAll(text, { schema: CORE_SCHEMA, maxDepth: DEEPEST, maxAliases: MOST_ALIASES });
  } catch (error) {
    const mark = error instanceof YAMLException ? error.mark : undefined;
    const path = mark === undefined ? 'the file' : `line ${mark.line + 1}, column ${mark.column + 1}`;
    const reason = error instanceof YAMLException ? error.reason : messageOf(error);
    throw new Refusal('bad_rules', 'it is not YAML', undefined, [
      { path, found: 'something else', allowed: `YAML 1.2 without custom tags and duplicate keys: ${reason}` },
    ]);
  }
}
