import {
  array,
  custom,
  looseObject,
  optional,
  pipe,
  rawCheck,
  rawTransform,
  unknown,
  type BaseIssue,
  type GenericSchema,
  type InferOutput,
  type ObjectEntries,
} from 'valibot';
import type { Range } from './config.ts';
import { formatDuration, parseDuration } from './duration.ts';
import { nearest } from './nearest.ts';
import { formatPath, MISSING, show, type Problem, type Step } from './problems.ts';

/** Thrown by the reader of a value that is not what it may be. */
export class Refused extends Error {
  readonly allowed: string;
  readonly hint: string | undefined;

  constructor(allowed: string, hint?: string) {
    super(allowed);
    this.name = 'Refused';
    this.allowed = allowed;
    this.hint = hint;
  }
}

/**
 * A value read by `read`, which throws Refused. Every issue of a schema carries what is allowed as its message, and the hint as
 * `expected`, which only this file sets and `toProblem` reads.
 */
export function leaf<T>(read: (input: unknown) => T): GenericSchema<unknown, T> {
  return pipe(
    unknown(),
    rawTransform<unknown, T>(({ dataset, addIssue, NEVER }) => {
      try {
        return read(dataset.value);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        addIssue({ message: error.allowed, expected: error.hint });
        return NEVER;
      }
    }),
  );
}

/** A leaf that has to be there. */
export function required<T>(schema: GenericSchema<unknown, T>) {
  return optional(schema, MISSING);
}

/** A mapping with these keys and no others; `{}` where it is left out. All unknown keys are reported, not only the first. */
export function mapping<const E extends ObjectEntries>(entries: E) {
  return optional(requiredMapping(entries), {});
}

/** A mapping that an item of a list has to be. */
export function requiredMapping<const E extends ObjectEntries>(entries: E) {
  const keys = Object.keys(entries);
  const allowed = `a mapping with keys among ${keys.join(', ')}`;
  return pipe(
    custom<Record<string, unknown>>((input) => isMapping(input), allowed),
    looseObject(entries),
    rawCheck(({ dataset, addIssue }) => {
      const value: unknown = dataset.value;
      if (!isMapping(value)) return;
      for (const key of Object.keys(value).filter((name) => !keys.includes(name))) {
        const path = { type: 'object', origin: 'key', input: value, key, value: value[key] } as const;
        addIssue({ input: key, message: `a key among ${keys.join(', ')}`, expected: didYouMean(key, keys), path: [path] });
      }
    }),
  );
}

/** A list of `item`; empty where it is left out. */
export function list<T>(item: GenericSchema<unknown, T>, what: string) {
  return optional(array(item, `a list of ${what} (an empty one is [])`), []);
}

/** A duration, in milliseconds. */
export function duration(range: Range): GenericSchema<unknown, number> {
  const bounds = `from ${formatDuration(range.min)} to ${formatDuration(range.max)}`;
  const allowed = `a duration ${bounds}, such as 250ms, 90s, 30m, 1h30m or 7d`;
  return leaf((input) => {
    if (typeof input === 'number') throw new Refused(allowed, 'add a unit: ms, s, m, h or d');
    const ms = typeof input === 'string' ? parseDuration(input) : undefined;
    if (ms === undefined || ms < range.min || ms > range.max) throw new Refused(allowed);
    return ms;
  });
}

/** A whole number. */
export function whole(range: Range): GenericSchema<unknown, number> {
  return leaf((input) => {
    const good = typeof input === 'number' && Number.isSafeInteger(input) && input >= range.min && input <= range.max;
    if (!good) throw new Refused(`a whole number from ${range.min} to ${range.max}`);
    return input;
  });
}

/** One of a closed set of names. */
export function choice<const T extends string>(names: readonly T[]): GenericSchema<unknown, T> {
  return leaf((input) => {
    const name = names.find((known) => known === input);
    if (name !== undefined) return name;
    throw new Refused(names.length === 1 ? `${names[0]}` : `one of ${names.join(', ')}`, didYouMean(input, names));
  });
}

/** `true` or `false`; YAML 1.2 does not read `yes` and `on` as such. */
export const flag: GenericSchema<unknown, boolean> = leaf((input) => {
  if (typeof input !== 'boolean') throw new Refused('true or false');
  return input;
});

/** What `schema` gives. */
export type Output<S extends GenericSchema<unknown, unknown>> = InferOutput<S>;

/** The way to the value that an issue is about. */
export function stepsOf(issue: BaseIssue<unknown>): Step[] {
  return (issue.path ?? []).map(({ key }) => (typeof key === 'number' ? key : String(key)));
}

/** An issue of one of the schemas of this file as a problem. */
export function toProblem(issue: BaseIssue<unknown>): Problem {
  const problem = { path: formatPath(stepsOf(issue)), found: show(issue.input), allowed: issue.message };
  const carriesHint = issue.type === 'raw_check' || issue.type === 'raw_transform';
  return carriesHint && issue.expected !== null ? { ...problem, hint: issue.expected } : problem;
}

function didYouMean(input: unknown, known: readonly string[]): string | undefined {
  const name = typeof input === 'string' ? nearest(input, known) : undefined;
  return name && `did you mean ${JSON.stringify(name)}?`;
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
