import type { ClientRequest, IncomingMessage } from 'node:http';
import type { Clock } from '../../clock.ts';
import { messageOf, SignetError, systemCode } from '../../errors.ts';
import { UpstreamError } from './upstream-error.ts';
import type { WireLimits } from './limits.ts';

export interface WireRequest {
  readonly method: 'GET' | 'POST';
  /** Path and query below the address, percent-encoded: `/v1/sys/health`. */
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface WireAnswer {
  readonly status: number;
  readonly location: string | undefined;
  readonly retryAfter: string | undefined;
  /** The clock of the server, in whole seconds, as it has written it. */
  readonly date: string | undefined;
  readonly body: string;
}

/** A kept connection was closed by the server in the moment in which it was used again. */
export class StaleConnection extends Error {
  readonly failure: UpstreamError;

  constructor(failure: UpstreamError) {
    super(failure.message);
    this.failure = failure;
  }
}

export interface ExchangeParts {
  readonly request: WireRequest;
  readonly open: () => ClientRequest;
  readonly clock: Clock;
  readonly limits: WireLimits;
  /** For messages. */
  readonly server: string;
  readonly roots: string;
}

/** One request and its answer under one deadline and one signal. */
export class Exchange {
  readonly #parts: ExchangeParts;
  #outgoing: ClientRequest | undefined;
  #isAnswered = false;
  /** Why we have ended it ourselves: the error of the socket would say nothing. */
  #given: Error | undefined;

  constructor(parts: ExchangeParts) {
    this.#parts = parts;
  }

  async run(): Promise<WireAnswer> {
    const { request, clock, limits, server } = this.#parts;
    const late = (what: string, ms: number): void => this.#giveUp(new UpstreamError('timed_out', `${server}: ${what} after ${ms} ms`));
    const deadlines = [clock.after(limits.answerMs, () => late('no complete answer', limits.answerMs))];
    const abort = (): void => this.#giveUp(reasonOf(request.signal));
    request.signal?.addEventListener('abort', abort, { once: true });
    try {
      const connected = clock.after(limits.connectMs, () => late('no connection', limits.connectMs));
      deadlines.push(connected);
      const incoming = await this.#head(() => connected.cancel());
      this.#isAnswered = true;
      const { location, date, 'retry-after': retryAfter } = incoming.headers;
      return { status: incoming.statusCode ?? 0, location, retryAfter, date, body: await this.#body(incoming) };
    } catch (error) {
      throw this.#failure(error);
    } finally {
      for (const deadline of deadlines) deadline.cancel();
      request.signal?.removeEventListener('abort', abort);
    }
  }

  #giveUp(error: Error): void {
    this.#given ??= error;
    this.#outgoing?.destroy(error);
  }

  #head(connected: () => void): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const outgoing = this.#parts.open();
      this.#outgoing = outgoing;
      outgoing.once('socket', (socket) => {
        if (outgoing.reusedSocket || (!socket.connecting && !('encrypted' in socket))) connected();
        else socket.once('encrypted' in socket ? 'secureConnect' : 'connect', connected);
      });
      outgoing.on('error', reject);
      outgoing.once('response', resolve);
      outgoing.end(this.#parts.request.body);
    });
  }

  async #body(incoming: IncomingMessage): Promise<string> {
    const { limits, server } = this.#parts;
    const chunks: Buffer[] = [];
    let length = 0;
    for await (const chunk of incoming as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > limits.bytes) throw new UpstreamError('malformed', `${server}: the answer is larger than ${limits.bytes} bytes`);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks, length).toString('utf8');
  }

  #failure(error: unknown): unknown {
    const { request, server, roots } = this.#parts;
    if (request.signal?.aborted === true) return reasonOf(request.signal);
    if (this.#given !== undefined || error instanceof SignetError) return this.#given ?? error;
    const code = systemCode(error) ?? '';
    const words = `${code} ${messageOf(error)}`.trim().replaceAll(/\s+/g, ' ');
    if (isTlsCode(code)) return new UpstreamError('tls', `${server}: TLS fails: ${words}. ${tlsRemedy(code, roots)}`, { cause: error });
    const failure = new UpstreamError('unreachable', `${server} cannot be reached: ${words}`, { cause: error });
    const isStale = !this.#isAnswered && this.#outgoing?.reusedSocket === true && ['ECONNRESET', 'EPIPE'].includes(code);
    return isStale ? new StaleConnection(failure) : failure;
  }
}

/** Codes of OpenSSL's verification (`X509_V_ERR_…` without the prefix) and of the handshake. */
const UNVERIFIED = /^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_|CRL_|INVALID_(CA|PURPOSE)|PATH_LENGTH_|HOSTNAME_MISMATCH|ERR_TLS_)/;
const HANDSHAKE = /^(ERR_SSL_|EPROTO$|ERR_OSSL_)/;

function isTlsCode(code: string): boolean {
  return UNVERIFIED.test(code) || HANDSHAKE.test(code);
}

function tlsRemedy(code: string, roots: string): string {
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return 'What to do: set serverName to a name that the certificate of the server has';
  if (code === 'CERT_HAS_EXPIRED') return 'What to do: renew the certificate of the server, or set the clock of this machine right';
  if (UNVERIFIED.test(code)) return `The certificate of the server is not verified by ${roots}. What to do: put the CA of the server there`;
  return 'What to do: check that the server speaks TLS at this address, and takes the client certificate if there is one';
}

function reasonOf(signal: AbortSignal | undefined): Error {
  const reason: unknown = signal?.reason;
  return reason instanceof Error ? reason : new SignetError('stopped', 'the request was given up', { cause: reason });
}
