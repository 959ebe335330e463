import { ConfigError, formatPath, show, type Problem, type Step } from './problems.ts';

/** The process environment, as far as a configuration may look into it. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Aliases multiply what is written: a few hundred bytes can mean billions of values. The most entries of a file need half. */
const MOST_VALUES = 200_000;

/** All text together, after variables and aliases were filled in: four times the largest file. */
const MOST_CHARACTERS = 4_194_304;

/** Aliases can also make a document deeper than it is written, or endless. */
const DEEPEST = 32;

/** These mean something else to JavaScript objects, and would be lost on the way to the check of unknown keys. */
const RESERVED_KEYS = new Set(['__proto__', 'constructor', 'prototype']);

/** `$${` first: it stands for a literal `${`. Then a variable, then anything else that looks like one. */
const REFERENCE = /\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{[^}]{0,40}\}?/g;

/**
 * A copy of a parsed document in which `${NAME}` in each string value is the variable's value, and `$${` is `${`. Keys stay as
 * they are. What was filled in is neither scanned again nor read as YAML, so a variable cannot change the structure.
 *
 * @throws ConfigError when aliases or variables make the document too large.
 */
export function fillIn(document: unknown, env: Environment, fileName: string): { filled: unknown; problems: Problem[] } {
  const filler = new Filler(env, fileName);
  return { filled: filler.value(document, []), problems: filler.problems };
}

class Filler {
  readonly problems: Problem[] = [];
  readonly #env: Environment;
  readonly #fileName: string;
  #values = 0;
  #characters = 0;

  constructor(env: Environment, fileName: string) {
    this.#env = env;
    this.#fileName = fileName;
  }

  value(value: unknown, at: readonly Step[]): unknown {
    if (++this.#values > MOST_VALUES) throw this.#tooLarge(`more than ${MOST_VALUES} values`);
    if (at.length > DEEPEST) throw this.#tooLarge(`values nested deeper than ${DEEPEST}`);
    if (typeof value === 'string') return this.#text(value, at);
    if (Array.isArray(value)) return value.map((item, index) => this.value(item, [...at, index]));
    return typeof value === 'object' && value !== null ? this.#mapping(value, at) : value;
  }

  #mapping(mapping: object, at: readonly Step[]): Record<string, unknown> {
    const filled: Record<string, unknown> = {};
    for (const [key, member] of Object.entries(mapping)) {
      const path = [...at, key];
      this.#spend(key.length);
      if (RESERVED_KEYS.has(key)) this.problems.push({ path: formatPath(path), found: show(key), allowed: 'no such key' });
      else filled[key] = this.value(member, path);
    }
    return filled;
  }

  #text(text: string, at: readonly Step[]): string {
    this.#spend(text.length);
    if (!text.includes('${')) return text;
    return text.replaceAll(REFERENCE, (reference: string, name: string | undefined) => {
      if (reference === '$${') return '${';
      const value = name === undefined || !Object.hasOwn(this.#env, name) ? undefined : this.#env[name];
      if (value === undefined) this.#refuse(reference, name, at);
      this.#spend(value?.length ?? 0);
      return value ?? reference;
    });
  }

  #refuse(reference: string, name: string | undefined, at: readonly Step[]): void {
    const path = formatPath(at);
    const found = show(reference);
    if (name !== undefined) this.problems.push({ path, found, allowed: `an environment variable that is set; ${name} is not` });
    else this.problems.push({ path, found, allowed: '${NAME} with a name of letters, digits and "_", or $${ for a literal ${' });
  }

  #spend(characters: number): void {
    this.#characters += characters;
    if (this.#characters > MOST_CHARACTERS) throw this.#tooLarge(`more than ${MOST_CHARACTERS} characters`);
  }

  #tooLarge(found: string): ConfigError {
    const allowed = `at most ${MOST_VALUES} values, ${DEEPEST} levels and ${MOST_CHARACTERS} characters`;
    return new ConfigError(this.#fileName, [{ path: '', found: `${found}, aliases and variables filled in`, allowed }]);
  }
}
