import { createPrivateKey, X509Certificate } from 'node:crypto';
import type { PeerCertificate } from 'node:tls';
import type { Clock } from '../../clock.ts';
import { messageOf } from '../../errors.ts';
import { readPem } from '../../spiffe/pem.ts';
import { readSmallFile } from './small-file.ts';
import { UpstreamError } from './upstream-error.ts';

export interface TlsFiles {
  readonly caFile?: string | undefined;
  readonly certificate?: string | undefined;
  readonly key?: string | undefined;
}

/** PEM texts for a connection, and what is asked of the server's certificate. */
export interface TlsMaterial {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  /** In place of the usual look at the name, after the chain is verified. Returns what is wrong. */
  readonly checkServerIdentity?: (host: string, certificate: PeerCertificate) => Error | undefined;
  /** Nothing is verified: only for an answer that proves itself. Default false. */
  readonly isUnverified?: boolean;
}

/** What a connection is made with, which may change. */
export interface TlsSource {
  /** For messages: which roots verify the server. */
  readonly roots: string;
  /**
   * The same object as long as nothing has changed.
   *
   * @throws UpstreamError `tls` when there has never been anything good, or the reason of the signal.
   */
  read(signal?: AbortSignal): Promise<TlsMaterial>;
  /** The next `read` looks anew. */
  distrust(): void;
}

/** Files that were read less than this ago are not read again: an SVID may need several requests, and there may be many. */
const FRESH_MS = 1_000;

/**
 * The TLS files, read anew about once a second of use. While one is missing, empty or half written, the last good ones go on: a
 * renewal must not look like a loss.
 */
export class TlsFileReader implements TlsSource {
  readonly roots: string;
  readonly #files: TlsFiles;
  readonly #clock: Clock;
  #good: TlsMaterial | undefined;
  #readAt = -Infinity;
  #reading: Promise<TlsMaterial> | undefined;

  constructor(files: TlsFiles, clock: Clock) {
    this.roots = files.caFile ?? 'the CAs of the system';
    this.#files = files;
    this.#clock = clock;
  }

  /**
   * The same object as long as nothing has changed.
   *
   * @throws UpstreamError `tls` when the files have never been good.
   */
  async read(): Promise<TlsMaterial> {
    if (this.#good !== undefined && this.#clock.monotonic() - this.#readAt < FRESH_MS) return this.#good;
    this.#reading ??= this.#readNow().finally(() => void (this.#reading = undefined));
    return this.#reading;
  }

  /** The next `read` looks at the files, however fresh they are. */
  distrust(): void {
    this.#readAt = -Infinity;
  }

  async #readNow(): Promise<TlsMaterial> {
    try {
      const found = await readMaterial(this.#files);
      const isSame = this.#good !== undefined && isEqual(this.#good, found);
      this.#good = isSame ? this.#good : found;
    } catch (error) {
      if (this.#good === undefined) throw new UpstreamError('tls', messageOf(error), { cause: error });
    }
    this.#readAt = this.#clock.monotonic();
    return this.#good ?? {};
  }
}

async function readMaterial({ caFile, certificate, key }: TlsFiles): Promise<TlsMaterial> {
  const ca = caFile === undefined ? {} : { ca: await readCertificates('CA certificate', caFile) };
  if (certificate === undefined || key === undefined) return ca;
  const pair = { cert: await readCertificates('client certificate', certificate), key: await readKey(key) };
  // Two files are never replaced in one moment.
  if (!new X509Certificate(pair.cert).checkPrivateKey(createPrivateKey(pair.key))) {
    throw new Error(`the client certificate in ${certificate} and the client key in ${key} do not belong together`);
  }
  return { ...ca, ...pair };
}

async function readCertificates(what: string, path: string): Promise<string> {
  const text = await readSmallFile(what, path);
  return good(what, path, text, () => {
    const certificates = readPem(text).filter(({ label }) => label === 'CERTIFICATE');
    if (certificates.length === 0) throw new Error('it holds no certificate in PEM');
    for (const { der } of certificates) new X509Certificate(der);
  });
}

async function readKey(path: string): Promise<string> {
  const text = await readSmallFile('client key', path);
  return good('client key', path, text, () => void createPrivateKey(text));
}

function good(what: string, path: string, text: string, parse: () => void): string {
  try {
    parse();
    return text;
  } catch (error) {
    throw new Error(`the ${what} in ${path} cannot be used: ${messageOf(error)}`, { cause: error });
  }
}

function isEqual(a: TlsMaterial, b: TlsMaterial): boolean {
  return a.ca === b.ca && a.cert === b.cert && a.key === b.key;
}
