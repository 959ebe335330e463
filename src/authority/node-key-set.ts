import { constants, createPublicKey, sign, verify, type KeyObject, type webcrypto } from 'node:crypto';
import * as v from 'valibot';
import { messageOf, SignetError } from '../errors.ts';
import type { JwtAuthority } from '../spiffe/bundle.ts';
import { idOfTrustDomain, type TrustDomain } from '../spiffe/id.ts';
import { keyProblem, readCa, urisOf, type CaCertificate } from './ca-certificate.ts';
import { findPath, isProblem, type CaPath } from './ca-path.ts';
import { jwtAuthority, type KeyPair } from './keys.ts';

/** A JWT key that a node publishes. */
export interface NodeJwtKey extends JwtAuthority {
  /** No token signed with it is valid after this. Milliseconds since the Unix epoch. */
  readonly notAfter: number;
}

/** The public JWT keys of one agent of the trust domain. */
export interface NodeKeySet {
  readonly trustDomain: TrustDomain;
  /** Name of the Kubernetes Node. */
  readonly node: string;
  /** Tells the agents of one node apart. */
  readonly instance: string;
  /** Milliseconds since the Unix epoch. */
  readonly issuedAt: number;
  /** One to `MOST_KEYS`. */
  readonly keys: readonly NodeJwtKey[];
}

/** A set that a node CA under a believed root has signed. */
export interface VerifiedNodeKeySet extends NodeKeySet {
  /** The last `notAfter` of its keys. Milliseconds since the Unix epoch, as is the other. */
  readonly expiresAt: number;
  /** DER of the root it was verified with. */
  readonly root: Buffer;
  /** The first end on the way from the node CA to that root. */
  readonly chainNotAfter: number;
}

/** Whom a verifier believes. */
export interface KeySetTrust {
  /** DER. */
  readonly roots: readonly Buffer[];
  readonly trustDomain: TrustDomain;
}

/** Three keys are usual while one follows another. */
export const MOST_KEYS = 8;
/** Of a compact JWS, chain included. */
export const LARGEST_KEY_SET = 16 * 1024;

/** Explicit typing (RFC 8725 §3.11): what has this type is a key set and nothing else. */
const TYPE = 'signet-node-keys+jws';
/** The node CA and what may lie between it and the root. */
const LONGEST_CHAIN = 5;
/** The clock of another node may be ahead by this much. */
const LEEWAY_MS = 300_000;
/** Larger RSA keys cost every validation of a token more than they are worth. */
const MOST_RSA_BITS = 4096;
/** RFC 7518 §6.2.2, §6.3.2, §6.4.1 */
const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'];

const Seconds = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const Name = v.pipe(v.string(), v.minLength(1), v.maxLength(253));
const Chain = v.pipe(v.array(v.string()), v.minLength(1), v.maxLength(LONGEST_CHAIN));
const Header = v.strictObject({ alg: v.string(), typ: v.literal(TYPE), x5c: Chain });
const Key = v.looseObject({ use: v.literal('jwt-svid'), kid: v.string(), exp: Seconds });
const Payload = v.strictObject({
  trust_domain: v.string(),
  node: Name,
  instance: Name,
  iat: Seconds,
  exp: Seconds,
  keys: v.pipe(v.array(Key), v.minLength(1), v.maxLength(MOST_KEYS)),
});

/**
 * Signs a set as a compact JWS (RFC 7515) over a JWK Set (RFC 7517 §5) with the members `trust_domain`, `node`, `instance`, `iat`
 * and `exp` besides `keys`. `chain`: DER, the node CA first, without the root. Each key has an `exp` of its own (seconds).
 *
 * The key of the node CA itself signs it: of all keys under the root it alone stands for the agent of a node, where the key of a
 * leaf may be any workload's. That a CA key signs something besides certificates is sound here, since no signature of one kind can be
 * taken for one of the other: a TBSCertificate begins with the octet 0x30 of a SEQUENCE (RFC 5280 §4.1), what is signed here with the
 * letter `e`, as the base64url of every JSON object does. Nor can a set be taken for a JWT-SVID: those are verified with the JWT keys
 * of a bundle, among which no CA key is (`verifyNodeKeys` refuses it there), and have neither this `typ` nor an `x5c` (JWT-SVID §2).
 *
 * @throws SignetError `profile_violation` when no verifier would take it.
 */
