import { parseArgs, type ParseArgsConfig } from 'node:util';
import { resolve } from 'node:path';
import { messageOf } from '../errors.ts';
import { nearest } from '../config/nearest.ts';
import { parseDuration } from './time.ts';
import { UsageError } from './usage-error.ts';

/** One option as parseArgs needs it and as `--help` shows it. */
export interface Option {
  readonly type: 'string' | 'boolean';
  readonly multiple?: boolean;
  readonly short?: string;
  /** What stands for the value: `DIR`. */
  readonly value?: string;
  readonly help: string;
}

export type Options = Readonly<Record<string, Option>>;

const HELP: Options = { help: { type: 'boolean', short: 'h', help: 'show this help' } };
const OUTPUT: Options = {
  output: { type: 'string', short: 'o', value: 'table|json', help: 'table (for people, default) or json' },
};

/** Of every command that talks to an agent. */
export const CLIENT_OPTIONS: Options = {
  socket: { type: 'string', value: 'URI|PATH', help: 'the endpoint; default: SPIFFE_ENDPOINT_SOCKET' },
  timeout: { type: 'string', value: 'DURATION', help: 'give up after this long; default 10s' },
  ...OUTPUT,
  ...HELP,
};

/** Of every command that does not. */
export const LOCAL_OPTIONS: Options = { ...OUTPUT, ...HELP };

/** Arguments that were read by a command's own options. */
export class Arguments {
  readonly positionals: readonly string[];
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(values: Readonly<Record<string, unknown>>, positionals: readonly string[]) {
    this.#values = values;
    this.positionals = positionals;
  }

  flag(name: string): boolean {
    return this.#values[name] === true;
  }

  /** @throws UsageError when the value is empty */
  text(name: string): string | undefined {
    const value = this.#values[name];
    if (value === '') throw new UsageError(`--${name} has an empty value`);
    return typeof value === 'string' ? value : undefined;
  }

  /** @throws UsageError when one value is empty */
  texts(name: string): string[] {
    const value = this.#values[name];
    const texts = Array.isArray(value) ? value.filter((item) => typeof item === 'string') : [];
    if (texts.includes('')) throw new UsageError(`--${name} has an empty value`);
    return texts;
  }

  /** @throws UsageError when the value is not one of `allowed` */
  choice<T extends string>(name: string, allowed: readonly T[]): T | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    const found = allowed.find((item) => item === value);
    if (found === undefined) throw new UsageError(`--${name} is ${JSON.stringify(value)}; allowed is ${allowed.join(', ')}`);
    return found;
  }

  /** @throws UsageError when the value is not a positive integer */
  count(name: string): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    if (!/^[1-9][0-9]{0,8}$/.test(value)) {
      throw new UsageError(`--${name} is ${JSON.stringify(value)}; allowed is an integer from 1`);
    }
    return Number(value);
  }

  /** Milliseconds. */
  duration(name: string): number | undefined {
    const value = this.text(name);
    return value === undefined ? undefined : parseDuration(value, `--${name}`);
  }

  get json(): boolean {
    return this.choice('output', ['table', 'json']) === 'json';
  }

  /** The endpoint as a URI; a plain path is taken as a Unix socket. */
  get socket(): string | undefined {
    const value = this.text('socket');
    if (value === undefined || /^[a-zA-Z][a-zA-Z0-9+.-]*:/.test(value)) return value;
    // A path is meant literally, a URI is percent-decoded.
    return `unix://${encodeURI(resolve(value)).replaceAll('?', '%3F').replaceAll('#', '%23')}`;
  }
}

/**
 * Reads `argv` strictly by `options`.
 *
 * @throws UsageError naming the nearest known option when one is unknown.
 */
export function readArguments(argv: readonly string[], options: Options): Arguments {
  const config = { args: [...argv], options: parseArgsOptions(options), allowPositionals: true } satisfies ParseArgsConfig;
  const unknown = unknownOption(config, options);
  if (unknown !== undefined) throw new UsageError(unknown);
  try {
    const { values, positionals } = parseArgs({ ...config, strict: true });
    return new Arguments(values, positionals);
  } catch (error) {
    throw new UsageError(messageOf(error).replaceAll('\n', ' '), { cause: error });
  }
}

function parseArgsOptions(options: Options): NonNullable<ParseArgsConfig['options']> {
  return Object.fromEntries(
    Object.entries(options).map(([name, { type, multiple = false, short }]) => [
      name,
      { type, multiple, ...(short === undefined ? {} : { short }) },
    ]),
  );
}

function unknownOption(config: ParseArgsConfig, options: Options): string | undefined {
  const { tokens } = parseArgs({ ...config, strict: false, tokens: true });
  for (const token of tokens) {
    if (token.kind !== 'option' || Object.hasOwn(options, token.name)) continue;
    const near = nearest(token.name, Object.keys(options));
    const known = Object.keys(options).map((name) => `--${name}`);
    return `unknown option ${token.rawName}; ${near === undefined ? `known are ${known.join(', ')}` : `did you mean --${near}?`}`;
  }
  return undefined;
}
