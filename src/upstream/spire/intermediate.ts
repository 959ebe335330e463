import { X509Certificate } from 'node:crypto';
import type { Upstream, UpstreamAnswer, UpstreamRequest } from '../upstream.ts';
import { chainUp } from '../wire/chain.ts';
import type { SpireSession } from './session.ts';
import { SpireError } from './spire-error.ts';

type Session = Pick<SpireSession, 'bundle' | 'syncMs' | 'problem' | 'onReturn' | 'look' | 'asDownstream' | 'close'>;

/** What the last node CA stands under. */
interface Signer {
  readonly certificate: Buffer;
  readonly root: Buffer | undefined;
  /** The server has signed under it although it was tainted: it has nothing else. */
  readonly wasTainted: boolean;
}

/** SPIRE agents look every 5 s whatever we do. */
const AGENTS_SYNC_MS = 5_000;

/** Node CAs from a SPIRE server, for which this node is a downstream server. What it answers is for others to judge. */
export class SpireIntermediate implements Upstream {
  readonly #session: Session;
  #signer: Signer | undefined;

  constructor(session: Session) {
    this.#session = session;
  }

  get overlapMs(): number {
    return 2 * Math.max(this.#session.syncMs, AGENTS_SYNC_MS);
  }

  roots(): readonly Buffer[] {
    return this.#session.bundle.roots();
  }

  /**
   * Known only as far as it matters: what signed last; or, when its root is tainted, a root that is not, so that a new node CA is
   * asked for at once.
   */
  issuer(): Buffer | undefined {
    const { bundle } = this.#session;
    const signer = this.#signer;
    const isGood = signer !== undefined && (signer.root === undefined || signer.wasTainted || !bundle.isTainted(signer.root));
    if (isGood) return signer.certificate;
    if (!bundle.roots().some((root) => bundle.isTainted(root))) return signer?.certificate;
    return newest(bundle.roots().filter((root) => !bundle.isTainted(root))) ?? signer?.certificate;
  }

  problem(): string | undefined {
    return this.#session.problem();
  }

  onChange(listener: () => void): () => void {
    const stops = [this.#session.bundle.onChange(listener), this.#session.onReturn(listener)];
    return () => stops.forEach((stop) => stop());
  }

  async sign(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamAnswer> {
    signal.throwIfAborted();
    const { bundle } = this.#session;
    if (bundle.roots().length === 0) await this.#session.look(signal);
    const asked = { csr: await request.csr(), preferredTtl: Math.floor(request.ttlMs / 1_000) };
    const { caCertChain, x509Authorities } = await this.#session.asDownstream('sign', 'NewDownstreamX509CA', asked, signal);
    const [certificate, ...above] = caCertChain;
    if (certificate === undefined) throw new SpireError('malformed', 'the answer of the SPIRE server to NewDownstreamX509CA holds no certificate');
    // What has signed is newer than what is known: then its root may be too.
    if (!x509Authorities.every((der) => bundle.roots().some((root) => root.equals(der)))) await this.#session.look(signal);
    const roots = bundle.roots();
    const chain = chainUp(certificate, above, roots) ?? [certificate, ...above.filter((der) => !roots.some((root) => root.equals(der)))];
    this.#note(chain, roots);
    return { chain, roots };
  }

  async close(): Promise<void> {
    await this.#session.close();
  }

  #note(chain: readonly Buffer[], roots: readonly Buffer[]): void {
    const top = new X509Certificate(chain.at(-1) ?? Buffer.alloc(0));
    const root = roots.find((der) => isIssuedBy(top, new X509Certificate(der)));
    const certificate = chain[1] ?? root;
    this.#signer = certificate && { certificate, root, wasTainted: root !== undefined && this.#session.bundle.isTainted(root) };
  }
}

function isIssuedBy(child: X509Certificate, parent: X509Certificate): boolean {
  return child.checkIssued(parent) && child.verify(parent.publicKey);
}

function newest(roots: readonly Buffer[]): Buffer | undefined {
  const begins = (der: Buffer): number => new X509Certificate(der).validFromDate.getTime();
  return [...roots].sort((a, b) => begins(b) - begins(a))[0];
}
