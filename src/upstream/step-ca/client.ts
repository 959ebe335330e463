import { sleep } from '../../clock.ts';
import { isSignetError, SignetError } from '../../errors.ts';
import { objectsAt, textAt, type JsonObject } from '../../kubernetes/json.ts';
import { toPem } from '../../spiffe/pem.ts';
import { Availability, type AvailabilityTools } from '../wire/availability.ts';
import { once } from '../wire/chain.ts';
import { Connection } from '../wire/connection.ts';
import type { KnownIssuers } from '../wire/issuer-watch.ts';
import { DEFAULT_LIMITS, type WireLimits } from '../wire/limits.ts';
import type { TlsSource } from '../wire/tls-material.ts';
import { hasFault, UpstreamError } from '../wire/upstream-error.ts';
import { certificatesAt, objectOf } from './answer.ts';
import { readCredential, type Credential } from './credential.ts';
import { refusedToken } from './diagnosis.ts';
import { pinnedTls, type PinnedTls } from './pinned-tls.ts';
import { ServerClock } from './server-clock.ts';
import type { StepCaOptions } from './step-ca-options.ts';
import { oneTimeToken } from './token.ts';

export interface NodeCaRequest {
  /** The one URI that it is for. */
  readonly subject: string;
  /** DER. */
  readonly csr: Buffer;
  readonly ttlMs: number;
}

/** A certificate and the key that it is proved by. The chain is DER, the certificate first. */
export interface Holder {
  readonly chain: readonly Buffer[];
  readonly privateKey: { export(options: { format: 'pem'; type: 'pkcs8' }): string | Buffer };
}

/** DER: the certificate, then those above it. */
export type SignedChain = readonly Buffer[];

const UPSTREAM = 'step-ca';

/** step-ca takes no token from before its start, in whole seconds. */
const RETRY_MS = 1_000;

/** A node CA does not end in the very moment in which a credential does: the clocks differ. */
const CREDENTIAL_MARGIN_MS = 5_000;

/** Provisioners are told in pages. */
const PAGE = 100;
const MOST_PAGES = 20;

/** A connection to step-ca. It asks nothing before it is asked. */
export class StepCaClient {
  readonly #options: StepCaOptions;
  readonly #tools: AvailabilityTools;
  readonly #limits: WireLimits;
  readonly #tls: PinnedTls;
  readonly #connection: Connection;
  readonly #availability: Availability;
  readonly #serverClock: ServerClock;
  readonly #closing = new AbortController();
  #shortenedTo = Infinity;

  constructor(options: StepCaOptions, tools: AvailabilityTools) {
    this.#options = options;
    this.#tools = tools;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#tls = pinnedTls(options.pin, (target) => this.#askAnybody(target), tools.clock);
    this.#connection = this.#connect(this.#tls);
    this.#availability = new Availability(UPSTREAM, tools, () => this.#probe());
    this.#serverClock = new ServerClock(tools.clock, tools.log);
  }

