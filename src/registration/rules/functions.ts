import { LONGEST_OUTPUT, type FunctionName, type ValueType } from './syntax.ts';

/** A label or annotation that is not there. As a condition it is false, `default` replaces it, `eq` takes it for ''. */
export class Missing {
  /** `the pod has no label "app"` */
  readonly why: string;

  constructor(why: string) {
    this.why = why;
  }
}

/** What an expression gives. */
export type Value = string | number | boolean | Missing;

/** What is wrong with a value once it is there: for people. */
export class RenderFailure extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'RenderFailure';
  }
}

type Parameter = 'text' | 'any' | 'comparable';

/** A function as the parser checks it and the renderer calls it. */
export interface FunctionSpec {
  /** As an operator should write it. */
  readonly usage: string;
  readonly parameters: readonly Parameter[];
  /** The last parameter may be repeated. */
  readonly variadic?: boolean;
  /** `and` and `or` give one of their arguments. */
  readonly type: ValueType | 'argument';
}

/** The order of arguments is that of Go and of sprig, so that the value comes last and can be piped in. */
export const FUNCTIONS: Readonly<Record<FunctionName, FunctionSpec>> = {
  and: { usage: 'and A B …', parameters: ['any'], variadic: true, type: 'argument' },
  or: { usage: 'or A B …', parameters: ['any'], variadic: true, type: 'argument' },
  not: { usage: 'not A', parameters: ['any'], type: 'flag' },
  eq: { usage: 'eq A B …', parameters: ['comparable', 'comparable'], variadic: true, type: 'flag' },
  ne: { usage: 'ne A B', parameters: ['comparable', 'comparable'], type: 'flag' },
  hasPrefix: { usage: 'hasPrefix "prefix" TEXT', parameters: ['text', 'text'], type: 'flag' },
  lower: { usage: 'lower TEXT', parameters: ['text'], type: 'text' },
  upper: { usage: 'upper TEXT', parameters: ['text'], type: 'text' },
  trim: { usage: 'trim TEXT', parameters: ['text'], type: 'text' },
  trimPrefix: { usage: 'trimPrefix "prefix" TEXT', parameters: ['text', 'text'], type: 'text' },
  trimSuffix: { usage: 'trimSuffix "suffix" TEXT', parameters: ['text', 'text'], type: 'text' },
  replace: { usage: 'replace "old" "new" TEXT', parameters: ['text', 'text', 'text'], type: 'text' },
  default: { usage: 'default "instead" TEXT', parameters: ['text', 'text'], type: 'text' },
  printf: { usage: 'printf "%s-%s" A B …', parameters: ['text', 'any'], variadic: true, type: 'text' },
};

/** True for what a condition takes for true, as in Go: not false, not 0, not '' and not missing. */
export function isTrue(value: Value): boolean {
  return !(value instanceof Missing) && value !== false && value !== 0 && value !== '';
}

/** The value as it is written out. Throws RenderFailure for one that is missing or too long. */
export function textOf(value: Value): string {
  if (value instanceof Missing) throw new RenderFailure(value.why);
  const text = String(value);
  if (text.length > LONGEST_OUTPUT) throw new RenderFailure(`a value is longer than ${LONGEST_OUTPUT} characters`);
  return text;
}

/** For `eq`, `ne` and `hasPrefix`: Go reads an entry that is not there as ''. */
export function comparable(value: Value): string | number | boolean {
  return value instanceof Missing ? '' : value;
}

/** The functions that take texts and give one. */
export const TEXT_FUNCTIONS: Readonly<Partial<Record<FunctionName, (...texts: readonly string[]) => string>>> = {
  lower: (text = '') => text.toLowerCase(),
  upper: (text = '') => text.toUpperCase(),
  trim: (text = '') => text.trim(),
  trimPrefix: (prefix = '', text = '') => (text.startsWith(prefix) ? text.slice(prefix.length) : text),
  trimSuffix: (suffix = '', text = '') => (text.endsWith(suffix) ? text.slice(0, text.length - suffix.length) : text),
  replace: (old = '', instead = '', text = '') => replaceAll(text, old, instead),
};

/** The length is known before the text is made, so that no template makes a large one. */
function replaceAll(text: string, old: string, instead: string): string {
  if (old === '') throw new RenderFailure('replace has nothing to look for');
  const parts = text.split(old);
  const length = text.length + (parts.length - 1) * (instead.length - old.length);
  if (length > LONGEST_OUTPUT) throw new RenderFailure(`a value is longer than ${LONGEST_OUTPUT} characters`);
  return parts.join(instead);
}

/** `%s` takes a text, `%d` a number, `%v` either; `%%` is a percent sign. */
export type Verb = '%s' | '%d' | '%v';

/** A format of printf, cut at its verbs. Undefined where it has any other verb. */
export function parseFormat(format: string): readonly (Verb | { readonly text: string })[] | undefined {
  const parts = format.split(/(%[\s\S]?)/);
  if (parts.some((part, at) => at % 2 === 1 && !['%s', '%d', '%v', '%%'].includes(part))) return undefined;
  return parts.map((part, at) => {
    if (at % 2 === 0) return { text: part };
    return part === '%%' ? { text: '%' } : (part as Verb);
  });
}
