import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { safeParse } from 'valibot';
import { messageOf, systemCode } from '../errors.ts';
import { deepFreeze, type Config } from './config.ts';
import { fillIn, type Environment } from './environment.ts';
import { ConfigError, type Problem, type Step } from './problems.ts';
import { brokenRules, type Draft } from './rules.ts';
import { CONFIG_SCHEMA, toConfig } from './schema.ts';
import { stepsOf, toProblem } from './values.ts';
import { LONGEST_FILE_BYTES, readYaml, tooLong } from './yaml.ts';

export { ConfigError, formatProblems } from './problems.ts';
export type { Problem } from './problems.ts';

/**
 * Reads a configuration file. It has to be a regular file (or a link to one) of at most 1 MiB in UTF-8.
 *
 * @throws ConfigError with everything that is wrong with it, or with why it cannot be read.
 */
export function loadConfig(path: string, env: Environment): Config {
  return parseConfig(readText(path), path, env);
}

/**
 * Reads a configuration from its YAML text. `fileName` is only named in errors. The result is deeply frozen.
 *
 * @throws ConfigError with everything that is wrong with it. Only what keeps the text from being read at all (a syntax error, a
 * bound on its size) is reported alone.
 */
export function parseConfig(yamlText: string, fileName: string, env: Environment): Config {
  const { filled, problems: unset } = fillIn(readYaml(yamlText, fileName), env, fileName);
  const result = safeParse(CONFIG_SCHEMA, filled);
  const refused = result.issues ?? [];
  const draft = draftOf(result.output, refused.map(stepsOf));
  const problems = [...refused.map(toProblem), ...brokenRules(draft, filled)];
  // What is wrong with a value whose variable is not set would only repeat that.
  const silenced = new Set(unset.map(({ path }) => path));
  const all = [...unset, ...problems.filter(({ path }) => !silenced.has(path))];
  if (!result.success || all.length > 0) throw new ConfigError(fileName, inFileOrder(all, filled));
  return deepFreeze(toConfig(result.output));
}

/** The schema copies what it reads, so that values it refused can be taken out of its output. */
function draftOf(output: unknown, refused: readonly (readonly Step[])[]): Draft {
  if (refused.some((steps) => steps.length === 0)) return {};
  for (const steps of refused) {
    let parent: unknown = output;
    for (const step of steps.slice(0, -1)) parent = isObject(parent) ? Reflect.get(parent, step) : undefined;
    if (isObject(parent)) Reflect.set(parent, steps.at(-1) ?? '', undefined);
  }
  // What is left has passed its part of the schema, which is what a draft promises.
  return output as Draft;
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

/** By section as the file has them, then by entry; what is missing comes first. */
function inFileOrder(problems: readonly Problem[], document: unknown): Problem[] {
  const sections = isObject(document) ? Object.keys(document) : [];
  const rank = ({ path }: Problem): [number, number] => {
    const [, section = '', index = '-1'] = /^([\w-]*)(?:\[(\d+)\])?/.exec(path) ?? [];
    return [sections.indexOf(section), Number(index)];
  };
  const ranked = problems.map((problem) => ({ problem, rank: rank(problem) }));
  return ranked.sort((a, b) => a.rank[0] - b.rank[0] || a.rank[1] - b.rank[1]).map(({ problem }) => problem);
}

function readText(path: string): string {
  const bytes = readBytes(path);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw new ConfigError(path, [{ path: '', found: 'bytes that are not UTF-8', allowed: 'text in UTF-8' }], { cause: error });
  }
}

function readBytes(path: string): Buffer {
  let descriptor: number | undefined;
  try {
    // Opening a named pipe would otherwise wait for its writer.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const status = fstatSync(descriptor);
    if (!status.isFile()) throw new ConfigError(path, [unreadable('something that is no regular file')]);
    if (status.size > LONGEST_FILE_BYTES) throw new ConfigError(path, [tooLong(`${status.size} bytes`)]);
    return readFileSync(descriptor);
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    throw new ConfigError(path, [unreadable(systemCode(error) ?? messageOf(error))], { cause: error });
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

function unreadable(found: string): Problem {
  return { path: '', found, allowed: 'a readable file' };
}
