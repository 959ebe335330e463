import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
import { SignetError, messageOf } from '../errors.ts';
import type { JwtAuthority } from '../spiffe/bundle.ts';
import { parseSpiffeId, parseTrustDomain, trustDomainOf, type SpiffeId, type TrustDomain } from '../spiffe/id.ts';
import type { JwtSvid, X509Svid } from '../spiffe/svid.ts';
import { parseCertificates, parseChain } from './certificate.ts';
import { parseJwtSvid, withHidden } from './jwt.ts';
import type { JwtBundlesResponse, JwtSvidResponse, Struct, StructValue, ValidateJwtSvidResponse } from './messages.ts';
import type { X509BundlesResponse, X509SvidMessage, X509SvidResponse } from './messages.ts';

/** DER of each CA certificate, by trust domain. A trust domain that is not listed is not trusted (Workload API §4.3). */
export type X509Bundles = ReadonlyMap<TrustDomain, readonly Buffer[]>;

/** An identity with what goes with it. `privateKey` is not enumerable, so that printing or copying the object loses it. */
export interface X509Identity extends X509Svid {
  /** Text by which a workload tells its identities apart; empty: none. */
  readonly hint: string;
}

/** The whole state at one moment; it replaces the one before. */
export interface X509Context {
  /** The first is the default identity. Empty only in a `watch`, when all identities were withdrawn. */
  readonly identities: readonly X509Identity[];
  /** The trust domains of the identities, and the federated ones. */
  readonly bundles: X509Bundles;
  /** DER of certificate revocation lists. */
  readonly crls: readonly Buffer[];
}

/** The X.509 bundles without an identity. */
export interface X509BundleContext {
  readonly bundles: X509Bundles;
  readonly crls: readonly Buffer[];
}

/** A JWT-SVID with its hint. `token` is not enumerable. */
export interface JwtIdentity extends JwtSvid {
  readonly hint: string;
}

/** The keys that JWT-SVIDs are signed with, by trust domain. */
export type JwtBundles = ReadonlyMap<TrustDomain, readonly JwtAuthority[]>;

/** What the agent found in a token that it verified. */
export interface ValidatedJwt {
  readonly id: SpiffeId;
  readonly claims: Readonly<Record<string, unknown>>;
}

/**
 * @throws SignetError `invalid_svid` or `invalid_spiffe_id` when any part is missing or malformed: an update counts as a whole or
 *   not at all (Workload API §4.4).
 */
export function parseX509Context(response: X509SvidResponse): X509Context {
  if (response.svids.length === 0) throw new SignetError('invalid_svid', 'the response has no X.509-SVID');
  const bundles = parseBundleMap(response.federated_bundles);
  const identities = response.svids.map((message) => {
    const identity = parseIdentity(message);
    // A federated entry never replaces the bundle that comes with an own identity.
    bundles.set(trustDomainOf(identity.id), parseBundle(message.bundle, trustDomainOf(identity.id)));
    return identity;
  });
  return { identities: firstOfEachHint(identities), bundles, crls: response.crl };
}

/** @throws SignetError `invalid_svid` or `invalid_spiffe_id` */
export function parseX509Bundles(response: X509BundlesResponse): X509BundleContext {
  const bundles = parseBundleMap(response.bundles);
  if (bundles.size === 0) throw new SignetError('invalid_svid', 'the response has no X.509 bundle');
  return { bundles, crls: response.crl };
}

/** @throws SignetError `invalid_token` or `invalid_spiffe_id` */
export function parseJwtSvids(response: JwtSvidResponse, audience: readonly string[]): JwtIdentity[] {
  if (response.svids.length === 0) throw new SignetError('invalid_token', 'the response has no JWT-SVID');
  const identities = response.svids.map((message) =>
    Object.assign(parseJwtSvid(message.spiffe_id, message.svid, audience), { hint: message.hint }),
  );
  return firstOfEachHint(identities);
}

/**
 * Elements that cannot be a JWT-SVID key (no `kid`, an unknown `kty`, another `use`) are left out one by one (SPIFFE Trust Domain
 * and Bundle §4.2); a document that is no JWK Set is an error.
 *
 * @throws SignetError `invalid_token` or `invalid_spiffe_id`
 */
export function parseJwtBundles(response: JwtBundlesResponse): JwtBundles {
  const entries = Object.entries(response.bundles);
  if (entries.length === 0) throw new SignetError('invalid_token', 'the response has no JWT bundle');
  return new Map(entries.map(([name, document]) => [parseTrustDomain(name), parseJwks(name, document)]));
}

