import { X509Certificate } from 'node:crypto';
import type { JsonObject } from '../../kubernetes/json.ts';
import { idOfTrustDomain } from '../../spiffe/id.ts';
import type { Upstream, UpstreamAnswer, UpstreamRequest } from '../upstream.ts';
import { chainUp, isRoot, once } from '../wire/chain.ts';
import { readRootFiles } from '../wire/issuer-watch.ts';
import type { VaultAnswer, VaultRequest } from './client.ts';
import { IssuerWatch, type IssuerWatchOptions, type IssuerWatchTools } from './issuer-watch.ts';
import { certificatesAt, chainOf } from './issuers.ts';
import { pathOf } from './path.ts';
import { VaultError } from './vault-error.ts';

export type VaultIntermediateOptions = IssuerWatchOptions;

export interface VaultIntermediateTools extends IssuerWatchTools {
  /** Belongs to whoever passes it. */
  readonly client: IssuerWatchTools['client'] & {
    request(method: 'POST', path: string, request: VaultRequest): Promise<VaultAnswer>;
    problem(): string | undefined;
    forget(purpose: string): void;
  };
}

const PURPOSE = 'sign-intermediate';

/** A node CA begins before it is made, so that a machine whose clock is behind accepts it. */
const BACKDATE_MS = 300_000;

/** What Vault says of every node CA, because it is as it should be. */
const EXPECTED = /authority information access \(AIA\)|Max path length of the signed certificate is zero/;

/** Different warnings that are told. */
const MOST_WARNINGS = 16;

/** Node CAs from the PKI engine of Vault or OpenBao. What is asked for is not taken as given: the answer is for others to judge. */
export class VaultIntermediate implements Upstream {
  readonly #options: VaultIntermediateOptions;
  readonly #tools: VaultIntermediateTools;
  readonly #issuers: IssuerWatch;
  readonly #warned = new Set<string>();
  #issuer: Buffer | undefined;

  /** Begins to look at the issuers. */
  constructor(options: VaultIntermediateOptions, tools: VaultIntermediateTools) {
    this.#options = options;
    this.#tools = tools;
    this.#issuers = new IssuerWatch(options, tools);
    this.#issuers.onChange(() => this.#followIssuer());
  }

  /**
   * Reads the files with further roots, and does nothing else.
   *
   * @throws SignetError `state_refused` naming the file and what is wrong.
   */
  static async check({ roots = [] }: VaultIntermediateOptions): Promise<void> {
    await readRootFiles(roots);
  }

  get overlapMs(): number {
    return this.#issuers.overlapMs;
  }

  roots(): readonly Buffer[] {
    return this.#issuers.roots();
  }

  issuer(): Buffer | undefined {
    return this.#issuers.issuer();
  }

  problem(): string | undefined {
    return this.#tools.client.problem() ?? this.#issuers.problem();
  }

  onChange(listener: () => void): () => void {
    return this.#issuers.onChange(listener);
  }

  async sign(request: UpstreamRequest, signal: AbortSignal): Promise<UpstreamAnswer> {
    signal.throwIfAborted();
    if (this.issuer() === undefined) await this.#issuers.look(signal);
    const { mount, issuer } = this.#options;
    const body = await this.#bodyOf(request);
    const path = pathOf(mount, 'issuer', issuer, 'sign-intermediate');
    const { data, warnings } = await this.#tools.client.request('POST', path, { body, signal, purpose: PURPOSE });
    for (const warning of warnings) this.#warnOnce(warning);
    const [certificate] = certificatesAt(data, 'certificate');
    if (certificate === undefined) throw new VaultError('malformed', 'the answer of Vault to sign-intermediate holds no certificate');
    const above = once([...chainOf(data), ...certificatesAt(data, 'issuing_ca')]).filter((der) => !der.equals(certificate));
    return this.#answerOf(certificate, above, signal);
  }

  close(): Promise<void> {
    return this.#issuers.close();
  }

  async #answerOf(certificate: Buffer, above: readonly Buffer[], signal: AbortSignal): Promise<UpstreamAnswer> {
    const isKnown = (der: Buffer): boolean => this.#issuers.certificates().some((other) => other.equals(der));
    // What has signed is newer than what is known: then its root may be too.
    if (!above.every(isKnown)) await this.#issuers.look(signal);
    const roots = this.roots();
    const chain = chainUp(certificate, [...above, ...this.#issuers.certificates()], roots);
    return { chain: chain ?? [certificate, ...above.filter((der) => !isRoot(der))], roots };
  }

  /** Numbers are texts, since a policy of Vault compares nothing else; what a policy should bind is always sent. */
  async #bodyOf(request: UpstreamRequest): Promise<JsonObject> {
    const { trustDomain, ttlMs, nameConstraint } = request;
    return {
      csr: pemOf('CERTIFICATE REQUEST', await request.csr()),
      format: 'pem',
      ttl: `${Math.floor(ttlMs / 1000)}s`,
      max_path_length: '0',
      uri_sans: idOfTrustDomain(trustDomain),
      // A distinct name for each node CA keeps path builders from trying the wrong one; with an empty one it would be useless.
      organization: 'Signet',
      ou: 'Node CA',
      serial_number: this.#tools.random.bytes(16).toString('hex'),
      exclude_cn_from_sans: true,
      // With values from the CSR Vault would replace the constraints that are asked for here.
      use_csr_values: false,
      ...(nameConstraint === 'uri' ? { permitted_uri_domains: trustDomain } : {}),
      ...(this.#isOld() ? { not_before_duration: `${BACKDATE_MS / 1000}s` } : {}),
    };
  }

  /** Vault refuses what would begin before its issuer. */
  #isOld(): boolean {
    const issuer = this.issuer();
    return issuer !== undefined && this.#tools.clock.now() - new X509Certificate(issuer).validFromDate.getTime() > 2 * BACKDATE_MS;
  }

  /** What the last one refused says nothing about another. */
  #followIssuer(): void {
    const issuer = this.issuer();
    if (this.#issuer !== undefined && issuer !== undefined && !issuer.equals(this.#issuer)) this.#tools.client.forget(PURPOSE);
    this.#issuer = issuer;
  }

  #warnOnce(warning: string): void {
    if (EXPECTED.test(warning) || this.#warned.has(warning) || this.#warned.size >= MOST_WARNINGS) return;
    this.#warned.add(warning);
    this.#tools.log.warn({ event: 'upstream.warning', reason: warning }, 'Vault has signed a node CA, with a warning');
  }
}

function pemOf(label: string, der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ''].join('\n');
}
