import { statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { SignetError, messageOf, systemCode } from '../errors.ts';

/** Names of users and groups by ID. */
export type Names = ReadonlyMap<number, string>;

const NO_NAMES: Names = new Map();

/** No blanks, control characters or bytes that are not UTF-8, and not the first character of a comment or an NIS marker. */
const NAME = /^[^\s\p{Cc}\ufffd+#-][^\s\p{Cc}\ufffd]*$/u;

/** Names by user ID from the text of passwd(5). Of several names for one ID the first counts, as getpwuid(3) has it. */
export function parsePasswd(text: string): Names {
  return parseAccounts(text, 7);
}

/** Names by group ID from the text of group(5). */
export function parseGroup(text: string): Names {
  return parseAccounts(text, 4);
}

/** Both files begin with `name:password:ID`; a line that is not of its form (comments, NIS markers) is left out. */
function parseAccounts(text: string, fieldCount: number): Names {
  const names = new Map<number, string>();
  for (const line of text.split('\n')) {
    const fields = line.split(':');
    const [name = '', , id = ''] = fields;
    if (fields.length !== fieldCount || !NAME.test(name) || !/^[0-9]{1,10}$/.test(id)) continue;
    const number = Number(id);
    if (number < 0xffff_ffff && !names.has(number)) names.set(number, name);
  }
  return names;
}

/**
 * The names in `passwd` and `group`, read again when those files change. Never getpwuid(3): it may ask the network and wait for
 * it. A file that is missing has no names.
 */
export class AccountNames {
  readonly #users: NamesFile;
  readonly #groups: NamesFile;

  constructor(directory = '/etc') {
    this.#users = new NamesFile(`${directory}/passwd`, parsePasswd);
    this.#groups = new NamesFile(`${directory}/group`, parseGroup);
  }

  /** @throws SignetError `unavailable` when the file is there and cannot be read. */
  users(): Promise<Names> {
    return this.#users.current();
  }

  /** @throws SignetError `unavailable` when the file is there and cannot be read. */
  groups(): Promise<Names> {
    return this.#groups.current();
  }

  /** Both at once, when they have been read since they changed; else undefined. */
  now(): { readonly users: Names; readonly groups: Names } | undefined {
    const [users, groups] = [this.#users.now(), this.#groups.now()];
    return users === undefined || groups === undefined ? undefined : { users, groups };
  }
}

class NamesFile {
  readonly #path: string;
  readonly #parse: (text: string) => Names;
  #version: string | undefined;
  #names: Promise<Names> = Promise.resolve(NO_NAMES);
  /** What was read last, and of which version of the file. */
  #known: { readonly version: string; readonly names: Names } | undefined;

  constructor(path: string, parse: (text: string) => Names) {
    this.#path = path;
    this.#parse = parse;
  }

  /** Undefined when the file has to be read first, or cannot be. */
  now(): Names | undefined {
    try {
      return this.#known?.version === this.#look() ? this.#known.names : undefined;
    } catch (error) {
      return systemCode(error) === 'ENOENT' ? NO_NAMES : undefined;
    }
  }

  async current(): Promise<Names> {
    try {
      const version = this.#look();
      if (version !== this.#version) this.#read(version);
      return await this.#names;
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return NO_NAMES;
      throw new SignetError('unavailable', `${this.#path} cannot be read: ${messageOf(error)}`, { cause: error });
    }
  }

  /** Which version of the file there is. */
  #look(): string {
    // A question to the kernel's cache, asked for each connection: the thread pool would take ten times as long to answer it.
    const { dev, ino, size, mtimeNs, ctimeNs } = statSync(this.#path, { bigint: true });
    return `${dev}:${ino}:${size}:${mtimeNs}:${ctimeNs}`;
  }

  /** Whoever asks meanwhile waits for the same reading; one that failed is not kept. */
  #read(version: string): void {
    this.#version = version;
    this.#names = readFile(this.#path, 'utf8').then((text) => {
      const names = this.#parse(text);
      this.#known = { version, names };
      return names;
    });
    this.#names.catch(() => {
      if (this.#version === version) this.#version = undefined;
    });
  }
}
