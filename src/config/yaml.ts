import { CORE_SCHEMA, loadAll, YAMLException } from 'js-yaml';
import { messageOf } from '../errors.ts';
import { ConfigError, show, type Problem } from './problems.ts';

/** 1 MiB: about 8,000 entries, and more than a Kubernetes ConfigMap can hold. */
export const LONGEST_FILE_BYTES = 1_048_576;

/** A configuration is five deep; the rest is room for mistakes that deserve a better message than this bound's. */
const DEEPEST = 32;

/** An alias saves writing a few selectors twice; what a thousand of them may grow to is bounded when they are expanded. */
const MOST_ALIASES = 1_000;

/**
 * The one document of a YAML 1.2 text with the core schema: no custom tags, no merge keys, no key twice in a mapping. A text
 * without a document is an empty mapping.
 *
 * @throws ConfigError with the position of a syntax error.
 */
export function readYaml(text: string, fileName: string): unknown {
  const bytes = Buffer.byteLength(text);
  if (bytes > LONGEST_FILE_BYTES) throw refuse(fileName, tooLong(`${bytes} bytes`));
  const documents = documentsOf(text, fileName);
  const found = `${documents.length} YAML documents`;
  if (documents.length > 1) throw refuse(fileName, { path: '', found, allowed: 'one YAML document' });
  return documents[0] ?? {};
}

/** The problem of a file that is larger than is read. */
export function tooLong(found: string): Problem {
  return { path: '', found, allowed: `at most ${LONGEST_FILE_BYTES} bytes` };
}

function documentsOf(text: string, fileName: string): unknown[] {
  try {
    return loadAll(text, { filename: fileName, schema: CORE_SCHEMA, maxDepth: DEEPEST, maxAliases: MOST_ALIASES });
  } catch (error) {
    throw new ConfigError(fileName, [syntaxProblem(text, error)], { cause: error });
  }
}

function syntaxProblem(text: string, error: unknown): Problem {
  const mark = error instanceof YAMLException ? error.mark : undefined;
  const reason = error instanceof YAMLException ? error.reason : messageOf(error);
  if (mark === undefined) return { path: '', found: 'a text that is not YAML', allowed: `YAML 1.2: ${reason}` };
  const line = text.split(/\r\n|\r|\n/, mark.line + 1)[mark.line] ?? '';
  const position = `line ${mark.line + 1}, column ${mark.column + 1}`;
  const found = line.trim() === '' ? position : `${position}: ${show(line.trim())}`;
  return { path: '', found, allowed: `YAML 1.2 without custom tags and duplicate keys: ${reason}` };
}

function refuse(fileName: string, problem: Problem): ConfigError {
  return new ConfigError(fileName, [problem]);
}
