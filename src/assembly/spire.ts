import { readPrivateFile, statePath, writePrivateFile } from '../authority/state-file.ts';
import { profileProblem, readCa } from '../authority/ca-certificate.ts';
import { createCsr } from '../authority/certificate.ts';
import { jwtAuthority, newKeyPair } from '../authority/keys.ts';
import type { JwtKeySource } from '../authority/jwt-signer.ts';
import type { NodeAuthority } from '../authority/node-authority.ts';
import { leavesAt } from '../authority/tainted.ts';
import type { Config, SpireAttestationConfig, SpireConfig } from '../config/config.ts';
import { SignetError } from '../errors.ts';
import type { BundleSource } from '../spiffe/signing.ts';
import { composeBundle } from '../trust/composed-bundle.ts';
import { KeyPropagation } from '../trust/key-propagation.ts';
import { PublishedJwtKeys } from '../trust/published-jwt-keys.ts';
import { readAgent, type Store } from '../upstream/spire/agent-state.ts';
import { readBundle } from '../upstream/spire/bundle-state.ts';
import { SpireIntermediate } from '../upstream/spire/intermediate.ts';
import type { WireJwtKey } from '../upstream/spire/messages.ts';
import { SpireSession } from '../upstream/spire/session.ts';
import type { SpireAttestation } from '../upstream/spire/spire-options.ts';
import { withoutRevoked } from '../upstream/spire/revoked-roots.ts';
import type { RoomTools } from './tools.ts';

const AGENT_FILE = 'spire-agent.json';
const BUNDLE_FILE = 'spire-bundle.json';

/** The start waits so long for the server: then what was kept from before a restart is served. */
const START_MS = 5_000;

/** SPIRE's agents hear of a key within their sync interval, 5 s by default; a second more for what that takes. */
const AGENTS_HEAR_MS = 6_000;

/** A key that cannot be published signs nevertheless after this time. */
const PATIENCE_MS = 15_000;

/** Judges what was kept from before a restart. @throws SignetError `state_refused` */
export function checkSpire({ trustDomain }: Config, directory: string): void {
  readAgent(storeIn(directory, AGENT_FILE), trustDomain);
  readBundle(storeIn(directory, BUNDLE_FILE), trustDomain);
}

/** What this node has with the server, from the state directory `directory` on; the server may be away. */
export async function openSpire(config: Config, spire: SpireConfig, directory: string, tools: RoomTools, opened: AsyncDisposableStack): Promise<{ session: SpireSession; upstream: SpireIntermediate }> {
  const { trustDomain } = config;
  const { address, bundleFile, attestation, syncMs } = spire;
  const newKey = async () => {
    const keys = await newKeyPair('ec-p256');
    return { privateKey: keys.privateKey, csr: await createCsr(keys, trustDomain, tools.random) };
  };
  const session = new SpireSession(
    { ...address, trustDomain, bundleFile, attestation: attestationOf(attestation), syncMs },
    {
      ...tools,
      newKey,
      jwtAuthority,
      judgeRoot: (root) => profileProblem(readCa(root), trustDomain)?.what,
      agentStore: storeIn(directory, AGENT_FILE),
      bundleStore: storeIn(directory, BUNDLE_FILE),
    },
  );
  opened.defer(() => session.close());
  const deadline = new AbortController();
  const alarm = tools.clock.after(START_MS, () => deadline.abort(new SignetError('timed_out', 'the SPIRE server has not answered yet')));
  // What fails is told by the session, and tried again.
  await session.look(deadline.signal).catch(() => undefined);
  alarm.cancel();
  return { session, upstream: new SpireIntermediate(session) };
}

/** JWT keys that the whole trust domain knows by the server's bundle. */
export interface SpireJwtKeys {
  readonly source: JwtKeySource;
  readonly bundle: BundleSource;
  /** Somebody has a token whose key is not known yet. */
  askForKeys(): void;
}

/** Begins to publish this node's keys to the server, and adds those of the server and of all other nodes to the bundle. */
export function shareJwtKeysBySpire(node: NodeAuthority, session: SpireSession, { jwt }: Config, { clock }: RoomTools, opened: AsyncDisposableStack): SpireJwtKeys {
  const before = new Set(session.bundle.jwtAuthorities().map(({ kid }) => kid));
  const propagationMs = Math.max(jwt.propagationMs, AGENTS_HEAR_MS);
  const propagation = new KeyPropagation({ clock, propagationMs, patienceMs: PATIENCE_MS, wasKnownBefore: (kid) => before.has(kid) });
  opened.defer(() => propagation.close());
  const ownKeys = (): readonly WireJwtKey[] =>
    node.jwtKeys().map((key) => ({ keyId: key.kid, publicKey: key.publicKey.export({ format: 'der', type: 'spki' }), expiresAt: Math.ceil(leavesAt(key) / 1_000), tainted: false }));
  const want = (): void => {
    propagation.want(new Set(node.jwtKeys().map(({ kid }) => kid)));
    session.nudge();
  };
  opened.defer(session.publish(ownKeys, (kids) => propagation.published(kids)));
  opened.defer(node.onChange(want));
  want();
  const all = { keys: () => session.bundle.jwtAuthorities(), onChange: (listener: () => void) => session.bundle.onChange(listener) };
  return {
    source: new PublishedJwtKeys(node, propagation, clock),
    bundle: withoutRevoked(composeBundle(node, all), session.bundle),
    askForKeys: () => session.nudge(),
  };
}

/** The configuration has been judged already. */
function attestationOf({ method, cluster, tokenFile, certificate, key }: SpireAttestationConfig): SpireAttestation {
  if (method === 'join_token') return { method, tokenFile: given('tokenFile', tokenFile) };
  if (method === 'k8s_psat') return { method, cluster: given('cluster', cluster), tokenFile: given('tokenFile', tokenFile) };
  return { method, certificate: given('certificate', certificate), key: given('key', key) };
}

function given(name: string, value: string | undefined): string {
  if (value === undefined) throw new SignetError('invalid_config', `authority.spire.attestation.${name} is not set`);
  return value;
}

function storeIn(directory: string, name: string): Store {
  const path = statePath(directory, name);
  return { path, read: () => readPrivateFile(path), write: (text) => writePrivateFile(path, text) };
}
