import { createHash, createPublicKey, X509Certificate, type KeyObject } from 'node:crypto';
import type { Clock } from '../../clock.ts';
import { messageOf } from '../../errors.ts';
import type { Log } from '../../log.ts';
import type { JwtAuthority } from '../../spiffe/bundle.ts';
import type { TrustDomain } from '../../spiffe/id.ts';
import { readPem } from '../../spiffe/pem.ts';
import { readSmallFile } from '../wire/small-file.ts';
import type { Store } from './agent-state.ts';
import { formatBundle, readBundle, type KeptBundle, type KeptJwtKey, type KeptRoot } from './bundle-state.ts';
import type { WireBundle, WireJwtKey } from './messages.ts';
import { SpireError } from './spire-error.ts';

export interface BundleKeeperOptions {
  readonly trustDomain: TrustDomain;
  readonly bundleFile: string;
}

export interface BundleKeeperTools {
  readonly clock: Clock;
  readonly log: Log;
  readonly store: Store;
  /** Its `kid` is the thumbprint, which is not how the server names its own keys. */
  readonly jwtAuthority: (publicKey: KeyObject) => JwtAuthority;
  /** What keeps a root (DER) from standing above the identities of the trust domain; undefined when nothing does. */
  readonly judgeRoot: (root: Buffer) => string | undefined;
}

/** Different warnings that are told. */
const MOST_WARNINGS = 16;

/**
 * The trust bundle as the server told it last. It survives a restart, so that the server is known again after it has rotated its
 * roots, and tokens of others are verified while it is away.
 */
export class BundleKeeper {
  readonly #options: BundleKeeperOptions;
  readonly #tools: BundleKeeperTools;
  readonly #listeners = new Set<() => void>();
  readonly #warned = new Set<string>();
  #kept: KeptBundle;
  #roots: readonly Buffer[];
  #jwt: readonly JwtAuthority[] = [];
  #writing: Promise<void> = Promise.resolve();
  /** The file that was read for the present connection. */
  #fileSeen = '';

  /** @throws SignetError `state_refused` for a damaged or foreign state. */
  constructor(options: BundleKeeperOptions, tools: BundleKeeperTools) {
    this.#options = options;
    this.#tools = tools;
    this.#kept = readBundle(tools.store, options.trustDomain);
    this.#roots = this.#goodRoots();
    this.#readJwt();
  }

