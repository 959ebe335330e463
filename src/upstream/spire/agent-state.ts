import { createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto';
import { messageOf, SignetError } from '../../errors.ts';
import { isObject } from '../../kubernetes/json.ts';
import { idOfTrustDomain, type TrustDomain } from '../../spiffe/id.ts';
import { toPem } from '../../spiffe/pem.ts';
import type { SpireIdentity } from './connection.ts';

/** A text that survives a restart. */
export interface Store {
  /** For what an operator is told. */
  readonly path: string;
  /** @throws SignetError `state_refused` */
  read(): string | undefined;
  /** @throws SignetError `state_unwritable` */
  write(text: string): Promise<void>;
}

/** What the SPIRE server has made of this node. Times are milliseconds since the Unix epoch. */
export interface AgentIdentity extends SpireIdentity {
  readonly id: string;
  /** True when this node may prove itself again; else the SVID is renewed. */
  readonly isReattestable: boolean;
  readonly notBefore: number;
  readonly notAfter: number;
}

const VERSION = 1;

/**
 * An agent's SVID as a server has answered it, or as it was kept.
 *
 * @throws Error when it is not for `privateKey`, or not for an agent of the trust domain.
 */
export function agentIdentity(chain: readonly Buffer[], privateKey: KeyObject, isReattestable: boolean, trustDomain: TrustDomain): AgentIdentity {
  const [der] = chain;
  if (der === undefined) throw new Error('there is no certificate');
  const leaf = new X509Certificate(der);
  if (!leaf.checkPrivateKey(privateKey)) throw new Error('its certificate is for another key');
  const uris = (leaf.subjectAltName ?? '').split(', ').filter((name) => name.startsWith('URI:')).map((name) => name.slice('URI:'.length));
  const [id = ''] = uris;
  if (uris.length !== 1 || !id.startsWith(`${idOfTrustDomain(trustDomain)}/`)) throw new Error(`its certificate is for ${JSON.stringify(uris)} and for no agent of ${trustDomain}`);
  return { id, chain, privateKey, isReattestable, notBefore: leaf.validFromDate.getTime(), notAfter: leaf.validToDate.getTime() };
}

/** @throws SignetError `state_refused` saying what to do; the file is never changed for it. */
export function readAgent(store: Store, trustDomain: TrustDomain): AgentIdentity | undefined {
  const text = store.read();
  if (text === undefined) return undefined;
  try {
    const state: unknown = JSON.parse(text);
    if (!isObject(state) || state['version'] !== VERSION) throw new Error('it has another form');
    if (state['trustDomain'] !== trustDomain) throw new Error(`it belongs to the trust domain ${JSON.stringify(state['trustDomain'])}, and this agent serves "${trustDomain}"`);
    const { chain, privateKey, reattestable } = state;
    if (!Array.isArray(chain) || !chain.every((one) => typeof one === 'string') || typeof privateKey !== 'string') throw new Error('a part is missing');
    const ders = chain.map((pem) => new X509Certificate(pem).raw);
    return agentIdentity(ders, createPrivateKey(privateKey), reattestable === true, trustDomain);
  } catch (error) {
    const remedy = 'What to do: move it away; this node then joins the SPIRE server anew, with a join token that has not been used';
    throw new SignetError('state_refused', `${store.path} is damaged or foreign: ${messageOf(error)}. ${remedy}.`, { cause: error });
  }
}

/** @throws SignetError `state_unwritable`; the old state is then untouched. */
export async function writeAgent(store: Store, { chain, privateKey, isReattestable }: AgentIdentity, trustDomain: TrustDomain): Promise<void> {
  const key = String(privateKey.export({ format: 'pem', type: 'pkcs8' }));
  const state = { version: VERSION, trustDomain, chain: chain.map((der) => toPem('CERTIFICATE', der)), privateKey: key, reattestable: isReattestable };
  await store.write(`${JSON.stringify(state, null, 2)}\n`);
}
