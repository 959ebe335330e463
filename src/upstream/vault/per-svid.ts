import type { Clock } from '../../clock.ts';
import { isSignetError, messageOf, SignetError } from '../../errors.ts';
import type { EventBus } from '../../events.ts';
import type { JsonObject } from '../../kubernetes/json.ts';
import type { Log } from '../../log.ts';
import type { Random } from '../../random.ts';
import { assertWorkload, type SpiffeId, type TrustDomain } from '../../spiffe/id.ts';
import { readPem, toPem } from '../../spiffe/pem.ts';
import type { SignedX509, X509Request, X509Signer } from '../../spiffe/signing.ts';
import { Guard, type GuardOptions, type GuardState, type UpstreamFault } from '../guard.ts';
import type { VaultClient } from './client.ts';
import { pathOf } from './path.ts';
import { adviceOnLeaf, adviceOnRefusal, type LeafProblem } from './role-advice.ts';
import { VaultError } from './vault-error.ts';

export interface PerSvidOptions {
  readonly trustDomain: TrustDomain;
  /** `pki` */
  readonly mount: string;
  readonly role: string;
  readonly guard?: Partial<GuardOptions>;
}

/** Whom the own bundle believes, and which issuer may sign by that. */
export interface SvidTrust {
  /** DER of the roots in the own bundle. */
  roots(): readonly Buffer[];
  /** The issuer that signs, and the first end on the way to its root in milliseconds since the Unix epoch. */
  issuer(signal: AbortSignal): Promise<{ readonly ref: string; readonly notAfter: number }>;
  /** Looks again at what there is: the issuer of what was signed is not as expected. */
  refresh(signal: AbortSignal): Promise<void>;
}

/** Judges leaves by the profile of X.509-SVIDs. */
export type JudgeLeaf = (
  answer: { readonly leaf: Buffer; readonly others: readonly Buffer[] },
  asked: {
    readonly trustDomain: TrustDomain;
    readonly id: SpiffeId;
    readonly publicKey: Buffer;
    readonly dnsNames: readonly string[];
    readonly ttlMs: number;
    readonly roots: readonly Buffer[];
  },
  now: number,
) => { readonly signed: SignedX509 } | { readonly problems: readonly LeafProblem[] };

export interface PerSvidTools {
  readonly client: Pick<VaultClient, 'request' | 'onReturn'>;
  readonly trust: SvidTrust;
  readonly judgeLeaf: JudgeLeaf;
  readonly clock: Clock;
  readonly random: Random;
  readonly events: EventBus;
  readonly log: Log;
}

const PURPOSE = 'sign';
/** What the role does wrong is told under a name of its own, since Vault itself answers. */
const ROLE = 'vault-role';

/** A leaf may not end after its issuer, and Vault's clock may be ahead of ours. */
const END_MARGIN_MS = 30_000;
const SHORTEST_LIFE_MS = 1_000;

/** A shorter life than was asked for is told from this difference on; less is rounding. */
const CUT_MS = 60_000;

/** Vault has answered, with a no to the names of one request. */
class RefusedRequestError extends SignetError {}

/**
 * Has each X.509-SVID signed by a role of Vault's PKI engine: no key that signs is on this node. The role decides what stands in the
 * certificate, so that each one is judged before it is released.
 */
export class VaultX509Signer implements X509Signer {
  readonly #options: PerSvidOptions;
  readonly #tools: PerSvidTools;
  readonly #guard: Guard;
  readonly #stop: () => void;
  #roleProblem: string | undefined;
  #toldCutMs = 0;

  constructor(options: PerSvidOptions, tools: PerSvidTools) {
    this.#options = options;
    this.#tools = tools;
    this.#guard = new Guard(options.guard ?? {}, { clock: tools.clock, random: tools.random, faultOf });
    this.#stop = tools.client.onReturn(() => this.#guard.wake());
  }

  /** Not known: renewal is planned from each certificate. */
  horizon(): number {
    return Infinity;
  }

  async sign(request: X509Request, signal: AbortSignal): Promise<SignedX509> {
    const { trustDomain } = this.#options;
    assertWorkload(request.id, trustDomain);
    let csr: Promise<string> | undefined;
    const work = {
      do: async (inner: AbortSignal) => this.#ask(request, await (csr ??= request.csr().then((der) => toPem('CERTIFICATE REQUEST', der))), inner),
      ...(request.heldUntil === undefined ? {} : { heldUntil: request.heldUntil }),
    };
    return this.#guard.run(work, signal);
  }

  /** What signing fails with at present; undefined when it does not. */
  problem(): string | undefined {
    return this.#guard.state().problem;
  }

  state(): GuardState {
    return this.#guard.state();
  }

  /** Calls `listener` when signing works again after it has failed. Returns the way to stop. */
  onRecover(listener: () => void): () => void {
    return this.#guard.onRecover(listener);
  }

  close(): void {
    this.#stop();
    this.#guard.close();
  }

