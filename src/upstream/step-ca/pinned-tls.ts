import { createHash, X509Certificate } from 'node:crypto';
import { checkServerIdentity as checkName, type DetailedPeerCertificate, type PeerCertificate } from 'node:tls';
import type { Clock } from '../../clock.ts';
import { toPem } from '../../spiffe/pem.ts';
import { unlessAborted } from '../wire/abort.ts';
import { isRoot, once } from '../wire/chain.ts';
import type { WireAnswer } from '../wire/exchange.ts';
import { TlsFileReader, type TlsMaterial, type TlsSource } from '../wire/tls-material.ts';
import { hasFault, UpstreamError } from '../wire/upstream-error.ts';
import { certificatesAt, objectOf } from './answer.ts';
import type { StepCaPin } from './step-ca-options.ts';

/** Longer than any path; it bounds the walk, since the one of a root leads to itself. */
const LONGEST_PATH = 8;

/**
 * What a connection to step-ca is verified with.
 *
 * @param ask gets an answer from a server that nobody has verified.
 */
export function pinnedTls(pin: StepCaPin, ask: (target: string) => Promise<WireAnswer>, clock: Clock): PinnedTls {
  return 'caFile' in pin ? new FilePin(pin.caFile, clock) : new FingerprintPin(pin.fingerprint, ask);
}

export interface PinnedTls extends TlsSource {
  /** Roots (DER) that the verified server has named. */
  learn(roots: readonly Buffer[]): void;
}

/** The file says it all: what the server names changes nothing. */
class FilePin implements PinnedTls {
  readonly roots: string;
  readonly #files: TlsFileReader;
  #read: TlsMaterial | undefined;
  #material: TlsMaterial = {};

  constructor(caFile: string, clock: Clock) {
    this.roots = caFile;
    this.#files = new TlsFileReader({ caFile }, clock);
  }

  async read(): Promise<TlsMaterial> {
    const read = await this.#files.read();
    if (read !== this.#read) this.#material = { ...read, checkServerIdentity };
    this.#read = read;
    return this.#material;
  }

  distrust(): void {
    this.#files.distrust();
  }

  learn(): void {}
}

/** One root by its fingerprint, got from the server once, and whatever the server names as roots over a connection verified by it. */
class FingerprintPin implements PinnedTls {
  readonly roots: string;
  readonly #fingerprint: string;
  readonly #ask: (target: string) => Promise<WireAnswer>;
  #fetching: Promise<Buffer> | undefined;
  #known: readonly Buffer[] = [];
  #pinned: Buffer | undefined;
  #material: TlsMaterial = {};

  constructor(fingerprint: string, ask: (target: string) => Promise<WireAnswer>) {
    this.#fingerprint = fingerprint.toLowerCase();
    this.roots = `the root with the fingerprint ${this.#fingerprint}`;
    this.#ask = ask;
  }

  async read(signal?: AbortSignal): Promise<TlsMaterial> {
    if (this.#pinned === undefined) {
      this.#fetching ??= this.#fetch().finally(() => void (this.#fetching = undefined));
      const root = await (signal === undefined ? this.#fetching : unlessAborted(this.#fetching, signal));
      this.#pinned = root;
      this.learn([]);
    }
    return this.#material;
  }

  distrust(): void {}

  learn(roots: readonly Buffer[]): void {
    if (this.#pinned === undefined) return;
    const known = once([this.#pinned, ...roots]);
    if (known.length === this.#known.length && known.every((der, index) => this.#known[index]?.equals(der) === true)) return;
    this.#known = known;
    this.#material = { ca: known.map((der) => toPem('CERTIFICATE', der)).join(''), checkServerIdentity };
  }

  /** From a server that may be anybody: its digest alone makes it the root. */
  async #fetch(): Promise<Buffer> {
    const target = `/1.0/root/${this.#fingerprint}`;
    const answer = await this.#ask(target);
    try {
      const [root] = certificatesAt({ ca: [objectOf({ what: `GET ${target}`, server: 'step-ca' }, answer)['ca']] }, 'ca');
      if (root !== undefined && isRoot(root) && createHash('sha256').update(root).digest('hex') === this.#fingerprint) return root;
    } catch (error) {
      if (!hasFault(error, 'not_found', 'bad_request', 'malformed')) throw error;
    }
    const remedy = 'What to do: compare authority.stepCa.fingerprint with `step certificate fingerprint root_ca.crt`; after a change of the root it is that of the new one';
    throw new UpstreamError('tls', `what answers at the address of step-ca has no root with the fingerprint ${this.#fingerprint}. ${remedy}`);
  }
}

/**
 * A node CA stands under the same root and may sign any DNS name, and so a certificate for step-ca's: whoever holds one node must
 * not be step-ca to the others. It has a SPIFFE ID, which the CA of step-ca below
 * its root must therefore not have.
 */
function checkServerIdentity(host: string, certificate: PeerCertificate): Error | undefined {
  const wrong = checkName(host, certificate);
  if (wrong !== undefined) return wrong;
  let one: PeerCertificate = certificate;
  for (let depth = 0; depth < LONGEST_PATH; depth += 1) {
    const above: PeerCertificate | undefined = (one as Partial<DetailedPeerCertificate>).issuerCertificate;
    // The root may have the ID of the trust domain: no node has its key.
    if (above === undefined || above.raw.equals(one.raw)) return undefined;
    if (hasSpiffeId(one)) {
      const text = 'the certificate of the server, or a CA above it, has a SPIFFE ID: a node CA has signed it, and not the CA of step-ca';
      return Object.assign(new Error(text), { code: 'CERT_OF_NODE_CA' });
    }
    one = above;
  }
  return undefined;
}

function hasSpiffeId({ raw }: PeerCertificate): boolean {
  return /\bURI:spiffe:/i.test(new X509Certificate(raw).subjectAltName ?? '');
}
