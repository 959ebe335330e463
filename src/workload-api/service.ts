import { assertSameProcess, type Caller } from '../attestation/caller.ts';
import type { Clock } from '../clock.ts';
import { isSignetError, messageOf } from '../errors.ts';
import type { EventBus } from '../events.ts';
import type { Method, ServerCall } from '../grpc/call.ts';
import { Message } from '../grpc/message.ts';
import type { Entitlements } from '../identity/entitlements.ts';
import type { JwtIdentities } from '../identity/jwt-identities.ts';
import type { X509Identities } from '../identity/x509-identities.ts';
import type { Kernel } from '../kernel.ts';
import type { Connection } from '../listener/connection.ts';
import { whoOf } from '../listener/who.ts';
import type { Entry } from '../spiffe/entry.ts';
import { parseSpiffeId } from '../spiffe/id.ts';
import type { JwtSvid } from '../spiffe/svid.ts';
import { UnknownKeyError, validateJwt, VerifiedTokens, type ValidJwt } from '../trust/jwt-validation.ts';
import type { TrustStore } from '../trust/trust-store.ts';
import type { UnknownKeyWaits } from '../trust/unknown-key-waits.ts';
import { FeedSwitch } from './feed-switch.ts';
import { BundleFeeds, withDistinctHints, X509SvidFeeds, type Feed } from './feeds.ts';
import { Gate } from './gate.ts';
import {
  encodeJwtBundles, encodeJwtSvids, encodeValidation, encodeX509Bundles, readJwtSvidRequest, readValidateRequest, type JwtSvidRequest, type ValidateRequest,
} from './messages.ts';
import { Served, tellTokens } from './served.ts';
import { RefusedCall, refusalOf, refusals, type Refusal } from './status.ts';
import { StateStream } from './stream.ts';

/** What answers are made of. It comes later than the socket, so calls wait for it. */
export interface Backend {
  readonly entitlements: Entitlements<Caller>;
  readonly x509: X509Identities;
  readonly jwt: JwtIdentities;
  readonly trust: TrustStore;
  /** Tokens of other nodes wait here for keys that this one is about to hear of; undefined where there are no other nodes. */
  readonly unknownKeys?: UnknownKeyWaits | undefined;
}

export interface ServiceLimits {
  /** How long a call waits for the agent to be ready and for a first SVID. */
  readonly readyTimeoutMs: number;
  readonly audiences: number;
  readonly audienceBytes: number;
  readonly tokenBytes: number;
}

export interface ServiceTools {
  readonly kernel: Kernel;
  readonly clock: Clock;
  readonly events: EventBus;
}

type Call = ServerCall<Connection>;

type UnaryMethod = 'FetchJWTSVID' | 'ValidateJWTSVID';

const PREFIX = '/SpiffeWorkloadAPI/';

/** Workload Endpoint §4.1: the one header and the one value. */
const SECURITY_HEADER = 'workload.spiffe.io';

/** An answer to a unary call, and the tokens that stand in it. */
interface Answer {
  readonly message: Message;
  readonly svids?: readonly JwtSvid[];
}

/** Opens the feed that a stream follows. */
type OpenFeed = (ready: Ready, entries: readonly Entry[], onChange: () => void) => Feed;

interface Ready extends Backend {
  readonly x509Svids: X509SvidFeeds;
  readonly x509Bundles: BundleFeeds;
  readonly jwtBundles: BundleFeeds;
}

/** The Workload API: header, caller, entries, identity, answer. */
export class WorkloadApi {
  readonly #limits: ServiceLimits;
  readonly #tools: ServiceTools;
  readonly #gate: Gate<Ready>;
  readonly #verified = new VerifiedTokens();

  constructor(limits: ServiceLimits, tools: ServiceTools) {
    this.#limits = limits;
    this.#tools = tools;
    this.#gate = new Gate(tools.clock);
  }