  /**
   * DER of the roots that the server has to stand under: those of its bundle; and those of the file at the first contact and after
   * an operator has changed it.
   *
   * @throws SpireError `tls` when there are none.
   */
  async anchors(): Promise<readonly Buffer[]> {
    const known = this.#roots;
    try {
      const text = await readSmallFile('trust bundle of the SPIRE server', this.#options.bundleFile);
      const digest = createHash('sha256').update(text).digest('hex');
      const fromFile = rootsIn(text, this.#options.bundleFile);
      this.#fileSeen = digest;
      if (known.length > 0 && digest === this.#kept.bootstrap) return known;
      return [...known, ...fromFile.filter((der) => !known.some((other) => other.equals(der)))];
    } catch (error) {
      if (known.length > 0) return known;
      throw new SpireError('tls', `${messageOf(error)}. What to do: write there what "spire-server bundle show" prints`, error);
    }
  }

  /** DER, each once; empty while nothing is known. */
  roots(): readonly Buffer[] {
    return this.#roots;
  }

  /** True when the server says that this root is not to be relied on any more. */
  isTainted(root: Buffer): boolean {
    return this.#kept.x509.some(({ certificate, tainted }) => tainted && certificate.equals(root));
  }

  /** True for a chain (DER, leaf first, without the root) that ends at such a root: when that is taken out, it is believed no more. */
  isUnderTainted(chain: readonly Buffer[]): boolean {
    const tainted = this.#kept.x509.filter((root) => root.tainted);
    const [top] = chain.slice(-1).map((der) => new X509Certificate(der));
    return top !== undefined && tainted.some(({ certificate }) => isIssuedBy(top, new X509Certificate(certificate)));
  }

  /** True for a root that was tainted and then taken out: nothing under it is to be believed, however long it would live. */
  isRevoked(root: Buffer): boolean {
    return this.#kept.revoked.some((one) => one.equals(root));
  }

  /** Those of all nodes and of the server. The same value as long as nothing changes. */
  jwtAuthorities(): readonly JwtAuthority[] {
    return this.#jwt;
  }

  has(kid: string): boolean {
    return this.#jwt.some((one) => one.kid === kid);
  }

  /** Calls `listener` when anything in it has changed. Returns the way to stop. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Takes over what the server has answered. @throws SpireError `foreign` or `malformed`; what was known stays. */
  take({ trustDomain, x509Authorities, jwtAuthorities }: WireBundle): void {
    if (trustDomain !== this.#options.trustDomain) {
      throw new SpireError('foreign', `the SPIRE server is that of the trust domain ${JSON.stringify(trustDomain)}, and this agent serves "${this.#options.trustDomain}". What to do: set trustDomain or authority.spire.address`);
    }
    const x509 = x509Authorities.map(({ asn1, tainted }) => ({ certificate: parsed(asn1), tainted }));
    if (x509.length === 0) throw new SpireError('malformed', 'the bundle that the SPIRE server has answered holds no X.509 authority');
    const gone = this.#kept.x509.filter(({ certificate, tainted }) => tainted && !x509.some((one) => one.certificate.equals(certificate)));
    const revoked = [...this.#kept.revoked, ...gone.map(({ certificate }) => certificate)].filter((der) => !x509.some((one) => one.certificate.equals(der)) && !hasEnded(der, this.#tools.clock.now()));
    this.#replace({ x509, jwt: jwtAuthorities.map(kept), revoked, bootstrap: this.#fileSeen === '' ? this.#kept.bootstrap : this.#fileSeen });
  }

  /** Takes over the JWT keys that the server has answered to a publication. */
  takeJwtKeys(keys: readonly WireJwtKey[]): void {
    this.#replace({ ...this.#kept, jwt: keys.map(kept) });
  }

  /** Leaves out the keys that have ended meanwhile. */
  prune(): void {
    if (this.#readJwt()) this.#tell();
  }

  /** Resolves when nothing is being written any more. */
  async close(): Promise<void> {
    this.#listeners.clear();
    await this.#writing;
  }

  #replace(next: KeptBundle): void {
    const [before, after] = [formatBundle(this.#kept, this.#options.trustDomain), formatBundle(next, this.#options.trustDomain)];
    if (before === after) return this.prune();
    this.#kept = next;
    const roots = this.#goodRoots();
    // Whoever compares them sees that they are the same.
    if (!isSame(roots, this.#roots)) this.#roots = roots;
    this.#readJwt();
    this.#writing = this.#writing.then(() => this.#tools.store.write(after)).catch((error: unknown) => {
      this.#warnOnce(`the trust bundle cannot be kept, so that a restart while the SPIRE server is away does not have it: ${messageOf(error)}`);
    });
    this.#tell();
  }

  #goodRoots(): readonly Buffer[] {
    return this.#kept.x509.flatMap(({ certificate }: KeptRoot) => {
      const problem = this.#tools.judgeRoot(certificate);
      if (problem === undefined) return [certificate];
      this.#warnOnce(`a root in the bundle of the SPIRE server is left out: ${problem}`);
      return [];
    });
  }

  /** True when the keys are others than before. */
  #readJwt(): boolean {
    const now = this.#tools.clock.now();
    const live = this.#kept.jwt.filter(({ notAfter }) => notAfter > now);
    const next = live.flatMap((key) => this.#authorityOf(key));
    if (next.length === this.#jwt.length && next.every((key, index) => key === this.#jwt[index])) return false;
    this.#jwt = next;
    return true;
  }

  #authorityOf({ kid, publicKey }: KeptJwtKey): JwtAuthority[] {
    const known = this.#jwt.find((one) => one.kid === kid && one.publicKey.export({ format: 'der', type: 'spki' }).equals(publicKey));
    if (known !== undefined) return [known];
    try {
      return [{ ...this.#tools.jwtAuthority(createPublicKey({ key: publicKey, format: 'der', type: 'spki' })), kid }];
    } catch (error) {
      this.#warnOnce(`the JWT key ${JSON.stringify(kid.slice(0, 80))} in the bundle of the SPIRE server is left out: ${messageOf(error)}`);
      return [];
    }
  }

  #warnOnce(reason: string): void {
    if (this.#warned.has(reason) || this.#warned.size >= MOST_WARNINGS) return;
    this.#warned.add(reason);
    this.#tools.log.warn({ event: 'upstream.warning', reason }, 'the trust bundle of the SPIRE server');
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

function rootsIn(text: string, path: string): Buffer[] {
  const ders = readPem(text).filter(({ label }) => label === 'CERTIFICATE').map(({ der }) => new X509Certificate(der).raw);
  if (ders.length === 0) throw new Error(`the trust bundle of the SPIRE server in ${path} cannot be used: it holds no certificate in PEM`);
  return ders;
}

function parsed(der: Buffer): Buffer {
  try {
    return new X509Certificate(der).raw;
  } catch (error) {
    throw new SpireError('malformed', `the bundle that the SPIRE server has answered holds something that is no certificate: ${messageOf(error)}`, error);
  }
}

/** The server's 0 is a key without end. */
function kept({ keyId, publicKey, expiresAt }: WireJwtKey): KeptJwtKey {
  return { kid: keyId, publicKey, notAfter: expiresAt === 0 ? Infinity : expiresAt * 1_000 };
}

function isIssuedBy(child: X509Certificate, parent: X509Certificate): boolean {
  return child.checkIssued(parent) && child.verify(parent.publicKey);
}

function hasEnded(der: Buffer, now: number): boolean {
  return new X509Certificate(der).validToDate.getTime() <= now;
}

function isSame(a: readonly Buffer[], b: readonly Buffer[]): boolean {
  return a.length === b.length && a.every((one, index) => b[index]?.equals(one) === true);
}