export function signNodeKeys(issuer: Pick<KeyPair, 'privateKey'>, chain: readonly Buffer[], set: NodeKeySet): string {
  const count = set.keys.length;
  if (count === 0 || count > MOST_KEYS) throw refused(`it has ${count} keys, and 1 to ${MOST_KEYS} are allowed`);
  const scheme = schemeOf(issuer.privateKey);
  const header = { alg: scheme.alg, typ: TYPE, x5c: chain.map((der) => der.toString('base64')) };
  const payload = {
    trust_domain: set.trustDomain,
    node: set.node,
    instance: set.instance,
    iat: seconds(set.issuedAt),
    exp: Math.max(...set.keys.map(({ notAfter }) => seconds(notAfter))),
    keys: set.keys.map(({ jwk, kid, notAfter }) => ({ ...jwk, kid, use: 'jwt-svid', exp: seconds(notAfter) })),
  };
  const signed = `${encode(header)}.${encode(payload)}`;
  const signature = sign(scheme.hash, Buffer.from(signed), { key: issuer.privateKey, ...scheme.options });
  const jws = `${signed}.${signature.toString('base64url')}`;
  if (jws.length > LARGEST_KEY_SET) throw refused(`it has ${jws.length} bytes, more than ${LARGEST_KEY_SET}`);
  return jws;
}

/**
 * Verifies a set by its own certificates up to one of `roots`: a CA (never a leaf) that carries exactly the trust domain's ID has
 * signed it, every certificate on the way is valid at `now` (milliseconds since the Unix epoch), and what it says is well-formed.
 *
 * @throws SignetError `profile_violation` saying what is wrong.
 */
export function verifyNodeKeys(jws: string, trust: KeySetTrust, now: number): VerifiedNodeKeySet {
  try {
    return verified(jws, trust, now);
  } catch (error) {
    if (error instanceof SignetError) throw error;
    // Certificates from anywhere: OpenSSL reads some parts only when they are used.
    throw refused(messageOf(error));
  }
}

function verified(jws: string, trust: KeySetTrust, now: number): VerifiedNodeKeySet {
  if (jws.length > LARGEST_KEY_SET) throw refused(`it has ${jws.length} bytes, more than ${LARGEST_KEY_SET}`);
  const [header = '', payload = '', signature = '', ...more] = jws.split('.');
  if (more.length > 0 || signature === '') throw refused('it is not a compact JWS (RFC 7515 §7.1)');
  const { alg, x5c } = parseAs(Header, header, 'header');
  const path = pathOf(x5c, trust, now);
  const [ca] = path.chain;
  // A path without chain begins at a root, which signs CAs and no key sets.
  if (ca === undefined) throw refused('a root has signed it, and not a node CA');
  const scheme = schemeOf(ca.openssl.publicKey);
  if (alg !== scheme.alg) throw refused(`its alg is ${JSON.stringify(alg)}, and the key of "${ca.name}" signs ${scheme.alg}`);
  const signed = Buffer.from(`${header}.${payload}`);
  const isSigned = verify(scheme.hash, signed, { key: ca.openssl.publicKey, ...scheme.options }, bytes(signature, 'signature'));
  if (!isSigned) throw refused(`"${ca.name}" has not signed it`);
  const set = readPayload(parseAs(Payload, payload, 'payload'), trust.trustDomain, now);
  // A key for two purposes would undo what keeps their signatures apart.
  const isOfCa = set.keys.some(({ publicKey }) => path.chain.some(({ openssl }) => openssl.publicKey.equals(publicKey)));
  if (isOfCa) throw refused('one of its keys is that of a CA');
  return { ...set, root: path.root.der, chainNotAfter: path.notAfter };
}

function pathOf(x5c: readonly string[], { roots, trustDomain }: KeySetTrust, now: number): CaPath {
  const chain = x5c.map((text) => readCertificate(text));
  const [start, ...others] = chain;
  if (start === undefined) throw refused('its x5c is empty');
  for (const [index, child] of chain.entries()) {
    const parent = chain[index + 1];
    // In this order (RFC 7515 §4.1.6); it also keeps the search for a path short.
    const isLinked = parent === undefined || child.openssl.verify(parent.openssl.publicKey);
    if (!isLinked) throw refused(`in its x5c "${child.name}" is not signed by "${parent.name}"`);
  }
  const path = findPath({ start, others, anchors: roots.map(readAnchor), trustDomain, below: 0, now });
  if (isProblem(path)) throw refused(`of "${start.name}", which has signed it: ${path.what}`);
  checkId(start, trustDomain);
  return path;
}

/** Other CAs stand under the root too, and none of them speaks for a node. */
function checkId(ca: CaCertificate, trustDomain: TrustDomain): void {
  const id = idOfTrustDomain(trustDomain);
  const uris = urisOf(ca.parsed);
  if (uris.length === 1 && uris[0] === id) return;
  throw refused(`the URI SANs of "${ca.name}", which has signed it, are ${JSON.stringify(uris)} and not ["${id}"]: it is no node CA`);
}

function readCertificate(text: string): CaCertificate {
  const der = Buffer.from(text, 'base64');
  if (der.toString('base64') !== text) throw refused('its x5c is not base64 (RFC 7515 §4.1.6)');
  try {
    return readCa(der);
  } catch (error) {
    throw refused(`its x5c holds no certificate: ${messageOf(error)}`);
  }
}

