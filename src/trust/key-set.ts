import { createHash } from 'node:crypto';
import { objectAt, textAt, type JsonObject } from '../kubernetes/json.ts';
import type { JwtAuthority } from '../spiffe/bundle.ts';
import type { TrustDomain } from '../spiffe/id.ts';

/** A JWT key that an agent publishes. */
export interface PublishedJwtKey extends JwtAuthority {
  /** No token signed with it is valid after this. Milliseconds since the Unix epoch. */
  readonly notAfter: number;
}

/** What an agent says of its JWT keys, and what has verified it. Times are milliseconds since the Unix epoch. */
export interface KeySet {
  readonly node: string;
  readonly instance: string;
  readonly keys: readonly PublishedJwtKey[];
  /** DER of the root that the set was verified with. */
  readonly root: Buffer;
  /** Until when it could be verified. */
  readonly chainNotAfter: number;
}

/** Whom a verifier of sets believes. */
export interface KeySetTrust {
  /** DER. */
  readonly roots: readonly Buffer[];
  readonly trustDomain: TrustDomain;
}

/**
 * Verifies a set up to one of `roots` (DER) at `now`.
 *
 * @throws Error saying why it is not believed.
 */
export type VerifyKeySet = (jws: string, trust: KeySetTrust, now: number) => KeySet;

/** What is kept of a NodeKeySet. */
export interface KeySetObject {
  readonly name: string;
  /** undefined when it is too large, or no text. */
  readonly jws: string | undefined;
}

/** Of a JWS; a larger one is not even kept. */
export const LARGEST_JWS = 16 * 1024;

/** Without a dot, so that the last dot of a name always ends the node's. */
const INSTANCE = /^[0-9a-f]{12}$/;

/** The name of the object in which `instance` on `node` publishes its keys; undefined when there can be no such object. */
export function keySetName(node: string, instance: string): string | undefined {
  const name = `${node}.${instance}`;
  return INSTANCE.test(instance) && node !== '' && name.length <= 253 ? name : undefined;
}

/**
 * What tells the agents of one node apart: the place where their keys are. An agent that takes over from another on the same
 * directory has the same keys and is the same instance, also after a restart of the machine, so that nothing is left behind.
 */
export function instanceOf(trustDomain: TrustDomain, directory: string): string {
  return createHash('sha256').update(`${trustDomain}\0${directory}`).digest('hex').slice(0, 12);
}

/** For an informer on `NODE_KEY_SETS`. */
export function trimKeySet(raw: JsonObject): KeySetObject | undefined {
  const name = textAt(objectAt(raw, 'metadata'), 'name');
  const jws = textAt(objectAt(raw, 'spec'), 'jws');
  return name === '' ? undefined : Object.freeze({ name, jws: jws === '' || jws.length > LARGEST_JWS ? undefined : jws });
}
