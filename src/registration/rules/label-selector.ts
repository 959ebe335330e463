import type { TextMap } from './facts.ts';
import { show, type Problem } from './problems.ts';
import { isObject, SpecReader } from './spec.ts';

const OPERATORS = ['In', 'NotIn', 'Exists', 'DoesNotExist'] as const;

/** `env In [prod]`; an entry of matchLabels is one with In and one value. */
export interface Requirement {
  readonly key: string;
  readonly operator: (typeof OPERATORS)[number];
  readonly values: readonly string[];
}

/** A checked metav1.LabelSelector: all requirements hold. None at all: everything is selected. */
export type LabelSelector = readonly Requirement[];

/** A qualified name: an optional DNS subdomain of at most 253, a slash, and a name of at most 63 characters. */
const PREFIX = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/;
const NAME = /^(?=.{1,63}$)[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$/;

/** Far above what selectors hold, so that one rule costs little. */
const MOST_REQUIREMENTS = 64;
const MOST_VALUES = 256;

const KEY = 'a label key such as app or example.org/app';
const VALUE = 'a label value: at most 63 letters, digits, ".", "-" and "_", with a letter or digit at both ends, or ""';

/**
 * Reads a metav1.LabelSelector (matchLabels and matchExpressions). Undefined and null are no selector. What is wrong goes to
 * `problems`, under `path`.
 */
export function parseLabelSelector(value: unknown, path: string, problems: Problem[]): LabelSelector | undefined {
  if (value === undefined || value === null) return undefined;
  if (!isObject(value)) {
    problems.push({ path, found: show(value), allowed: 'a selector with matchLabels and matchExpressions' });
    return undefined;
  }
  const reader = new SpecReader(path, value, problems);
  reader.only(['matchLabels', 'matchExpressions']);
  const requirements = [...matchLabels(reader), ...matchExpressions(reader)];
  if (requirements.length > MOST_REQUIREMENTS) {
    problems.push({ path, found: `${requirements.length} requirements`, allowed: `at most ${MOST_REQUIREMENTS} requirements` });
  }
  return requirements;
}

function matchLabels(reader: SpecReader): Requirement[] {
  const labels = reader.value('matchLabels');
  if (labels === undefined) return [];
  if (!isObject(labels)) {
    reader.refuse('matchLabels', show(labels), 'label values by label key');
    return [];
  }
  return Object.entries(labels).map(([key, value]) => {
    checkKey(reader, 'matchLabels', key);
    return { key, operator: 'In' as const, values: [checkedValue(reader, `matchLabels[${show(key)}]`, value)] };
  });
}

function matchExpressions(reader: SpecReader): Requirement[] {
  const list = reader.value('matchExpressions');
  if (list === undefined) return [];
  if (!Array.isArray(list)) {
    reader.refuse('matchExpressions', show(list), 'a list of { key, operator, values }');
    return [];
  }
  return list.flatMap((item: unknown, index) => {
    const path = `matchExpressions[${index}]`;
    if (isObject(item)) return expression(new SpecReader(reader.at(path), item, reader.problems));
    reader.refuse(path, show(item), '{ key, operator, values }');
    return [];
  });
}

function expression(reader: SpecReader): Requirement[] {
  reader.only(['key', 'operator', 'values']);
  const key = reader.text('key');
  checkKey(reader, 'key', key);
  const operator = OPERATORS.find((name) => name === reader.value('operator'));
  if (operator === undefined) reader.refuse('operator', show(reader.value('operator')), `one of ${OPERATORS.join(', ')}`);
  const values = reader.list('values', MOST_VALUES, (text, path) => checkedValue(reader, path, text));
  if (operator === undefined) return [];
  const takesValues = operator === 'In' || operator === 'NotIn';
  const given = reader.value('values');
  const count = Array.isArray(given) ? given.length : 0;
  if (takesValues && count === 0) reader.refuse('values', show(given), `at least one value for ${operator}`);
  if (!takesValues && count > 0) reader.refuse('values', show(given), `no values for ${operator}`);
  return [{ key, operator, values }];
}

function checkKey(reader: SpecReader, path: string, key: string): void {
  const [name = '', prefix, ...more] = key.split('/').reverse();
  if (more.length === 0 && NAME.test(name) && (prefix === undefined || PREFIX.test(prefix))) return;
  reader.refuse(path, show(key), KEY);
}

function checkedValue(reader: SpecReader, path: string, value: unknown): string {
  if (typeof value === 'string' && (value === '' || NAME.test(value))) return value;
  const unquoted = typeof value === 'boolean' || typeof value === 'number';
  reader.refuse(path, show(value), VALUE, unquoted ? `write it in quotes: "${value}"` : undefined);
  return '';
}

/** The first requirement that `labels` do not meet, for people: `env In [prod] (it is "dev")`. Undefined when all are met. */
export function mismatch(selector: LabelSelector, labels: TextMap): string | undefined {
  const broken = selector.find((requirement) => !holds(requirement, valueOf(labels, requirement.key)));
  if (broken === undefined) return undefined;
  const value = valueOf(labels, broken.key);
  return `${formatRequirement(broken)} (${value === undefined ? 'there is none' : `it is ${show(value)}`})`;
}

function valueOf(labels: TextMap, key: string): string | undefined {
  return Object.hasOwn(labels, key) ? labels[key] : undefined;
}

/** As Kubernetes has it, NotIn holds for a label that is not there. */
function holds({ operator, values }: Requirement, value: string | undefined): boolean {
  if (operator === 'Exists') return value !== undefined;
  if (operator === 'DoesNotExist') return value === undefined;
  const among = value !== undefined && values.includes(value);
  return operator === 'In' ? among : !among;
}

/** `env In [prod, test]`, `team Exists` */
export function formatRequirement({ key, operator, values }: Requirement): string {
  const named = values.map((value) => (value === '' ? '""' : value)).join(', ');
  return values.length === 0 ? `${key} ${operator}` : `${key} ${operator} [${named}]`;
}
