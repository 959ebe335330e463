import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { CORE_SCHEMA, YAMLException, load } from 'js-yaml';
import { SignetError, messageOf } from '../errors.ts';
import { credentialsFrom, type Credentials, type Source } from './credentials.ts';
import { isObject, objectAt, objectsAt, textAt, type JsonObject } from './json.ts';

export interface KubeconfigOptions {
  /** Another context than the file's `current-context`. */
  readonly context?: string;
}

/** A kubeconfig is a few kilobytes for each cluster. */
const LARGEST_FILE_BYTES = 1_048_576;

const DEEPEST = 32;

/** Members that would weaken TLS, start a program or lead elsewhere, each with what to do instead. */
const REFUSED_OF_CLUSTER: Readonly<Record<string, string>> = {
  'insecure-skip-tls-verify': 'the server must be verified; give certificate-authority or certificate-authority-data instead',
  'proxy-url': 'no proxy is used; give the address of the server itself',
};
const REFUSED_OF_USER: Readonly<Record<string, string>> = {
  exec: 'no credential plugin is started; give tokenFile or a client certificate instead',
  'auth-provider': 'no credential plugin is started; give tokenFile or a client certificate instead',
  username: 'Kubernetes has no passwords any more; give a token or a client certificate instead',
  password: 'Kubernetes has no passwords any more; give a token or a client certificate instead',
  as: 'nobody is impersonated; give the credentials of the account itself',
};

/**
 * Credentials from the current context of a kubeconfig file. Paths in it count from its own directory; `…-data` goes before a
 * path, and `tokenFile` before `token`, as in kubectl. Files that it names are read anew for each request.
 *
 * @throws SignetError `invalid_config` with the file, the member and what is allowed.
 */
export function kubeconfigCredentials(path: string, options: KubeconfigOptions = {}): Credentials {
  const file = new Kubeconfig(path);
  const contextName = options.context ?? textAt(file.root, 'current-context');
  if (contextName === '') throw file.failure('current-context', 'is missing; it names one of contexts');
  const context = objectAt(file.named('contexts', contextName), 'context');
  const clusterName = textAt(context, 'cluster');
  const userName = textAt(context, 'user');
  const cluster = objectAt(file.named('clusters', clusterName), 'cluster');
  const user = userName === '' ? {} : objectAt(file.named('users', userName), 'user');
  file.refuse(`cluster ${clusterName}`, cluster, REFUSED_OF_CLUSTER);
  file.refuse(`user ${userName}`, user, REFUSED_OF_USER);
  return credentialsFrom({
    server: file.server(clusterName, cluster),
    serverName: textAt(cluster, 'tls-server-name') || undefined,
    origin: `kubeconfig ${path}, context ${contextName}`,
    ca: file.source(cluster, 'certificate-authority'),
    cert: file.source(user, 'client-certificate'),
    key: file.source(user, 'client-key'),
    token: file.token(user),
  });
}

class Kubeconfig {
  readonly root: JsonObject;
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
    const root = this.#read();
    if (!isObject(root)) throw this.failure('the file', 'is not a mapping; a kubeconfig (kind: Config) is needed');
    this.root = root;
  }

  /** The entry called `name` in a list of named ones. */
  named(list: string, name: string): JsonObject {
    const entries = objectsAt(this.root, list);
    const found = entries.find((entry) => textAt(entry, 'name') === name);
    if (found !== undefined) return found;
    const names = entries.map((entry) => textAt(entry, 'name')).filter((known) => known !== '');
    throw this.failure(list, `has no ${JSON.stringify(name)}; there is ${names.length === 0 ? 'none' : names.join(', ')}`);
  }

  refuse(where: string, object: JsonObject, refused: Readonly<Record<string, string>>): void {
    for (const [key, advice] of Object.entries(refused)) {
      const value = object[key];
      const isUnset = value === undefined || value === null || value === false || value === '';
      if (!isUnset) throw this.failure(`${where}: ${key}`, `is not supported: ${advice}`);
    }
  }

  server(name: string, cluster: JsonObject): URL {
    const text = textAt(cluster, 'server');
    if (URL.canParse(text)) return new URL(text);
    const found = text === '' ? 'missing' : JSON.stringify(text);
    throw this.failure(`cluster ${name}: server`, `is ${found}; an address like https://10.0.0.1:6443 is needed`);
  }

  source(object: JsonObject, key: string): Source | undefined {
    const data = textAt(object, `${key}-data`);
    if (data !== '') return { text: Buffer.from(data, 'base64').toString('utf8') };
    return this.#fileAt(textAt(object, key));
  }

  token(user: JsonObject): Source | undefined {
    const text = textAt(user, 'token');
    return this.#fileAt(textAt(user, 'tokenFile')) ?? (text === '' ? undefined : { text });
  }

  failure(what: string, problem: string, cause?: unknown): SignetError {
    return new SignetError('invalid_config', `kubeconfig ${this.#path}: ${what} ${problem}`, { cause });
  }

  #fileAt(path: string): Source | undefined {
    return path === '' ? undefined : { path: resolve(dirname(this.#path), path) };
  }

  #read(): unknown {
    let text: string;
    try {
      text = readFileSync(this.#path, 'utf8');
    } catch (error) {
      throw this.failure('the file', `cannot be read: ${messageOf(error)}`, error);
    }
    if (text.length > LARGEST_FILE_BYTES) {
      throw this.failure('the file', `has ${text.length} bytes; at most ${LARGEST_FILE_BYTES} are allowed`);
    }
    try {
      return load(text, { filename: this.#path, schema: CORE_SCHEMA, maxDepth: DEEPEST });
    } catch (error) {
      throw this.failure('the file', `is not YAML: ${reasonOf(error)}`);
    }
  }
}

/** Without the lines around the mistake that js-yaml quotes: they may hold a key or a token. */
function reasonOf(error: unknown): string {
  if (!(error instanceof YAMLException)) return messageOf(error);
  const { reason, mark } = error;
  return mark === undefined ? reason : `${reason} in line ${mark.line + 1}, column ${mark.column + 1}`;
}
