import { X509Certificate } from 'node:crypto';
import * as v from 'valibot';
import { messageOf, SignetError } from '../errors.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { formatJwtKey, JwtKeyText, moment, Moment, privateKeyPem, readJwtKey, type JwtSigningKey } from './jwt-signing-key.ts';
import { keyPairFromPem } from './keys.ts';
import { knownRoot, type KnownRoot } from './known-roots.ts';
import { restoreNodeCa, type NodeCa } from './node-ca.ts';
import { readPrivateFile, statePath, writePrivateFile } from './state-file.ts';

/** All that must survive a restart while the CA above is away. */
export interface NodeState {
  /** In the order in which they were made. */
  readonly cas: readonly NodeCa[];
  readonly roots: readonly KnownRoot[];
  readonly jwt: readonly JwtSigningKey[];
}

const StateText = v.strictObject({
  version: v.literal(1),
  trustDomain: v.string(),
  nodeCas: v.array(
    v.strictObject({
      chain: v.array(v.string()),
      root: v.string(),
      privateKey: v.string(),
      nameConstraint: v.picklist(['none', 'uri']),
      activatesAt: Moment,
      renewAt: Moment,
    }),
  ),
  roots: v.array(v.strictObject({ certificate: v.string(), since: Moment, leftAt: v.nullable(Moment) })),
  jwt: v.array(JwtKeyText),
});
type StateText = v.InferOutput<typeof StateText>;

const FILE = 'node-authority.json';

/**
 * Reads the state in `directory`, or undefined when there is none.
 *
 * @throws SignetError `state_refused` saying what to do; the file is never changed for it.
 */
export function readNodeState(directory: string, trustDomain: TrustDomain): NodeState | undefined {
  const path = statePath(directory, FILE);
  const text = readPrivateFile(path);
  return text === undefined ? undefined : parseNodeState(text, trustDomain, path);
}

/** @throws SignetError `state_unwritable`; the old state is then untouched. */
export async function writeNodeState(directory: string, trustDomain: TrustDomain, state: NodeState): Promise<void> {
  await writePrivateFile(statePath(directory, FILE), formatNodeState(state, trustDomain));
}

function formatNodeState(state: NodeState, trustDomain: TrustDomain): string {
  const text: StateText = {
    version: 1,
    trustDomain,
    nodeCas: state.cas.map((ca) => ({
      chain: ca.chain.map(pem),
      root: pem(ca.root),
      privateKey: privateKeyPem(ca.privateKey),
      nameConstraint: ca.nameConstraint,
      activatesAt: moment(ca.activatesAt),
      renewAt: moment(ca.renewAt),
    })),
    roots: state.roots.map(({ certificate, since, leftAt }) => ({
      certificate: pem(certificate),
      since: moment(since),
      leftAt: leftAt === undefined ? null : moment(leftAt),
    })),
    jwt: state.jwt.map(formatJwtKey),
  };
  return `${JSON.stringify(text, null, 2)}\n`;
}

/** Believes nothing of it: keys must belong to their certificates, those to one another and to a kept root, all to the trust domain. */
function parseNodeState(text: string, trustDomain: TrustDomain, path: string): NodeState {
  try {
    const state = v.parse(StateText, JSON.parse(text));
    if (state.trustDomain !== trustDomain) throw new Error(`it belongs to the trust domain ${JSON.stringify(state.trustDomain)}, and this agent serves "${trustDomain}"`);
    const roots = state.roots.map(readRoot);
    return { cas: state.nodeCas.map((ca) => readCa(ca, roots, trustDomain)), roots, jwt: state.jwt.map(readJwtKey) };
  } catch (error) {
    throw new SignetError(
      'state_refused',
      `${path} is damaged or foreign: ${messageOf(error)}. What to do: move it away; the agent then asks for a new node CA, and JWT-SVIDs that this node has signed stop being valid.`,
      { cause: error },
    );
  }
}

function readRoot(text: StateText['roots'][number]): KnownRoot {
  const leftAt = text.leftAt === null ? undefined : Date.parse(text.leftAt);
  return knownRoot(der(text.certificate), Date.parse(text.since), leftAt);
}

function readCa(text: StateText['nodeCas'][number], roots: readonly KnownRoot[], trustDomain: TrustDomain): NodeCa {
  const root = der(text.root);
  if (!roots.some(({ certificate }) => certificate.equals(root))) throw new Error('a node CA stands under a root that is not among its roots');
  return {
    ...restoreNodeCa({ chain: text.chain.map(der), root, keys: keyPairFromPem(text.privateKey) }, trustDomain),
    nameConstraint: text.nameConstraint,
    activatesAt: Date.parse(text.activatesAt),
    renewAt: Date.parse(text.renewAt),
  };
}

function pem(certificate: Buffer): string {
  return new X509Certificate(certificate).toString();
}

function der(certificatePem: string): Buffer {
  return new X509Certificate(certificatePem).raw;
}
