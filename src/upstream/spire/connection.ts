import { X509Certificate, type KeyObject } from 'node:crypto';
import { isIP } from 'node:net';
import type { Client, ClientDuplexStream, ServiceError } from '@grpc/grpc-js';
import type { Clock } from '../../clock.ts';
import { messageOf, SignetError } from '../../errors.ts';
import { toPem } from '../../spiffe/pem.ts';
import { idOfTrustDomain, type TrustDomain } from '../../spiffe/id.ts';
import { loadSpireApi, type AttestAgentRequest, type AttestAgentResponse, type RequestOf, type ResponseOf, type SpireApi, type SpireMethod } from './messages.ts';
import { refusalOf } from './refusal.ts';
import { hasFault, isAway, SpireError } from './spire-error.ts';

/** An X.509-SVID with its key, which a connection is made with. */
export interface SpireIdentity {
  /** DER, leaf first. */
  readonly chain: readonly Buffer[];
  readonly privateKey: KeyObject;
}

export interface ConnectionOptions {
  readonly host: string;
  readonly port: number;
  readonly trustDomain: TrustDomain;
  /** Only for what an operator is told. */
  readonly bundleFile: string;
  readonly callMs: number;
}

export interface ConnectionTools {
  readonly clock: Clock;
  /** DER of the roots that the server must stand under now. */
  readonly roots: () => Promise<readonly Buffer[]>;
}

/** The connections that are kept: without an identity, as the agent, as the downstream workload. */
const MOST_CONNECTIONS = 3;

/** Steps of a node attestation; no attestor of SPIRE has more than one challenge. */
const MOST_STEPS = 4;

/** The path of the server's own ID. */
const SERVER_PATH = '/spire/server';

const CHANNEL_OPTIONS = {
  'grpc.use_local_subchannel_pool': 1,
  'grpc.enable_http_proxy': 0,
  'grpc.service_config_disable_resolution': 1,
  'grpc.enable_retries': 0,
  // Only what is asked all the time stays open.
  'grpc.client_idle_timeout_ms': 60_000,
};

interface Open {
  readonly client: Client;
  readonly identity: SpireIdentity | undefined;
  readonly roots: string;
}

interface Asked {
  readonly method: string;
  readonly identity?: SpireIdentity | undefined;
}

/** gRPC to a SPIRE server, which proves by its own SVID to be that of the trust domain. It asks nothing before it is asked. */
export class SpireConnection {
  readonly #options: ConnectionOptions;
  readonly #tools: ConnectionTools;
  readonly #server: string;
  readonly #closing = new AbortController();
  #open: readonly Open[] = [];

  constructor(options: ConnectionOptions, tools: ConnectionTools) {
    this.#options = options;
    this.#tools = tools;
    this.#server = isIP(options.host) === 6 ? `[${options.host}]:${options.port}` : `${options.host}:${options.port}`;
  }

