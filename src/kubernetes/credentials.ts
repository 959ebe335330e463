import { readFile, stat } from 'node:fs/promises';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import { SignetError, messageOf } from '../errors.ts';

/** What one connection and one request need; read anew for each request, so that rotated files count at once. */
export interface Access {
  /** Bearer token, or undefined. */
  readonly token: string | undefined;
  /** PEM of the only roots that are believed; undefined for those of the system. */
  readonly ca: string | undefined;
  /** PEM of the client certificate and of its key. */
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

/** Where a server is and how to prove ourselves to it. */
export interface Credentials {
  readonly server: URL;
  /** The name that the server's certificate must be for, where it is not the one in `server`. */
  readonly serverName: string | undefined;
  /** Where all of this was found, for messages: `in-cluster service account`. */
  readonly origin: string;
  /** @throws SignetError `unavailable` when a file has never been readable. */
  read(): Promise<Access>;
}

/** Where the kubelet puts a pod's token and the cluster's CA. */
export const SERVICE_ACCOUNT_DIRECTORY = '/var/run/secrets/kubernetes.io/serviceaccount';

/** Far above any certificate bundle; a wrong path may lead to a file without end. */
const LARGEST_FILE_BYTES = 1_048_576;

const CERTIFICATE = /-----BEGIN CERTIFICATE-----/;

/** How a file's text is told from rubbish, and what to call it. */
interface FileKind {
  readonly what: string;
  readonly isGood: (text: string) => boolean;
  readonly allowed: string;
}

const TOKEN: FileKind = {
  what: 'token',
  isGood: (text) => /^[\x21-\x7e]+$/.test(text),
  allowed: 'one token of printable characters without blanks is needed',
};
const CA: FileKind = {
  what: 'CA certificate',
  isGood: (text) => CERTIFICATE.test(text),
  allowed: 'certificates in PEM are needed',
};
const CLIENT_CERTIFICATE: FileKind = { ...CA, what: 'client certificate' };
const CLIENT_KEY: FileKind = {
  what: 'client key',
  isGood: (text) => /-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text),
  allowed: 'a private key in PEM is needed',
};

/**
 * A small file that others replace while we run. The last good text is kept while the file is missing, empty or half written:
 * the kubelet's own renewal must not look like a loss.
 */
class ReplacedFile {
  readonly #path: string;
  readonly #kind: FileKind;
  readonly #origin: string;
  #good: string | undefined;

  constructor(path: string, kind: FileKind, origin: string) {
    this.#path = path;
    this.#kind = kind;
    this.#origin = origin;
  }

  async read(): Promise<string> {
    try {
      this.#good = await this.#readNow();
    } catch (error) {
      if (this.#good === undefined) throw this.#failure(messageOf(error), error);
    }
    return this.#good;
  }

  async #readNow(): Promise<string> {
    const stats = await stat(this.#path);
    if (!stats.isFile()) throw new Error('it is not a regular file');
    const { size } = stats;
    if (size > LARGEST_FILE_BYTES) throw new Error(`it has ${size} bytes; at most ${LARGEST_FILE_BYTES} are allowed`);
    const text = (await readFile(this.#path, 'utf8')).trim();
    const problem = problemOf(text, this.#kind);
    if (problem !== undefined) throw new Error(problem);
    return text;
  }

  #failure(reason: string, cause: unknown): SignetError {
    const what = `the ${this.#kind.what} in ${this.#path}`;
    return new SignetError('unavailable', `${this.#origin}: ${what} cannot be used: ${reason}`, { cause });
  }
}

/** A secret given in the configuration itself, or the path of the file that holds it. */
export type Source = { readonly text: string } | { readonly path: string };

export interface CredentialSources {
  readonly server: URL;
  readonly serverName?: string | undefined;
  readonly origin: string;
  readonly token?: Source | undefined;
  readonly ca?: Source | undefined;
  readonly cert?: Source | undefined;
  readonly key?: Source | undefined;
}

/**
 * Credentials from texts and files.
 *
 * @throws SignetError `invalid_config` for a server without TLS, a text of the wrong kind, or half of a client certificate.
 */
export function credentialsFrom(sources: CredentialSources): Credentials {
  const { server, origin } = sources;
  if (server.protocol !== 'https:') {
    throw new SignetError('invalid_config', `${origin}: the server ${server.href} has no TLS; an https: address is needed`);
  }
  if ((sources.cert === undefined) !== (sources.key === undefined)) {
    const half = sources.cert === undefined ? 'client key but no client certificate' : 'client certificate but no client key';
    throw new SignetError('invalid_config', `${origin}: there is a ${half}; both are needed`);
  }
  const readers = {
    token: readerOf(sources.token, TOKEN, origin),
    ca: readerOf(sources.ca, CA, origin),
    cert: readerOf(sources.cert, CLIENT_CERTIFICATE, origin),
    key: readerOf(sources.key, CLIENT_KEY, origin),
  };
  const read = async (): Promise<Access> => {
    const [token, ca, cert, key] = await Promise.all([readers.token(), readers.ca(), readers.cert(), readers.key()]);
    return { token, ca, cert, key };
  };
  return { server, serverName: sources.serverName, origin, read };
}

function readerOf(source: Source | undefined, kind: FileKind, origin: string): () => Promise<string | undefined> {
  if (source === undefined) return async () => undefined;
  if ('path' in source) {
    const file = new ReplacedFile(source.path, kind, origin);
    return () => file.read();
  }
  const text = source.text.trim();
  const problem = problemOf(text, kind);
  if (problem !== undefined) throw new SignetError('invalid_config', `${origin}: the ${kind.what} cannot be used: ${problem}`);
  return async () => text;
}

function problemOf(text: string, kind: FileKind): string | undefined {
  if (kind.isGood(text)) return undefined;
  return `${text === '' ? 'it is empty' : 'its content is something else'}; ${kind.allowed}`;
}

/** Where a pod finds its own service account. */
export interface InClusterOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Default `SERVICE_ACCOUNT_DIRECTORY`. */
  readonly directory?: string;
}

/**
 * The credentials of the pod that we run in: the address from KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, `token` and
 * `ca.crt` from the service account's directory.
 *
 * @throws SignetError `invalid_config` outside a pod.
 */
export function inClusterCredentials(options: InClusterOptions = {}): Credentials {
  const { env = process.env, directory = SERVICE_ACCOUNT_DIRECTORY } = options;
  const [host, port] = [env['KUBERNETES_SERVICE_HOST'], env['KUBERNETES_SERVICE_PORT']];
  const missing = [host ? '' : 'KUBERNETES_SERVICE_HOST', port ? '' : 'KUBERNETES_SERVICE_PORT'].filter((name) => name !== '');
  if (!host || !port) {
    const reason = `${missing.join(' and ')} not set: this is no pod; run in a cluster or name a kubeconfig file`;
    throw new SignetError('invalid_config', `in-cluster service account: ${reason}`);
  }
  return credentialsFrom({
    server: serverOf(host, port),
    origin: 'in-cluster service account',
    token: { path: join(directory, 'token') },
    ca: { path: join(directory, 'ca.crt') },
  });
}

function serverOf(host: string, port: string): URL {
  const address = `https://${isIPv6(host) ? `[${host}]` : host}:${port}`;
  if (/^[0-9]{1,5}$/.test(port) && URL.canParse(address)) return new URL(address);
  const found = `KUBERNETES_SERVICE_HOST ${JSON.stringify(host)} and KUBERNETES_SERVICE_PORT ${JSON.stringify(port)}`;
  throw new SignetError('invalid_config', `in-cluster service account: ${found} are not an address and a port`);
}