  async #ask(request: X509Request, csr: string, signal: AbortSignal): Promise<SignedX509> {
    const { client, trust, clock } = this.#tools;
    const { mount, role } = this.#options;
    const began = clock.monotonic();
    const { ref, notAfter } = await trust.issuer(signal);
    const ttlMs = Math.min(request.ttlMs, notAfter - END_MARGIN_MS - clock.now());
    if (ttlMs < SHORTEST_LIFE_MS) throw new SignetError('authority_unavailable', `the issuer in Vault, or a CA above it, ends at ${iso(notAfter)}: nothing can be signed with it. What to do: renew it`);
    const path = pathOf(mount, 'issuer', ref, 'sign', role);
    const body = { csr, ttl: `${Math.floor(ttlMs / 1_000)}s`, format: 'pem' };
    const { data } = await client.request('POST', path, { body, signal, purpose: PURPOSE }).catch((error: unknown) => this.#refused(error));
    const signed = await this.#judge(data, { ...request, ttlMs }, signal);
    this.#roleIsGood(clock.monotonic() - began);
    this.#tellCut(signed, ttlMs);
    return signed;
  }

  async #judge(data: JsonObject, { id, publicKey, dnsNames, ttlMs }: X509Request, signal: AbortSignal): Promise<SignedX509> {
    const { trust, judgeLeaf, clock } = this.#tools;
    const { trustDomain } = this.#options;
    const asked = { trustDomain, id, publicKey, dnsNames, ttlMs, roots: trust.roots() };
    const judged = judgeLeaf(this.#read(data), asked, clock.now());
    if ('signed' in judged) return judged.signed;
    if (judged.problems.some(({ part }) => part === 'issuer')) await trust.refresh(signal).catch(() => undefined);
    const text = adviceOnLeaf(judged.problems, this.#names());
    this.#tellRole(text);
    throw new SignetError('profile_violation', text);
  }

  #read(data: JsonObject): ReturnType<typeof answerOf> {
    try {
      return answerOf(data);
    } catch (error) {
      this.#tellRole(messageOf(error));
      throw error;
    }
  }

  #refused(error: unknown): never {
    const advice = error instanceof VaultError && error.fault === 'bad_request' ? adviceOnRefusal(error, this.#names()) : undefined;
    if (advice === undefined) throw error;
    if (advice.isForOne) throw new RefusedRequestError('authority_unavailable', advice.text, { cause: error });
    this.#tellRole(advice.text);
    throw new SignetError('authority_unavailable', advice.text, { cause: error });
  }

  #names(): { role: string; trustDomain: TrustDomain } {
    const { mount, role, trustDomain } = this.#options;
    return { role: `${mount}/roles/${role}`, trustDomain };
  }

  #tellRole(text: string): void {
    if (text === this.#roleProblem) return;
    this.#roleProblem = text;
    this.#tools.events.publish('upstreamFailed', { upstream: ROLE, error: text, retryMs: 1_000 });
  }

  #roleIsGood(durationMs: number): void {
    if (this.#roleProblem === undefined) return;
    this.#roleProblem = undefined;
    this.#tools.events.publish('upstreamAnswered', { upstream: ROLE, durationMs });
  }

  /** Once for each length: it is normal for a role, and good to know. */
  #tellCut({ notAfter }: SignedX509, ttlMs: number): void {
    const lifeMs = notAfter - this.#tools.clock.now();
    if (lifeMs > ttlMs - CUT_MS || ttlMs === this.#toldCutMs) return;
    this.#toldCutMs = ttlMs;
    const reason = `Vault has cut an X.509-SVID of ${seconds(ttlMs)} to ${seconds(lifeMs)}. What to do, if that is not wanted: raise max_ttl of ${this.#names().role}, or of the mount`;
    this.#tools.log.warn({ event: 'upstream.warning', reason }, 'SVIDs live shorter than they should');
  }
}

/** Everything that is not about the names of one request is about Vault, the role or the login: it is tried again, and not by all. */
function faultOf(error: unknown): UpstreamFault | undefined {
  if (error instanceof RefusedRequestError) return undefined;
  return { retryAfterMs: error instanceof VaultError ? error.retryAfterMs : undefined };
}

/** @throws VaultError `malformed` */
function answerOf(data: JsonObject): { leaf: Buffer; others: readonly Buffer[] } {
  try {
    const [leaf, ...rest] = certificatesOf(data['certificate']);
    if (leaf === undefined) throw new Error('there is no certificate in it');
    const chain = Array.isArray(data['ca_chain']) ? data['ca_chain'] : [];
    return { leaf, others: [...rest, ...certificatesOf(data['issuing_ca']), ...chain.flatMap(certificatesOf)] };
  } catch (error) {
    if (isSignetError(error)) throw error;
    throw new VaultError('malformed', `what Vault has signed cannot be read: ${messageOf(error)}`);
  }
}

function certificatesOf(pem: unknown): Buffer[] {
  return typeof pem === 'string' ? readPem(pem).map(({ der }) => der) : [];
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1_000)} s`;
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
