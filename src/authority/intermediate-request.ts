import type { Clock } from '../clock.ts';
import { SignetError } from '../errors.ts';
import type { Random } from '../random.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { createCsr } from './certificate.ts';
import { createCompleteCsr } from './complete-csr.ts';
import type { IntermediateAnswer, IntermediateAsked, IntermediateSource } from './intermediate-source.ts';
import { newKeyPair } from './keys.ts';
import type { NameConstraint } from './name-constraints.ts';
import { issuerOf, judgeAnswer, trySigning, type NodeCa } from './node-ca.ts';

export interface IntermediateWanted {
  readonly trustDomain: TrustDomain;
  readonly ttlMs: number;
  readonly nameConstraint: NameConstraint;
  readonly acceptUnconstrainedCA?: boolean;
  /** The node CA that signs now, if another one is to follow it by itself. */
  readonly follows?: NodeCa | undefined;
}

interface Tools {
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
}

/** An upstream that has not answered by then is taken to be away, unless it says otherwise. */
const ANSWER_MS = 30_000;

/** What an upstream may add to the asked life: it counts from its own clock, and some count from before their back-date. */
const TOLERATED_MS = 300_000;

/** Either way of the middle of life, as a part of it, so that a fleet does not renew together. */
const JITTER = 1 / 10;

/** A CA above that is near its end shortens every node CA: they must not be renewed ever faster. */
const SHORTEST_RENEWAL_MS = 10_000;

/**
 * A new node CA from the upstream, with a new key, judged and tried, and the roots that came with it.
 *
 * @throws SignetError what the upstream throws; `authority_unavailable` when it does not answer, `profile_violation` when the answer
 * is not what was asked for.
 */
export async function intermediateFrom(
  upstream: IntermediateSource,
  wanted: IntermediateWanted,
  tools: Tools,
): Promise<{ ca: Omit<NodeCa, 'activatesAt'>; roots: readonly Buffer[] }> {
  const keys = await newKeyPair('ec-p256');
  const named = [upstream.issuer()];
  const csr = (form: 'plain' | 'complete' = 'plain'): Promise<Buffer> =>
    form === 'plain' ? createCsr(keys, wanted.trustDomain, tools.random) : createCompleteCsr(keys, wanted, tools.random);
  const answer = await answerOf(upstream, { ...wanted, publicKey: keys.publicKey, csr }, tools);
  named.push(upstream.issuer());
  const now = tools.clock.now();
  const judged = judgeAnswer(answer, { ...wanted, keys, latestEnd: now + wanted.ttlMs + TOLERATED_MS }, now);
  // While it signed the CA may have been replaced: then it may be either.
  const known = named.filter((der) => der !== undefined);
  if (known.length > 0 && !known.some((der) => der.equals(issuerOf(judged)))) {
    throw new SignetError('profile_violation', 'the node CA that the upstream has answered is refused: it is not signed by the CA that the upstream has named');
  }
  await trySigning(judged, wanted.trustDomain, tools.random);
  const renewAt = renewalOf(now, judged.notAfter, tools.random);
  return { ca: { ...judged, nameConstraint: wanted.nameConstraint, renewAt }, roots: answer.roots };
}

/** Rejects at the deadline even when the upstream does not obey the signal. */
async function answerOf(upstream: IntermediateSource, asked: IntermediateAsked, tools: Tools): Promise<IntermediateAnswer> {
  const { clock, signal } = tools;
  const { answerMs = ANSWER_MS } = upstream;
  const deadline = new AbortController();
  const late = new SignetError('authority_unavailable', `the upstream has not answered within ${answerMs / 1000} s`);
  const alarm = clock.after(answerMs, () => deadline.abort(late));
  const either = AbortSignal.any([signal, deadline.signal]);
  try {
    either.throwIfAborted();
    const aborted = new Promise<never>((_, reject) => {
      either.addEventListener('abort', () => reject(either.reason), { once: true });
    });
    return await Promise.race([upstream.sign(asked, either), aborted]);
  } finally {
    alarm.cancel();
  }
}

/** Half of life, give or take a tenth. */
function renewalOf(now: number, notAfter: number, random: Random): number {
  const life = notAfter - now;
  return now + Math.max(life / 2 + life * JITTER * (2 * random.fraction() - 1), SHORTEST_RENEWAL_MS);
}