  /** From now on calls are answered. */
  start(backend: Backend): void {
    this.#gate.open({
      ...backend,
      x509Svids: new X509SvidFeeds(backend.x509, backend.trust),
      x509Bundles: new BundleFeeds(backend.trust, encodeX509Bundles, ({ x509Authorities }) => x509Authorities.length > 0),
      jwtBundles: new BundleFeeds(backend.trust, encodeJwtBundles, ({ jwtAuthorities }) => jwtAuthorities.length > 0),
    });
  }

  /** The methods by path. */
  methods(): [path: string, method: Method<Connection>][] {
    const stream = (name: string, open: OpenFeed): [string, Method<Connection>] => [
      `${PREFIX}${name}`, { kind: 'server-stream', handle: (call) => this.#stream(name, call, open) },
    ];
    const refused = (name: string): [string, Method<Connection>] => [`${PREFIX}${name}`, { kind: 'server-stream', handle: (call) => this.#refuseWit(name, call) }];
    return [
      stream('FetchX509SVID', (ready, entries, onChange) => ready.x509Svids.open(entries, onChange)),
      stream('FetchX509Bundles', (ready, _entries, onChange) => ready.x509Bundles.open(onChange)),
      stream('FetchJWTBundles', (ready, _entries, onChange) => ready.jwtBundles.open(onChange)),
      [`${PREFIX}FetchJWTSVID`, {
        kind: 'unary',
        handle: (call, message) => {
          const request = readJwtSvidRequest(message);
          this.#answer('FetchJWTSVID', call, (ready, entries) => this.#fetchJwt(ready, entries, request));
        },
      }],
      [`${PREFIX}ValidateJWTSVID`, {
        kind: 'unary',
        handle: (call, message) => {
          const request = readValidateRequest(message);
          this.#answer('ValidateJWTSVID', call, (ready) => this.#validateInTime(ready, request, call.connection.caller.owner));
        },
      }],
      refused('FetchWITSVID'),
      refused('FetchWITBundles'),
    ];
  }

  #fetchJwt(ready: Ready, entries: readonly Entry[], request: JwtSvidRequest): Answer | Promise<Answer> {
    const audience = this.#checkAudience(request.audience);
    const chosen = withDistinctHints(choose(entries, request.spiffeId));
    const [only] = chosen;
    if (only !== undefined && chosen.length === 1) {
      const svid = ready.jwt.fetch(only, audience);
      if (!(svid instanceof Promise)) return tokenAnswer(svid, only.hint);
      return this.#inTime(svid).then((fetched) => tokenAnswer(fetched, only.hint));
    }
    const svids = chosen.map((entry) => ready.jwt.fetch(entry, audience));
    const encode = (fetched: readonly JwtSvid[]): Answer => ({
      message: new Message(encodeJwtSvids(fetched.map((svid, index) => ({ svid, hint: chosen[index]?.hint ?? '' })))),
      svids: fetched,
    });
    if (svids.every((svid): svid is JwtSvid => !(svid instanceof Promise))) return encode(svids);
    return this.#inTime(Promise.all(svids)).then(encode);
  }

  #checkAudience(audience: readonly string[]): readonly string[] {
    const { audiences, audienceBytes } = this.#limits;
    if (audience.length === 0 || audience.includes('')) throw new RefusedCall(refusals.noAudience);
    if (audience.length > audiences) throw new RefusedCall(refusals.tooManyAudiences);
    if (audience.some((value) => Buffer.byteLength(value) > audienceBytes)) throw new RefusedCall(refusals.longAudience);
    return audience;
  }

  /** Another node may have signed with a key that this one hears of a moment later. */
  #validateInTime(ready: Ready, request: ValidateRequest, owner: string): Answer | Promise<Answer> {
    try {
      return this.#validateJwt(ready, request);
    } catch (error) {
      const cause = error instanceof RefusedCall ? error.cause : undefined;
      const waiting = cause instanceof UnknownKeyError ? ready.unknownKeys?.wait(cause.kid, owner) : undefined;
      if (waiting === undefined) throw error;
      return waiting.then(() => this.#validateJwt(ready, request));
    }
  }

  #validateJwt(ready: Ready, request: ValidateRequest): Answer {
    if (request.audience === '') throw new RefusedCall(refusals.noAudience);
    if (request.svid === '') throw new RefusedCall(refusals.noSvid);
    if (Buffer.byteLength(request.audience) > this.#limits.audienceBytes) throw new RefusedCall(refusals.longAudience);
    if (request.svid.length > this.#limits.tokenBytes) throw new RefusedCall(refusals.longToken);
    try {
      const valid = validateJwt(request.svid, request.audience, (name) => ready.trust.bundleOf(name), this.#tools.clock.now(), this.#verified);
      return validationAnswer(valid);
    } catch (error) {
      if (isSignetError(error, 'expired_token')) throw new RefusedCall(refusals.expiredToken, { cause: error });
      if (isSignetError(error, 'invalid_token')) throw new RefusedCall(refusals.badToken, { cause: error });
      throw error;
    }
  }

  /** A unary call. ValidateJWTSVID needs no identity: it tells nothing that the public bundle would not. */
  #answer(method: UnaryMethod, call: Call, make: (ready: Ready, entries: readonly Entry[]) => Answer | Promise<Answer>): void {
    const { caller } = call.connection;
    try {
      checkHeader(call);
      const ready = this.#gate.value;
      const entries = ready?.entitlements.known(caller);
      const isSure = entries !== undefined && (entries.length > 0 || ready?.entitlements.isComplete(caller) === true);
      const made = ready !== undefined && isSure ? make(ready, method === 'FetchJWTSVID' ? some(entries) : entries) : this.#answerLater(method, caller, make);
      if (!(made instanceof Promise)) return this.#send(method, call, made);
      const acceptedAt = call.connection.takeAcceptedAt();
      made.then((answer) => this.#send(method, call, answer, acceptedAt)).catch((error: unknown) => this.#end(method, call, refusalOf(error), error));
    } catch (error) {
      this.#end(method, call, refusalOf(error), error);
    }
  }

  #send(method: UnaryMethod, call: Call, { message, svids }: Answer, acceptedAt = call.connection.takeAcceptedAt()): void {
    if (call.isOver) return;
    const { connection } = call;
    if (connection.hasCallerExited) throw new RefusedCall(refusals.callerGone);
    call.answer(message);
    if (svids !== undefined) tellTokens(svids, { method, connection, acceptedAt }, this.#tools);
  }

  async #answerLater(method: string, caller: Caller, make: (ready: Ready, entries: readonly Entry[]) => Answer | Promise<Answer>): Promise<Answer> {
    const ready = await this.#ready();
    const entries = await ready.entitlements.of(caller);
    return make(ready, method === 'FetchJWTSVID' ? some(entries) : entries);
  }

  #stream(method: string, call: Call, open: OpenFeed): void {
    const { connection } = call;
    const { caller } = connection;
    const served = new Served(method, connection, this.#tools);
    const stream = new StateStream(
      call,
      connection,
      () => assertSameProcess(this.#tools.kernel, caller),
      (refusal, error) => this.#refused(method, caller, refusal, error),
      (state) => served.state(state),
    );
    call.onClosed(() => stream.end());
    void this.#follow(call, stream, open).catch((error: unknown) => stream.refuse(refusalOf(error), error));
  }

  /** Keeps a stream at the state of whatever its caller is entitled to, until it ends. */
  async #follow(call: Call, stream: StateStream, open: OpenFeed): Promise<void> {
    checkHeader(call);
    const { caller } = call.connection;
    const ready = await this.#ready();
    await ready.entitlements.of(caller);
    if (call.isOver) return;
    const feeds = new FeedSwitch(stream, (entries, onChange) => open(ready, entries, onChange));
    const entitle = (): void => {
      const entries = ready.entitlements.known(caller) ?? [];
      if (entries.length > 0) return feeds.turnTo(entries);
      // What the caller has stays until it is sure that nothing is its own.
      if (!ready.entitlements.isComplete(caller)) return;
      feeds.close();
      stream.refuse(refusals.noIdentity);
    };
    const stopEntitlements = ready.entitlements.follow(caller, entitle);
    const deadline = this.#tools.clock.after(this.#limits.readyTimeoutMs, () => {
      if (!stream.hasState) stream.refuse(refusals.notIssued);
    });
    call.onClosed(() => {
      deadline.cancel();
      stopEntitlements();
      feeds.close();
    });
    entitle();
  }

  #refuseWit(method: string, call: Call): void {
    // The header is checked first: its rule is that of the endpoint, whatever the service (Workload Endpoint §4.1, §6).
    this.#end(method, call, hasHeader(call) ? refusals.witUnimplemented : refusals.missingHeader);
  }

  #end(method: string, call: Call, refusal: Refusal, error?: unknown): void {
    if (call.isOver) return;
    this.#refused(method, call.connection.caller, refusal, error);
    call.refuse(refusal);
  }

  async #ready(): Promise<Ready> {
    const ready = this.#gate.value ?? (await this.#gate.wait(this.#limits.readyTimeoutMs));
    if (ready === undefined) throw new RefusedCall(refusals.notReady);
    return ready;
  }

  #inTime<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const alarm = this.#tools.clock.after(this.#limits.readyTimeoutMs, () => reject(new RefusedCall(refusals.notIssued)));
      work.then(resolve, reject).finally(() => alarm.cancel());
    });
  }

  #refused(method: string, caller: Caller, refusal: Refusal, error?: unknown): void {
    const cause = error instanceof RefusedCall ? error.cause : error;
    this.#tools.events.publish('refused', {
      reason: refusal.reason,
      method,
      ...whoOf(caller),
      ...(cause === undefined ? {} : { detail: messageOf(cause) }),
    });
  }
}

