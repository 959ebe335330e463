import { isSignetError, SignetError } from '../../errors.ts';
import { isObject, objectAt, type JsonObject } from '../../kubernetes/json.ts';
import { Availability, type AvailabilityTools } from '../wire/availability.ts';
import { Connection } from '../wire/connection.ts';
import { DEFAULT_LIMITS } from '../wire/limits.ts';
import { TlsFileReader } from '../wire/tls-material.ts';
import { parseJson, refusalOf, type Asked } from './answer.ts';
import { isInvalidToken, VaultLogin } from './auth.ts';
import { TokenKeeper } from './token.ts';
import { hasFault, VaultError } from './vault-error.ts';
import type { VaultOptions } from './vault-options.ts';

export interface VaultAnswer {
  /** `data`, or {} when there is none. */
  readonly data: JsonObject;
  /** `auth`, or {} when there is none. */
  readonly auth: JsonObject;
  readonly warnings: readonly string[];
}

export interface VaultRequest {
  readonly body?: JsonObject;
  readonly signal?: AbortSignal;
  /** What it is for, as a fixed word: a refusal stands until the same succeeds. Default: the path. */
  readonly purpose?: string;
}

type Method = 'GET' | 'LIST' | 'POST';

const HEALTH = 'sys/health?standbyok=true&perfstandbyok=true';
const LOGIN = 'login';
const REVOKED = 'Vault does not take our token any more: it was revoked, or has ended before it could be renewed. A new login follows';
const ONLY_LOGIN = 'only a new login has helped: the token was revoked, or had other policies';

/** A connection to Vault or OpenBao with a token that is kept alive. It asks nothing before it is asked. */
export class VaultClient {
  readonly #options: VaultOptions;
  readonly #tools: AvailabilityTools;
  readonly #connection: Connection;
  readonly #tokens: TokenKeeper;
  readonly #availability: Availability;
  readonly #closing = new AbortController();

