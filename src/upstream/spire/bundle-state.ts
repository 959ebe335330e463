import { X509Certificate } from 'node:crypto';
import { messageOf, SignetError } from '../../errors.ts';
import { isObject } from '../../kubernetes/json.ts';
import type { TrustDomain } from '../../spiffe/id.ts';
import type { Store } from './agent-state.ts';

export interface KeptRoot {
  readonly certificate: Buffer;
  readonly tainted: boolean;
}

export interface KeptJwtKey {
  readonly kid: string;
  /** SPKI in DER. */
  readonly publicKey: Buffer;
  /** Milliseconds since the Unix epoch, or Infinity. */
  readonly notAfter: number;
}

export interface KeptBundle {
  readonly x509: readonly KeptRoot[];
  readonly jwt: readonly KeptJwtKey[];
  /** DER of the roots that were tainted and have gone. */
  readonly revoked: readonly Buffer[];
  /** SHA-256 of the file of the first contact, as it was when the server last answered; '' for none. */
  readonly bootstrap: string;
}

const VERSION = 1;
const NOTHING: KeptBundle = { x509: [], jwt: [], revoked: [], bootstrap: '' };

/** Nothing when there is no state. @throws SignetError `state_refused` saying what to do; the file is never changed for it. */
export function readBundle(store: Store, trustDomain: TrustDomain): KeptBundle {
  const text = store.read();
  if (text === undefined) return NOTHING;
  try {
    const state: unknown = JSON.parse(text);
    if (!isObject(state) || state['version'] !== VERSION) throw new Error('it has another form');
    if (state['trustDomain'] !== trustDomain) throw new Error(`it belongs to the trust domain ${JSON.stringify(state['trustDomain'])}, and this agent serves "${trustDomain}"`);
    return {
      x509: listAt(state, 'x509').map((one) => ({ certificate: certificateAt(one, 'certificate'), tainted: one['tainted'] === true })),
      jwt: listAt(state, 'jwt').map((one) => ({ kid: textAt(one, 'kid'), publicKey: Buffer.from(textAt(one, 'publicKey'), 'base64'), notAfter: momentAt(one, 'notAfter') })),
      revoked: listAt(state, 'revoked').map((one) => certificateAt(one, 'certificate')),
      bootstrap: textAt(state, 'bootstrap'),
    };
  } catch (error) {
    throw new SignetError('state_refused', `${store.path} is damaged or foreign: ${messageOf(error)}. What to do: move it away; the bundle is then read from the SPIRE server again.`, { cause: error });
  }
}

export function formatBundle({ x509, jwt, revoked, bootstrap }: KeptBundle, trustDomain: TrustDomain): string {
  const base64 = (bytes: Buffer): string => bytes.toString('base64');
  const state = {
    version: VERSION,
    trustDomain,
    x509: x509.map(({ certificate, tainted }) => ({ certificate: base64(certificate), tainted })),
    jwt: jwt.map(({ kid, publicKey, notAfter }) => ({ kid, publicKey: base64(publicKey), notAfter: Number.isFinite(notAfter) ? notAfter : null })),
    revoked: revoked.map((certificate) => ({ certificate: base64(certificate) })),
    bootstrap,
  };
  return `${JSON.stringify(state, null, 2)}\n`;
}

type Part = Readonly<Record<string, unknown>>;

function listAt(part: Part, name: string): Part[] {
  const value = part[name];
  if (!Array.isArray(value) || !value.every(isObject)) throw new Error(`${name} is no list`);
  return value;
}

function textAt(part: Part, name: string): string {
  const value = part[name];
  if (typeof value !== 'string') throw new Error(`${name} is no text`);
  return value;
}

function momentAt(part: Part, name: string): number {
  const value = part[name];
  if (value === null) return Infinity;
  if (typeof value !== 'number') throw new Error(`${name} is no moment`);
  return value;
}

function certificateAt(part: Part, name: string): Buffer {
  return new X509Certificate(Buffer.from(textAt(part, name), 'base64')).raw;
}
