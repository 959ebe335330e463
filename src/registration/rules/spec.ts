import { TemplateError, type Template } from './syntax.ts';
import { parseTemplate } from './template.ts';
import { didYouMean, problem, show, type Problem } from './problems.ts';

/** Reads the members of one object of a rule and collects everything that is wrong with them. */
export class SpecReader {
  readonly problems: Problem[];
  readonly #path: string;
  readonly #object: Readonly<Record<string, unknown>>;

  constructor(path: string, object: Readonly<Record<string, unknown>>, problems: Problem[] = []) {
    this.problems = problems;
    this.#path = path;
    this.#object = object;
  }

  /** Refuses all other members: one that narrows a rule must not be overlooked. */
  only(known: readonly string[]): void {
    for (const key of Object.keys(this.#object).filter((name) => !known.includes(name))) {
      this.refuse(key, show(this.#object[key]), `a member among ${known.join(', ')}`, didYouMean(key, known));
    }
  }

  /** Returns undefined, for readers that give nothing for what they refuse. */
  refuse(key: string, found: string, allowed: string, hint?: string): undefined {
    this.problems.push(problem(this.at(key), found, allowed, hint));
  }

  /** `spec.ttl` */
  at(key: string): string {
    return `${this.#path}.${key}`;
  }

  /** The member; null counts as left out, as Kubernetes does. */
  value(key: string): unknown {
    return Object.hasOwn(this.#object, key) ? (this.#object[key] ?? undefined) : undefined;
  }

  text(key: string): string {
    const value = this.value(key);
    if (value === undefined || typeof value === 'string') return value ?? '';
    this.refuse(key, show(value), 'a text');
    return '';
  }

  flag(key: string): boolean {
    const value = this.value(key);
    if (value === undefined || typeof value === 'boolean') return value ?? false;
    this.refuse(key, show(value), 'true or false');
    return false;
  }

  /** A flag for something that an agent without a server cannot do. */
  unsupported(key: string, why: string): void {
    if (this.flag(key)) this.refuse(key, 'true', `false: ${why}`);
  }

  /** A list of texts, each read by `read`, which says what is allowed instead by throwing or returning undefined. */
  list<T>(key: string, most: number, read: (text: string, path: string) => T | undefined): T[] {
    const value = this.value(key);
    if (value === undefined) return [];
    if (!Array.isArray(value) || value.length > most) {
      this.refuse(key, Array.isArray(value) ? `${value.length} items` : show(value), `a list of at most ${most} texts`);
      return [];
    }
    return value.flatMap((item: unknown, index) => {
      const path = `${key}[${index}]`;
      if (typeof item !== 'string') return this.refuse(path, show(item), 'a text') ?? [];
      return read(item, path) ?? [];
    });
  }

  /** A template; undefined where it is refused or empty. */
  template(text: string, key: string): Template | undefined {
    try {
      return parseTemplate(text);
    } catch (error) {
      if (!(error instanceof TemplateError)) throw error;
      this.refuse(key, `${error.found} at ${error.position}`, error.allowed, error.hint);
      return undefined;
    }
  }
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
