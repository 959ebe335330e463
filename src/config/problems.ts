import { SignetError } from '../errors.ts';

/** One thing that is wrong with a configuration. */
export interface Problem {
  /** Where: `entries[2].x509Ttl`; the empty string is the file as a whole. */
  readonly path: string;
  /** What is there, shortened and quoted as JSON, or `nothing`. */
  readonly found: string;
  /** What may be there. */
  readonly allowed: string;
  /** What was probably meant. */
  readonly hint?: string;
}

/** A configuration that is refused, with everything that is wrong with it. Code `invalid_config`. */
export class ConfigError extends SignetError {
  readonly fileName: string;
  readonly problems: readonly Problem[];

  constructor(fileName: string, problems: readonly Problem[], options?: ErrorOptions) {
    super('invalid_config', summaryOf(fileName, problems), options);
    this.name = 'ConfigError';
    this.fileName = fileName;
    this.problems = problems;
  }
}

/** Stands where a required value is missing, so that it is shown as `nothing`. */
export const MISSING = Symbol('missing');

/** Longer values are cut, so that a problem stays on one line of a terminal. */
const LONGEST_SHOWN = 60;

/** Control characters that JSON leaves as they are, and those that turn the direction of text: a terminal would obey them. */
const UNSAFE = /[\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/** The message goes into one line of a log; `problems` and `formatProblems` have them all. */
const MOST_IN_MESSAGE = 10;

/** A key or an index on the way to a value. */
export type Step = string | number;

/** `['entries', 2, 'x509Ttl']` as `entries[2].x509Ttl`. */
export function formatPath(steps: readonly Step[]): string {
  let path = '';
  for (const step of steps) {
    if (typeof step === 'number') path += `[${step}]`;
    else if (!/^[\w-]{1,64}$/.test(step)) path += `[${show(step)}]`;
    else path += path === '' ? step : `.${step}`;
  }
  return path;
}

/** A value as a problem shows it: JSON, shortened, harmless to a terminal. */
export function show(value: unknown): string {
  if (value === undefined || value === MISSING) return 'nothing';
  if (typeof value === 'string') {
    return value.length > LONGEST_SHOWN ? `${safeJson(value.slice(0, LONGEST_SHOWN))}…` : safeJson(value);
  }
  if (typeof value !== 'object') return String(value);
  const json = safeJson(value);
  return json.length > LONGEST_SHOWN ? `${json.slice(0, LONGEST_SHOWN)}…` : json;
}

/**
 * All problems for people, one block each:
 *
 *     signet.yaml has 1 problem.
 *
 *       x509.ttl
 *         found    90
 *         allowed  a duration from 10s to 365d, such as 90s, 30m, 1h30m or 7d
 *         hint     add a unit: ms, s, m, h or d
 */
export function formatProblems(error: ConfigError): string {
  return [`${headline(error.fileName, error.problems)}.`, ...error.problems.map(formatProblem)].join('\n\n') + '\n';
}

function formatProblem(problem: Problem): string {
  const { path, found, allowed, hint } = problem;
  const lines = [`  ${path === '' ? '(the file)' : path}`, `    found    ${found}`, `    allowed  ${allowed}`];
  if (hint !== undefined) lines.push(`    hint     ${hint}`);
  return lines.join('\n');
}

function summaryOf(fileName: string, problems: readonly Problem[]): string {
  const each = problems.slice(0, MOST_IN_MESSAGE).map(({ path, found, allowed, hint }) => {
    return `${path === '' ? '' : `${path}: `}found ${found}, allowed: ${allowed}${hint === undefined ? '' : ` (${hint})`}`;
  });
  if (problems.length > each.length) each.push(`and ${problems.length - each.length} more`);
  return `${headline(fileName, problems)}: ${each.join('; ')}`;
}

function headline(fileName: string, problems: readonly Problem[]): string {
  return `${fileName} has ${problems.length} problem${problems.length === 1 ? '' : 's'}`;
}

function safeJson(value: unknown): string {
  return JSON.stringify(value).replaceAll(UNSAFE, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
