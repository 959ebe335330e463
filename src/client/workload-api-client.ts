import { SystemClock, sleep, type Clock } from '../clock.ts';
import { SignetError } from '../errors.ts';
import { systemRandom, type Random } from '../random.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import { GOOD_STREAM_MS, retryDelayMs } from './back-off.ts';
import { resolveEndpoint } from './endpoint.ts';
import type { StreamMethod, WorkloadApi } from './messages.ts';
import { parseJwtBundles, parseJwtSvids, parseValidated, parseX509Bundles, parseX509Context } from './responses.ts';
import type { JwtBundles, JwtIdentity, ValidatedJwt, X509BundleContext, X509Context } from './responses.ts';
import { openWire, type CallLimits, type Wire } from './wire.ts';
import { WorkloadApiError } from './workload-api-error.ts';

export interface WorkloadApiClientOptions {
  /** `unix:///path` or `tcp://IP:port`. Default: `SPIFFE_ENDPOINT_SOCKET` of `env`. */
  readonly endpoint?: string | undefined;
  /** Default: none, so that only `endpoint` counts. Programs pass `process.env`. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Milliseconds that a `fetch…` or `validate…` may take. Default 10,000. */
  readonly timeoutMs?: number;
  readonly clock?: Clock;
  readonly random?: Random;
}

export interface CallSettings {
  readonly signal?: AbortSignal | undefined;
}

export interface WatchSettings extends CallSettings {
  /**
   * Told of everything that interrupts the watch without ending it: a lost connection, PermissionDenied, a malformed update
   * (which is dropped; the state before it stays). `retryMs` is when the next attempt is made, undefined when the stream goes on.
   */
  readonly onTrouble?: (error: Error, retryMs: number | undefined) => void;
}

export interface JwtSvidQuery {
  /** At least one. */
  readonly audience: readonly string[];
  /** Default: all identities of the caller. */
  readonly id?: SpiffeId | undefined;
}

const TIMEOUT_MS = 10_000;
const NOTHING: X509Context = { identities: [], bundles: new Map(), crls: [] };
const NO_X509_BUNDLES: X509BundleContext = { bundles: new Map(), crls: [] };

interface Subject<M extends StreamMethod, T> {
  readonly method: M;
  readonly parse: (response: WorkloadApi[M]['response']) => T;
  /** What a watcher is given when the agent withdraws everything. */
  readonly nothing: T;
}

const X509_CONTEXT: Subject<'FetchX509SVID', X509Context> = {
  method: 'FetchX509SVID',
  parse: parseX509Context,
  nothing: NOTHING,
};
const X509_BUNDLES: Subject<'FetchX509Bundles', X509BundleContext> = {
  method: 'FetchX509Bundles',
  parse: parseX509Bundles,
  nothing: NO_X509_BUNDLES,
};
const JWT_BUNDLES: Subject<'FetchJWTBundles', JwtBundles> = {
  method: 'FetchJWTBundles',
  parse: parseJwtBundles,
  nothing: new Map(),
};

/**
 * A client of the SPIFFE Workload API.
 *
 * `fetch…` and `validate…` make one attempt and reject with a WorkloadApiError, with a SignetError (`invalid_svid`,
 * `invalid_token`, `invalid_spiffe_id`) when the answer is malformed, or with the reason of the caller's signal.
 *
 * `watch…` yields the whole state at each change, for ever: it reconnects with exponential back-off and jitter, and throws only
 * after InvalidArgument and Unimplemented (Workload Endpoint §6). When the agent withdraws everything (PermissionDenied) it
 * yields an empty state once. It ends, without throwing, when its signal is aborted.
 */
export class WorkloadApiClient {
  readonly #target: string;
  readonly #timeoutMs: number;
  readonly #clock: Clock;
  readonly #random: Random;
  #wire: Promise<Wire> | undefined;

  /** @throws SignetError `invalid_endpoint` */
  constructor(options: WorkloadApiClientOptions = {}) {
    this.#target = resolveEndpoint(options.endpoint, options.env ?? {});
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#clock = options.clock ?? new SystemClock();
    this.#random = options.random ?? systemRandom;
  }

  /** The endpoint as grpc-js knows it: `unix:///run/agent.sock`. */
  get target(): string {
    return this.#target;
  }

  fetchX509(settings: CallSettings = {}): Promise<X509Context> {
    return this.#first(X509_CONTEXT, settings);
  }

  watchX509(settings: WatchSettings = {}): AsyncGenerator<X509Context, void> {
    return this.#watch(X509_CONTEXT, settings);
  }