const anchors = new WeakMap<Buffer, CaCertificate>();

/** Roots stay the same buffers for days, while every set of every node is verified with them. */
function readAnchor(der: Buffer): CaCertificate {
  const anchor = anchors.get(der) ?? readCa(der);
  anchors.set(der, anchor);
  return anchor;
}

type ReadPayload = Omit<VerifiedNodeKeySet, 'root' | 'chainNotAfter'>;

function readPayload(payload: v.InferOutput<typeof Payload>, trustDomain: TrustDomain, now: number): ReadPayload {
  const other = JSON.stringify(payload.trust_domain);
  if (payload.trust_domain !== trustDomain) throw refused(`it is of the trust domain ${other} and not of ${trustDomain}`);
  const [issuedAt, expiresAt] = [payload.iat * 1000, payload.exp * 1000];
  if (issuedAt > now + LEEWAY_MS) throw refused(`it was issued at ${iso(issuedAt)}, which is in the future`);
  if (expiresAt <= now) throw refused(`it has expired at ${iso(expiresAt)}`);
  const keys = payload.keys.map(readKey);
  if (new Set(keys.map(({ kid }) => kid)).size < keys.length) throw refused('it has a key twice');
  const last = Math.max(...keys.map(({ notAfter }) => notAfter));
  if (last !== expiresAt) throw refused(`it expires at ${iso(expiresAt)}, and its last key at ${iso(last)}`);
  return { trustDomain, node: payload.node, instance: payload.instance, issuedAt, expiresAt, keys };
}

function readKey(given: v.InferOutput<typeof Key>): NodeJwtKey {
  if (PRIVATE_MEMBERS.some((name) => name in given)) throw refused('it holds a private key');
  const publicKey = importKey(given);
  const weak = keyProblem(publicKey) ?? largeProblem(publicKey);
  if (weak !== undefined) throw refused(`of one of its keys: ${weak}`);
  const authority = jwtAuthority(publicKey);
  if (authority.kid === given.kid) return { ...authority, notAfter: given.exp * 1000 };
  const told = JSON.stringify(given.kid.slice(0, 64));
  throw refused(`the kid ${told} is not the RFC 7638 thumbprint of its key, which is ${authority.kid}`);
}

function importKey(given: v.InferOutput<typeof Key>): KeyObject {
  try {
    return createPublicKey({ key: given as webcrypto.JsonWebKey, format: 'jwk' });
  } catch (error) {
    throw refused(`one of its keys cannot be read: ${messageOf(error)}`);
  }
}

function largeProblem(key: KeyObject): string | undefined {
  const bits = key.asymmetricKeyDetails?.modulusLength ?? 0;
  return bits > MOST_RSA_BITS ? `the RSA key has ${bits} bits, more than ${MOST_RSA_BITS}` : undefined;
}

interface Scheme {
  readonly alg: 'ES256' | 'ES384' | 'PS256';
  readonly hash: string;
  readonly options: { readonly dsaEncoding: 'ieee-p1363' } | { readonly padding: number; readonly saltLength: number };
}

const { RSA_PKCS1_PSS_PADDING: padding, RSA_PSS_SALTLEN_DIGEST: saltLength } = constants;

const SCHEMES: Readonly<Record<string, Scheme>> = {
  prime256v1: { alg: 'ES256', hash: 'sha256', options: { dsaEncoding: 'ieee-p1363' } },
  secp384r1: { alg: 'ES384', hash: 'sha384', options: { dsaEncoding: 'ieee-p1363' } },
  rsa: { alg: 'PS256', hash: 'sha256', options: { padding, saltLength } },
};

/** The key decides what it signs; the header only names it (RFC 8725 §3.1). */
function schemeOf(key: KeyObject): Scheme {
  const kind = key.asymmetricKeyDetails?.namedCurve ?? key.asymmetricKeyType ?? 'secret';
  const scheme = SCHEMES[kind];
  if (scheme === undefined) throw refused(`a key of the type ${kind} signs none`);
  return scheme;
}

function parseAs<S extends v.GenericSchema>(schema: S, part: string, name: string): v.InferOutput<S> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes(part, name)));
  } catch (error) {
    if (error instanceof SignetError) throw error;
    throw refused(`its ${name} is not JSON`);
  }
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw refused(`in its ${name}, ${v.getDotPath(issue) ?? 'the whole'} is not what it should be`);
}

/** One text for one value: no padding, no foreign characters, no spare bits. */
function bytes(part: string, name: string): Buffer {
  const decoded = Buffer.from(part, 'base64url');
  if (part === '' || decoded.toString('base64url') !== part) throw refused(`its ${name} is not base64url`);
  return decoded;
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

function seconds(ms: number): number {
  return Math.floor(ms / 1000);
}

function refused(why: string): SignetError {
  return new SignetError('profile_violation', `the key set is refused: ${why}`);
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
