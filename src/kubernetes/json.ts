/** A parsed JSON object whose members nobody has checked yet. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** Texts by key, without a prototype: `labels['constructor']` is undefined. */
export type TextMap = Readonly<Record<string, string>>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const NOTHING: JsonObject = Object.freeze({});
const NO_TEXTS: TextMap = Object.freeze(Object.create(null) as TextMap);

/** The object at `key`, or an empty one. */
export function objectAt(object: JsonObject, key: string): JsonObject {
  const value = object[key];
  return isObject(value) ? value : NOTHING;
}

/** The text at `key`, or ''. */
export function textAt(object: JsonObject, key: string): string {
  const value = object[key];
  return typeof value === 'string' ? value : '';
}

/** True when `key` is true; all else is false. */
export function flagAt(object: JsonObject, key: string): boolean {
  return object[key] === true;
}

/** The objects in the list at `key`. */
export function objectsAt(object: JsonObject, key: string): readonly JsonObject[] {
  const value = object[key];
  return Array.isArray(value) ? value.filter(isObject) : [];
}

/** The members of the object at `key` that are texts. */
export function textsAt(object: JsonObject, key: string): TextMap {
  const isText = (entry: [string, unknown]): entry is [string, string] => typeof entry[1] === 'string';
  const entries = Object.entries(objectAt(object, key)).filter(isText);
  if (entries.length === 0) return NO_TEXTS;
  const texts = Object.create(null) as Record<string, string>;
  // Without a prototype `__proto__` is a key like any other.
  for (const [name, value] of entries) texts[name] = value;
  return Object.freeze(texts);
}

/** The time at `key` (RFC 3339) in milliseconds since the Unix epoch, or undefined. */
export function timeAt(object: JsonObject, key: string): number | undefined {
  const time = Date.parse(textAt(object, key));
  return Number.isNaN(time) ? undefined : time;
}