  /** @throws SignetError `invalid_config` for an address without TLS that is not a loopback one. */
  constructor(options: VaultOptions, tools: AvailabilityTools) {
    const { address, auth, serverName, caFile } = options;
    this.#options = options;
    this.#tools = tools;
    const files = { ...(caFile ? { caFile } : {}), ...(auth.method === 'cert' ? { certificate: auth.certificate, key: auth.key } : {}) };
    const tls = new TlsFileReader(files, tools.clock);
    this.#connection = new Connection({ address, serverName, tls, limits: { ...DEFAULT_LIMITS, ...options.limits } }, tools.clock);
    this.#availability = new Availability('vault', tools, () => this.#probe());
    this.#tokens = new TokenKeeper({
      clock: tools.clock,
      source: new VaultLogin(auth, (path, asked) => this.#askAuth(path, asked)),
      onSuccess: (durationMs) => this.#availability.succeeded(LOGIN, durationMs),
      onFailure: (error) => this.#availability.failed(LOGIN, error),
    });
    this.#availability.onReturn(() => this.#tokens.nudge());
  }

  /**
   * A request with a token.
   *
   * @param path below `/v1/`: see `pathOf`.
   * @throws VaultError, or the reason of the signal.
   */
  request(method: Method, path: string, request: VaultRequest = {}): Promise<VaultAnswer> {
    return this.#observed(path, request, (signal) => this.#withToken(method, path, { ...request, signal }));
  }

  /** A request without a token, for what Vault tells everybody. Else as `request`. */
  requestOpen(method: Method, path: string, request: VaultRequest = {}): Promise<VaultAnswer> {
    return this.#observed(path, request, (signal) => this.#exchange(method, path, { ...request, signal }));
  }

  /** What is wrong at present; undefined when nothing is. */
  problem(): string | undefined {
    return this.#availability.problem();
  }

  /** Calls `listener` when it is worth asking again after something failed. Returns the way to stop. */
  onReturn(listener: () => void): () => void {
    return this.#availability.onReturn(listener);
  }

  /** What was refused for `purpose` is not wanted any more, and so no problem. */
  forget(purpose: string): void {
    this.#availability.forget(purpose);
  }

  close(): void {
    this.#closing.abort(new SignetError('stopped', 'the connection to Vault is closed'));
    this.#availability.close();
    this.#tokens.close();
    this.#connection.close();
  }

  async #observed(path: string, request: VaultRequest, ask: (signal: AbortSignal) => Promise<VaultAnswer>): Promise<VaultAnswer> {
    const { clock } = this.#tools;
    const purpose = request.purpose ?? path;
    const signals = [this.#closing.signal, ...(request.signal === undefined ? [] : [request.signal])];
    const began = clock.monotonic();
    try {
      const answer = await ask(AbortSignal.any(signals));
      this.#availability.succeeded(purpose, clock.monotonic() - began);
      return answer;
    } catch (error) {
      // A refused login has been told as such.
      if (error instanceof VaultError && error.fault !== 'login') this.#availability.failed(purpose, error);
      throw error;
    }
  }

  async #withToken(method: Method, path: string, request: VaultRequest & { signal: AbortSignal }): Promise<VaultAnswer> {
    const token = await this.#tokens.get(request.signal);
    try {
      const answer = await this.#exchange(method, path, { ...request, token });
      this.#tokens.trust();
      return answer;
    } catch (error) {
      if (!hasFault(error, 'forbidden')) throw error;
      const isRevoked = this.#isRevoked(error);
      const other = await this.#tokens.replace(token, isRevoked, request.signal);
      if (other === undefined || other === token) throw error;
      const answer = await this.#exchange(method, path, { ...request, token: other });
      if (!isRevoked) this.#tools.log.warn({ event: 'upstream.warning', reason: error.message }, ONLY_LOGIN);
      return answer;
    }
  }

  async #askAuth(path: string, asked: VaultRequest & { token?: string }): Promise<JsonObject> {
    if (this.#options.auth.method === 'cert') this.#connection.distrust();
    return (await this.#exchange('POST', path, asked)).auth;
  }

  /** Told even though a login may set it right at once: somebody has revoked it, or it ended before it was renewed. */
  #isRevoked(error: VaultError): boolean {
    if (!isInvalidToken(error)) return false;
    this.#availability.failed(LOGIN, new VaultError('login', REVOKED, { status: error.status }));
    return true;
  }

  async #exchange(method: Method, path: string, asked: VaultRequest & { token?: string | undefined }): Promise<VaultAnswer> {
    const { namespace } = this.#options;
    const target = `/v1/${path}${method === 'LIST' ? '?list=true' : ''}`;
    const answer = await this.#connection.send({
      method: method === 'POST' ? 'POST' : 'GET',
      target,
      headers: {
        accept: 'application/json',
        // Vault Agent can be set to refuse requests without it, since no browser can be made to send it.
        'x-vault-request': 'true',
        ...(asked.token === undefined ? {} : { 'x-vault-token': asked.token }),
        ...(namespace ? { 'x-vault-namespace': namespace } : {}),
        ...(asked.body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      body: asked.body === undefined ? undefined : JSON.stringify(asked.body),
      signal: asked.signal,
    });
    const about = this.#asked(method, target);
    const refusal = refusalOf(about, answer);
    if (refusal !== undefined) throw refusal;
    return answerFrom(about.what, answer.body);
  }

  #asked(method: Method, target: string): Asked {
    return { what: `${method} ${this.#connection.describe(target)}`, server: this.#options.address.origin };
  }

  /** Without namespace, in which there is no such path. Whatever is there and not away is worth the real request. */
  async #probe(): Promise<void> {
    const target = `/v1/${HEALTH}`;
    try {
      const answer = await this.#connection.send({ method: 'GET', target, headers: { 'x-vault-request': 'true' }, signal: this.#closing.signal });
      const refusal = refusalOf(this.#asked('GET', target), answer);
      if (refusal !== undefined) throw refusal;
    } catch (error) {
      if (!isSignetError(error, 'stopped')) throw error;
    }
  }
}

function answerFrom(what: string, body: string): VaultAnswer {
  if (body === '') return { data: {}, auth: {}, warnings: [] };
  const parsed = parseJson(body);
  if (!isObject(parsed)) throw new VaultError('malformed', `${what}: the answer is not a JSON object`);
  const warnings = Array.isArray(parsed['warnings']) ? parsed['warnings'].filter((one) => typeof one === 'string') : [];
  return { data: objectAt(parsed, 'data'), auth: objectAt(parsed, 'auth'), warnings };
}