  /** The roots of the CA, and the CAs that it signs with: the first one does. What it is federated with is not asked for. */
  issuers(signal: AbortSignal): Promise<KnownIssuers> {
    return this.#observed('roots', signal, async (either) => {
      const roots = certificatesAt(await this.#ask('GET', '/1.0/roots', either), 'crts');
      if (roots.length === 0) throw new UpstreamError('malformed', 'step-ca names no root');
      const between = await this.#intermediates(either);
      this.#tls.learn(roots);
      return { issuer: between[0], certificates: once([...between, ...roots]), roots: once(roots) };
    });
  }

  /**
   * Has a node CA signed: by `renew`, or with a token where that gives none.
   *
   * @throws UpstreamError, or the reason of the signal.
   */
  sign(asked: NodeCaRequest, renew: (signal: AbortSignal) => Promise<SignedChain | undefined>, signal: AbortSignal): Promise<SignedChain> {
    return this.#observed('sign', signal, async (either) => (await renew(either)) ?? (await this.#withToken(asked, either)));
  }

  /** Has the certificate of `holder` followed by one with another key, over mutual TLS. Rejects as `sign`. */
  async rekey({ chain, privateKey }: Holder, csr: Buffer, signal: AbortSignal): Promise<SignedChain> {
    const [cert, key] = [chain.map((der) => toPem('CERTIFICATE', der)).join(''), String(privateKey.export({ format: 'pem', type: 'pkcs8' }))];
    // Of its own: what is asked for without a certificate is not to be asked with one.
    const connection = this.#connect({ roots: this.#tls.roots, distrust: () => this.#tls.distrust(), read: async (given) => ({ ...(await this.#tls.read(given)), cert, key }) });
    try {
      return chainOf(await this.#ask('POST', '/1.0/rekey', signal, { csr: toPem('CERTIFICATE REQUEST', csr) }, connection));
    } finally {
      connection.close();
    }
  }

  /** How long a node CA by a token could live at most, in milliseconds; 0 while there can be none. */
  async longestLife(signal: AbortSignal): Promise<number> {
    const credential = await this.#credential(signal).catch(() => undefined);
    return credential === undefined ? 0 : Math.max(0, credential.notAfter - CREDENTIAL_MARGIN_MS - this.#serverClock.now());
  }

  /** What is wrong at present; undefined when nothing is. */
  problem(): string | undefined {
    return this.#availability.problem();
  }

  /** Calls `listener` when it is worth asking again after something failed. Returns the way to stop. */
  onReturn(listener: () => void): () => void {
    return this.#availability.onReturn(listener);
  }

  close(): void {
    this.#closing.abort(new SignetError('stopped', 'the connection to step-ca is closed'));
    this.#availability.close();
    this.#connection.close();
  }

  async #withToken(asked: NodeCaRequest, signal: AbortSignal): Promise<SignedChain> {
    try {
      return await this.#signOnce(asked, this.#tools.clock.now(), signal);
    } catch (error) {
      if (!isRefusedToken(error)) throw error;
    }
    // One answer stands for all that may be wrong with a token. Two of them pass: a CA that has just started, and clocks that differ.
    await sleep(this.#tools.clock, RETRY_MS, signal);
    try {
      const chain = await this.#signOnce(asked, this.#serverClock.now(), signal);
      this.#serverClock.tell();
      return chain;
    } catch (error) {
      throw isRefusedToken(error) ? await this.#explain(error, signal) : error;
    }
  }

  async #signOnce({ subject, csr, ttlMs }: NodeCaRequest, now: number, signal: AbortSignal): Promise<SignedChain> {
    const { provisioner } = this.#options;
    const credential = await this.#credential(signal);
    const lifeMs = this.#lifeOf(credential, ttlMs);
    const ott = await oneTimeToken({ provisioner, credential, audience: this.#audience(), subject, csr, now }, this.#tools.random);
    // A duration counts by the clock of the CA.
    const body = { csr: toPem('CERTIFICATE REQUEST', csr), ott, notAfter: `${Math.max(1, Math.floor(lifeMs / 1000))}s` };
    return chainOf(await this.#ask('POST', '/1.0/sign', signal, body));
  }

  #credential(signal: AbortSignal): Promise<Credential> {
    return readCredential(this.#options.provisioner, (name) => this.#provisioner(name, signal), this.#serverClock.now());
  }

  /** step-ca refuses what would outlive the certificate of an X5C token. */
  #lifeOf({ notAfter }: Credential, ttlMs: number): number {
    const most = notAfter - CREDENTIAL_MARGIN_MS - this.#serverClock.now();
    if (most >= ttlMs) return ttlMs;
    if (this.#shortenedTo !== notAfter) {
      const reason = `the certificate that tokens are signed with ends at ${new Date(notAfter).toISOString()}: node CAs are shortened to that. What to do: renew it in time, with a longer life`;
      this.#tools.log.warn({ event: 'upstream.warning', reason }, 'step-ca can be used, but this should be looked at');
    }
    this.#shortenedTo = notAfter;
    return most;
  }

  async #explain(error: UpstreamError, signal: AbortSignal): Promise<UpstreamError> {
    const { provisioner } = this.#options;
    const found = await this.#provisioner(provisioner.name, signal).catch(() => 'unknown' as const);
    const credential = await this.#credential(signal);
    const parts = { provisioner, credential, found, audience: this.#audience(), lag: this.#serverClock.describe() };
    return new UpstreamError('login', await refusedToken(error.message, parts), { status: error.status, words: error.words, cause: error });
  }

  /** What everybody may know of a provisioner. */
  async #provisioner(name: string, signal: AbortSignal): Promise<JsonObject | undefined> {
    let cursor = '';
    for (let page = 0; page < MOST_PAGES; page += 1) {
      const answer = await this.#ask('GET', `/1.0/provisioners?limit=${PAGE}${cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`}`, signal);
      const found = objectsAt(answer, 'provisioners').find((one) => textAt(one, 'name') === name);
      cursor = textAt(answer, 'nextCursor');
      if (found !== undefined || cursor === '') return found;
    }
    return undefined;
  }

  /** An older step-ca does not tell them. */
  async #intermediates(signal: AbortSignal): Promise<readonly Buffer[]> {
    try {
      return certificatesAt(await this.#ask('GET', '/1.0/intermediates', signal), 'crts');
    } catch (error) {
      if (hasFault(error, 'not_found')) return [];
      throw error;
    }
  }

  async #observed<T>(purpose: string, signal: AbortSignal, ask: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { clock } = this.#tools;
    const began = clock.monotonic();
    try {
      const answer = await ask(AbortSignal.any([this.#closing.signal, signal]));
      this.#availability.succeeded(purpose, clock.monotonic() - began);
      return answer;
    } catch (error) {
      if (error instanceof UpstreamError) this.#availability.failed(purpose, error);
      throw error;
    }
  }

  async #ask(method: 'GET' | 'POST', target: string, signal: AbortSignal, body?: JsonObject, connection = this.#connection): Promise<JsonObject> {
    const headers = { accept: 'application/json', ...(body === undefined ? {} : { 'content-type': 'application/json' }) };
    const answer = await connection.send({ method, target, headers, body: body === undefined ? undefined : JSON.stringify(body), signal });
    this.#serverClock.note(answer.date);
    return objectOf({ what: `${method} ${connection.describe(target)}`, server: this.#options.address.origin }, answer);
  }

  /** A request to whoever answers at the address; its answer proves nothing by itself. */
  async #askAnybody(target: string): Promise<Awaited<ReturnType<Connection['send']>>> {
    const connection = this.#connect({ roots: 'nothing', distrust: () => undefined, read: () => Promise.resolve({ isUnverified: true }) });
    try {
      return await connection.send({ method: 'GET', target, headers: { accept: 'application/json' }, signal: this.#closing.signal });
    } finally {
      connection.close();
    }
  }

  #connect(tls: TlsSource): Connection {
    const { address, serverName } = this.#options;
    return new Connection({ address, serverName, tls, limits: this.#limits }, this.#tools.clock);
  }

  /** step-ca compares it with the names that it has itself, whatever the port. */
  #audience(): string {
    const { address, serverName } = this.#options;
    return `https://${serverName ?? address.hostname}${address.port === '' ? '' : `:${address.port}`}/1.0/sign`;
  }

  async #probe(): Promise<void> {
    try {
      await this.#ask('GET', '/health', this.#closing.signal);
    } catch (error) {
      if (!isSignetError(error, 'stopped')) throw error;
    }
  }
}

function isRefusedToken(error: unknown): error is UpstreamError {
  return hasFault(error, 'login') && error.status === 401;
}

function chainOf(answer: JsonObject): SignedChain {
  const chain = once([...certificatesAt({ crts: [answer['crt']] }, 'crts'), ...certificatesAt(answer, 'certChain'), ...certificatesAt({ crts: [answer['ca']] }, 'crts')]);
  if (chain.length === 0) throw new UpstreamError('malformed', 'the answer of step-ca to a request for a certificate holds none');
  return chain;
}