/** The claims of a token that was remembered are the same object again. */
const validationAnswers = new WeakMap<object, Answer>();

function validationAnswer({ id, claims, audience }: ValidJwt): Answer {
  let answer = validationAnswers.get(claims);
  if (answer === undefined) {
    answer = { message: new Message(encodeValidation(id, claims, audience)) };
    validationAnswers.set(claims, answer);
  }
  return answer;
}

/** Tokens are asked for again and again: what is sent is made once for each. */
const tokenMessages = new WeakMap<JwtSvid, { readonly hint: string; readonly answer: Answer }>();

function tokenAnswer(svid: JwtSvid, hint: string): Answer {
  const known = tokenMessages.get(svid);
  if (known?.hint === hint) return known.answer;
  const answer = { message: new Message(encodeJwtSvids([{ svid, hint }])), svids: [svid] };
  tokenMessages.set(svid, { hint, answer });
  return answer;
}

function checkHeader(call: Call): void {
  if (!hasHeader(call)) throw new RefusedCall(refusals.missingHeader);
}

/** Exactly one value, exactly `true` (WE-08). */
function hasHeader(call: Call): boolean {
  const values = call.metadata(SECURITY_HEADER);
  return values.length === 1 && values[0] === 'true';
}

function some(entries: readonly Entry[]): readonly Entry[] {
  if (entries.length === 0) throw new RefusedCall(refusals.noIdentity);
  return entries;
}

/** All entries, or those with the ID that was asked for: somebody else's and one that does not exist are one answer (WA-43). */
function choose(entries: readonly Entry[], spiffeId: string): readonly Entry[] {
  if (spiffeId === '') return entries;
  try {
    parseSpiffeId(spiffeId);
  } catch (error) {
    throw new RefusedCall(refusals.badSpiffeId, { cause: error });
  }
  const chosen = entries.filter((entry) => entry.id === spiffeId);
  if (chosen.length === 0) throw new RefusedCall(refusals.notItsIdentity);
  return chosen;
}