/** @throws SignetError `invalid_token` or `invalid_spiffe_id` */
export function parseValidated(response: ValidateJwtSvidResponse): ValidatedJwt {
  if (response.claims === null) throw new SignetError('invalid_token', 'the response has no claims');
  return { id: parseSpiffeId(response.spiffe_id), claims: fromStruct(response.claims) };
}

function parseIdentity(message: X509SvidMessage): X509Identity {
  const { id, chain, leaf } = parseChain(message.x509_svid, message.spiffe_id);
  const key = parseKey(message.x509_svid_key, id);
  if (!leaf.checkPrivateKey(key)) {
    throw new SignetError('invalid_svid', `the private key of ${id} does not belong to its certificate`);
  }
  const shown = { id, chain, serial: leaf.serialNumber, hint: message.hint };
  const times = { notBefore: leaf.validFromDate.getTime(), notAfter: leaf.validToDate.getTime() };
  return withHidden({ ...shown, ...times }, 'privateKey', message.x509_svid_key);
}

function parseKey(der: Buffer, id: SpiffeId): KeyObject {
  try {
    return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  } catch {
    throw new SignetError('invalid_svid', `the private key of ${id} is not unencrypted PKCS#8 DER`);
  }
}

function parseBundleMap(map: Readonly<Record<string, Buffer>>): Map<TrustDomain, readonly Buffer[]> {
  return new Map(Object.entries(map).map(([name, der]) => [parseTrustDomain(name), parseBundle(der, name)]));
}

function parseBundle(der: Buffer, name: string): readonly Buffer[] {
  const authorities = parseCertificates(der, `the bundle of ${name}`);
  if (authorities.length === 0) throw new SignetError('invalid_svid', `the bundle of ${name} is empty`);
  return authorities;
}

/** Hints are unique when they are not empty; of two the first counts (Workload API §5.2.1). */
function firstOfEachHint<T extends { readonly hint: string }>(identities: readonly T[]): T[] {
  const seen = new Set<string>();
  return identities.filter(({ hint }) => hint === '' || (!seen.has(hint) && seen.add(hint)));
}

function parseJwks(name: string, document: Buffer): JwtAuthority[] {
  let jwks: unknown;
  try {
    jwks = JSON.parse(document.toString('utf8'));
  } catch (error) {
    throw new SignetError('invalid_token', `the JWT bundle of ${name} is not JSON: ${messageOf(error)}`);
  }
  const keys = typeof jwks === 'object' && jwks !== null && 'keys' in jwks ? jwks.keys : undefined;
  if (!Array.isArray(keys)) throw new SignetError('invalid_token', `the JWT bundle of ${name} has no array "keys"`);
  return keys.flatMap((key: unknown) => parseJwk(key) ?? []);
}

const USES = new Set<unknown>([undefined, 'jwt-svid', 'sig']);
const MEMBERS: Readonly<Record<string, readonly string[]>> = { EC: ['kty', 'crv', 'x', 'y'], RSA: ['kty', 'n', 'e'] };

function parseJwk(key: unknown): JwtAuthority | undefined {
  if (typeof key !== 'object' || key === null) return undefined;
  const members: Readonly<Record<string, unknown>> = Object.fromEntries(Object.entries(key));
  const { kid, kty, use } = members;
  const names = typeof kty === 'string' && Object.hasOwn(MEMBERS, kty) ? MEMBERS[kty] : undefined;
  if (typeof kid !== 'string' || kid === '' || names === undefined || !USES.has(use)) return undefined;
  const jwk = Object.fromEntries(names.map((name) => [name, String(members[name])]));
  try {
    return { kid, publicKey: createPublicKey({ key: jwk, format: 'jwk' }), jwk };
  } catch {
    return undefined;
  }
}

function fromStruct(struct: Struct): Record<string, unknown> {
  return Object.fromEntries(Object.entries(struct.fields).map(([name, value]) => [name, fromValue(value)]));
}

function fromValue(value: StructValue): unknown {
  switch (value.kind) {
    case 'structValue':
      return value.structValue === undefined ? {} : fromStruct(value.structValue);
    case 'listValue':
      return value.listValue?.values.map(fromValue) ?? [];
    case 'numberValue':
      return value.numberValue;
    case 'stringValue':
      return value.stringValue;
    case 'boolValue':
      return value.boolValue;
    default:
      return null;
  }
}