  /** @throws SpireError, or the signal's reason. */
  async call<M extends SpireMethod>(method: M, request: RequestOf<M>, { identity, signal }: { identity?: SpireIdentity | undefined; signal: AbortSignal }): Promise<ResponseOf<M>> {
    const api = await loadSpireApi();
    const client = await this.#client(api, identity);
    const { path, encode, decode } = api.codecOf(method);
    return this.#bounded(api, { method, identity }, signal, (cancelled, settle) => {
      const call = client.makeUnaryRequest(path, encode, decode, request, (error, response) => settle(error, response));
      cancelled(() => call.cancel());
    });
  }

  /**
   * Attests this node: sends `first`, and answers a challenge by `respond`.
   *
   * @throws SpireError, or the signal's reason.
   */
  async attest(first: AttestAgentRequest, respond: (challenge: Buffer) => Buffer, signal: AbortSignal): Promise<NonNullable<AttestAgentResponse['result']>> {
    const api = await loadSpireApi();
    const client = await this.#client(api, undefined);
    const { path, encode, decode } = api.attest;
    return this.#bounded(api, { method: 'AttestAgent' }, signal, (cancelled, settle) => {
      const call: ClientDuplexStream<AttestAgentRequest, AttestAgentResponse> = client.makeBidiStreamRequest(path, encode, decode);
      cancelled(() => call.cancel());
      let steps = 0;
      call.on('error', (error: ServiceError) => settle(error));
      call.on('end', () => settle(new SpireError('malformed', `AttestAgent at the SPIRE server ${this.#server}: it has ended without a result`)));
      call.on('data', (message: AttestAgentResponse) => {
        steps += 1;
        if (message.step === 'result' && message.result) {
          settle(null, message.result);
          call.end();
          return;
        }
        try {
          if (message.step !== 'challenge' || steps >= MOST_STEPS) throw new SpireError('malformed', 'the SPIRE server has answered AttestAgent with neither a result nor a challenge');
          call.write({ challengeResponse: respond(message.challenge ?? Buffer.alloc(0)) });
        } catch (error) {
          settle(error);
          call.cancel();
        }
      });
      call.write(first);
    });
  }

  close(): void {
    this.#closing.abort(new SignetError('stopped', 'the connection to the SPIRE server is closed'));
    this.#drop();
  }

  /** One exchange with a deadline. What fails because nobody is there gives up the connections, so that the next one is made anew. */
  async #bounded<T>(api: SpireApi, asked: Asked, signal: AbortSignal, start: (cancelled: (cancel: () => void) => void, settle: (error: unknown, value?: T) => void) => void): Promise<T> {
    const { callMs } = this.#options;
    const deadline = new AbortController();
    const alarm = this.#tools.clock.after(callMs, () => deadline.abort(new SpireError('timed_out', `the SPIRE server at ${this.#server} has not answered within ${callMs / 1_000} s`)));
    const either = AbortSignal.any([signal, deadline.signal, this.#closing.signal]);
    let stop = (): void => undefined;
    try {
      either.throwIfAborted();
      return await new Promise<T>((resolve, reject) => {
        let cancel = (): void => undefined;
        stop = () => {
          reject(either.reason);
          cancel();
        };
        either.addEventListener('abort', stop, { once: true });
        start(
          (how) => (cancel = how),
          (error, value) => {
            if (error === null && value !== undefined) resolve(value);
            else reject(this.#errorOf(api, asked, error));
          },
        );
      });
    } catch (error) {
      if (isAway(error) || hasFault(error, 'unbelieved')) this.#drop();
      throw error;
    } finally {
      either.removeEventListener('abort', stop);
      alarm.cancel();
    }
  }

  #errorOf(api: SpireApi, { method, identity }: Asked, error: unknown): unknown {
    if (error instanceof SignetError) return error;
    if (!isServiceError(error)) return new SpireError('malformed', `${method} at the SPIRE server ${this.#server}: ${messageOf(error)}`, error);
    const [details] = error.metadata?.get('grpc-status-details-bin') ?? [];
    const reason = Buffer.isBuffer(details) ? api.deniedReason(details) : undefined;
    return refusalOf(this.#server, method, { code: error.code, details: error.details, reason }, { hasIdentity: identity !== undefined, bundleFile: this.#options.bundleFile });
  }

  async #client(api: SpireApi, identity: SpireIdentity | undefined): Promise<Client> {
    const ders = await this.#tools.roots();
    this.#closing.signal.throwIfAborted();
    const roots = ders.map((der) => toPem('CERTIFICATE', der)).join('');
    const held = this.#open.find((one) => one.identity === identity && one.roots === roots);
    if (held !== undefined) return held.client;
    const client = this.#connect(api, identity, roots);
    // What stands on other roots, or has been replaced, is not asked again.
    const [kept, old] = [this.#open.filter((one) => one.roots === roots), this.#open.filter((one) => one.roots !== roots)];
    const live = [...kept, { client, identity, roots }];
    for (const one of [...old, ...live.slice(0, -MOST_CONNECTIONS)]) one.client.close();
    this.#open = live.slice(-MOST_CONNECTIONS);
    return client;
  }

  #connect({ grpc }: SpireApi, identity: SpireIdentity | undefined, roots: string): Client {
    const key = identity && Buffer.from(identity.privateKey.export({ format: 'pem', type: 'pkcs8' }));
    const chain = identity && Buffer.from(identity.chain.map((der) => toPem('CERTIFICATE', der)).join(''));
    const expected = `${idOfTrustDomain(this.#options.trustDomain)}${SERVER_PATH}`;
    const credentials = grpc.credentials.createSsl(Buffer.from(roots), key ?? null, chain ?? null, { checkServerIdentity: (_host, { raw }) => identityProblem(raw, expected) });
    // RFC 6066 §3 allows no address as a server name.
    const named = isIP(this.#options.host) === 0 ? {} : { 'grpc.ssl_target_name_override': 'spire-server' };
    return new grpc.Client(`dns:${this.#server}`, credentials, { ...CHANNEL_OPTIONS, ...named });
  }

  #drop(): void {
    for (const { client } of this.#open) client.close();
    this.#open = [];
  }
}

/** X509-SVID §5.2: the chain has been verified before; who it is for is said by the one URI. */
function identityProblem(certificate: Buffer, expected: string): Error | undefined {
  const names = new X509Certificate(certificate).subjectAltName?.split(', ') ?? [];
  const uris = names.filter((name) => name.startsWith('URI:')).map((name) => name.slice('URI:'.length));
  if (uris.length === 1 && uris[0] === expected) return undefined;
  return new Error(`it is not the SPIRE server of the trust domain: its certificate is for ${JSON.stringify(uris)} and not for ["${expected}"]`);
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && typeof error.code === 'number' && 'details' in error;
}
