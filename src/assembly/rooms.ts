import { Attestation } from '../attestation/attestor.ts';
import type { Caller } from '../attestation/caller.ts';
import { UnixAttestor } from '../attestation/unix.ts';
import { newEncodedKeyPair } from '../authority/keys.ts';
import type { Config } from '../config/config.ts';
import type { AttestationOutcome } from '../events.ts';
import { Entitlements } from '../identity/entitlements.ts';
import { JwtIdentities } from '../identity/jwt-identities.ts';
import { X509Identities } from '../identity/x509-identities.ts';
import type { Kernel } from '../kernel.ts';
import { whoOf } from '../listener/who.ts';
import { EntryRegistry } from '../registration/entry-registry.ts';
import { podUidOf, type Selector } from '../spiffe/selector.ts';
import { TrustStore } from '../trust/trust-store.ts';
import { UnknownKeyWaits } from '../trust/unknown-key-waits.ts';
import { openAuthority, type Authority } from './authority.ts';
import type { KubernetesRooms } from './kubernetes.ts';
import type { RoomTools } from './tools.ts';

/** Everything below the wire: who is calling, what is its own, who signs it, whom we believe. */
export interface Rooms {
  readonly unix: UnixAttestor;
  readonly registry: Pick<EntryRegistry, 'match' | 'replace' | 'size' | 'allRules'>;
  readonly entitlements: Entitlements<Caller>;
  readonly authority: Authority;
  readonly trust: TrustStore;
  readonly unknownKeys: UnknownKeyWaits | undefined;
  readonly x509: X509Identities;
  readonly jwt: JwtIdentities;
  /** From the top down. Resolves when nothing is being written any more. */
  close(): Promise<void>;
}

/** Leaves whose CA is not to be relied on any more are signed again within this part of their life, at most so long. */
const REPLACED_WITHIN = 1 / 10;
const REPLACED_WITHIN_MS = 30_000;

/**
 * Builds the rooms from the bottom up. `kubernetes` is its owner's to start and to close.
 *
 * @throws SignetError `state_refused`, `state_unwritable`, `profile_violation`
 */
export async function openRooms(config: Config, kubernetes: KubernetesRooms | undefined, tools: RoomTools & { readonly kernel: Kernel }): Promise<Rooms> {
  const { clock, random, kernel, events } = tools;
  const { x509: x509Config, jwt: jwtConfig, limits } = config;
  const authority = await openAuthority(config, kubernetes, tools);
  const trust = new TrustStore(authority.bundle, events);
  const unknownKeys = kubernetes === undefined && authority.askForKeys === undefined ? undefined : new UnknownKeyWaits(trust, clock, { onWait: () => authority.askForKeys?.() });
  const unix = new UnixAttestor({ path: config.attestation.unix.path, clock });
  const registry = kubernetes?.registry ?? new EntryRegistry(config.entries, config, clock, events);
  const attestation = new Attestation(kubernetes === undefined ? [unix] : [unix, kubernetes.attestor], kernel);
  const entitlements = new Entitlements<Caller>(attestation, registry, clock, {
    ...(kubernetes === undefined ? {} : { timeoutMs: attestationTimeoutOf(config) }),
    onAttested: (caller, selectors, durationMs) => events.publish('attested', { ...whoOf(caller), outcome: outcomeOf(selectors), durationMs }),
  });
  const x509 = new X509Identities({ ...x509Config, capacity: limits.identities }, { signer: authority.x509, newKeyPair: newEncodedKeyPair, clock, random, events });
  const jwt = new JwtIdentities(
    { ttlMs: jwtConfig.ttlMs, perIdentity: limits.jwtPerIdentity, identities: limits.identities },
    { signer: authority.jwt, clock, random, events },
  );
  const stopReplacing = authority.onIssuerChange?.(({ isReplaced }) => {
    if (isReplaced) x509.replaceAll(Math.min(x509Config.ttlMs * REPLACED_WITHIN, REPLACED_WITHIN_MS));
  });
  const stopRetrying = authority.onRecover?.(() => x509.retryFailed());
  const stopTaints = authority.orders?.onTaint((taint) => {
    if (taint.kind === 'jwt') return jwt.dropSignedBy(taint.kid);
    x509.dropUnread();
    x509.replaceAll(taint.withinMs);
  });
  const close = async (): Promise<void> => {
    stopReplacing?.();
    stopRetrying?.();
    stopTaints?.();
    for (const room of [entitlements, x509, jwt]) room.close();
    if (kubernetes === undefined) registry.close();
    unknownKeys?.close();
    trust.close();
    await authority.close();
  };
  return { unix, registry, entitlements, authority, trust, unknownKeys, x509, jwt, close };
}

/** Waiting for a pod may take its time-out, and then a question to the API server or the kubelet. */
function attestationTimeoutOf({ attestation }: Config): number {
  return attestation.kubernetes.podTimeoutMs + 6_000;
}

function outcomeOf(selectors: readonly Selector[] | undefined): AttestationOutcome {
  if (selectors === undefined) return 'refused';
  return podUidOf(selectors) === undefined ? 'process' : 'pod';
}