  fetchX509Bundles(settings: CallSettings = {}): Promise<X509BundleContext> {
    return this.#first(X509_BUNDLES, settings);
  }

  watchX509Bundles(settings: WatchSettings = {}): AsyncGenerator<X509BundleContext, void> {
    return this.#watch(X509_BUNDLES, settings);
  }

  fetchJwtBundles(settings: CallSettings = {}): Promise<JwtBundles> {
    return this.#first(JWT_BUNDLES, settings);
  }

  watchJwtBundles(settings: WatchSettings = {}): AsyncGenerator<JwtBundles, void> {
    return this.#watch(JWT_BUNDLES, settings);
  }

  /** One JWT-SVID for each identity of the caller, or only for `id`. The first is the default identity's. */
  async fetchJwtSvids(request: JwtSvidQuery, settings: CallSettings = {}): Promise<JwtIdentity[]> {
    const message = { audience: request.audience, spiffe_id: request.id ?? '' };
    const wire = await this.#open();
    return parseJwtSvids(await wire.unary('FetchJWTSVID', message, this.#limits(settings)), request.audience);
  }

  /** Has the agent verify `token` for `audience`. A token that does not pass rejects with `invalid_argument`. */
  async validateJwtSvid(request: { audience: string; token: string }, settings: CallSettings = {}): Promise<ValidatedJwt> {
    const message = { audience: request.audience, svid: request.token };
    const wire = await this.#open();
    return parseValidated(await wire.unary('ValidateJWTSVID', message, this.#limits(settings)));
  }

  /** True when the endpoint's health service (grpc.health.v1) says that it serves. */
  async isServing(settings: CallSettings = {}): Promise<boolean> {
    const SERVING = 1;
    const wire = await this.#open();
    return (await wire.healthStatus(this.#limits(settings))) === SERVING;
  }

  /** Closes the shared connection. Watches have connections of their own and end by their signal. */
  async close(): Promise<void> {
    const wire = await this.#wire;
    wire?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #open(): Promise<Wire> {
    this.#wire ??= openWire(this.#target);
    return this.#wire;
  }

  #limits(settings: CallSettings): CallLimits {
    return { signal: settings.signal, deadline: this.#clock.now() + this.#timeoutMs };
  }

  async #first<M extends StreamMethod, T>(subject: Subject<M, T>, settings: CallSettings): Promise<T> {
    const wire = await this.#open();
    for await (const response of wire.stream(subject.method, {}, this.#limits(settings))) return subject.parse(response);
    throw endedEarly();
  }

  async *#watch<M extends StreamMethod, T>(subject: Subject<M, T>, settings: WatchSettings): AsyncGenerator<T, void> {
    const { signal, onTrouble } = settings;
    const wire = await this.#open();
    let failures = 0;
    let granted = false;
    while (!signal?.aborted) {
      const start = this.#clock.monotonic();
      let trouble = endedEarly();
      try {
        for await (const response of wire.stream(subject.method, {}, { signal })) {
          const update = parsed(subject, response, onTrouble);
          if (update === undefined) continue;
          granted = true;
          yield update;
        }
      } catch (error) {
        if (signal?.aborted) return;
        if (!(error instanceof WorkloadApiError)) throw error;
        trouble = error;
      }
      if (trouble.code === 'invalid_argument' || trouble.code === 'unimplemented') throw trouble;
      failures = this.#clock.monotonic() - start >= GOOD_STREAM_MS ? 0 : failures + 1;
      const noIdentity = trouble.code === 'no_identity';
      if (noIdentity && granted) yield subject.nothing;
      if (noIdentity) granted = false;
      await this.#pause(retryDelayMs(failures, noIdentity, this.#random.fraction()), trouble, settings);
    }
  }

  async #pause(retryMs: number, trouble: WorkloadApiError, { signal, onTrouble }: WatchSettings): Promise<void> {
    if (signal?.aborted) return;
    onTrouble?.(trouble, retryMs);
    try {
      await sleep(this.#clock, retryMs, signal);
    } catch (error) {
      if (!signal?.aborted) throw error;
    }
  }
}

/** Workload API §4.4: a response that lacks something is reported and dropped, and the state before it stays. */
function parsed<M extends StreamMethod, T>(
  subject: Subject<M, T>,
  response: WorkloadApi[M]['response'],
  onTrouble: WatchSettings['onTrouble'],
): T | undefined {
  try {
    return subject.parse(response);
  } catch (error) {
    if (!(error instanceof SignetError)) throw error;
    onTrouble?.(error, undefined);
    return undefined;
  }
}

function endedEarly(): WorkloadApiError {
  return new WorkloadApiError('unavailable', 14, 'the endpoint ended the stream');
}
