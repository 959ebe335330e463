import { messageOf, SignetError } from '../errors.ts';
import type { Random } from '../random.ts';
import { idOfTrustDomain, parseSpiffeId, type TrustDomain } from '../spiffe/id.ts';
import { profileProblem, readCa, urisOf, type CaCertificate } from './ca-certificate.ts';
import { findPath, isProblem, type CaPath } from './ca-path.ts';
import { issuerFrom, spkiOf, type Issuer } from './certificate.ts';
import { KEY_USAGE, OID } from './certificate-form.ts';
import type { IntermediateAnswer } from './intermediate-source.ts';
import { newKeyPair, type KeyPair } from './keys.ts';
import { LeafMint } from './leaf-mint.ts';
import { permittedUriHosts, type NameConstraint } from './name-constraints.ts';
import type { Rotating } from './rotation.ts';

/** A node CA whose answer has passed. Its `notAfter` is the first end on its way to the root. */
export interface NodeCa extends Issuer, Rotating {
  /** DER: itself, then what lies between it and the root. */
  readonly chain: readonly Buffer[];
  readonly root: Buffer;
  /** What was asked for. */
  readonly nameConstraint: NameConstraint;
  /** Milliseconds since the Unix epoch. */
  readonly renewAt: number;
}

/** A node CA as its certificates alone tell it. */
export type JudgedCa = Omit<NodeCa, 'activatesAt' | 'renewAt' | 'nameConstraint'>;

/** DER of the CA that signed a node CA. */
export function issuerOf(ca: Pick<NodeCa, 'chain' | 'root'>): Buffer {
  return ca.chain[1] ?? ca.root;
}

export interface NodeCaAsked {
  readonly trustDomain: TrustDomain;
  readonly keys: KeyPair;
  /** Milliseconds since the Unix epoch; a later end is refused. */
  readonly latestEnd: number;
  readonly nameConstraint: NameConstraint;
  /** Also take one without the name constraint that was asked for, or with another path length. */
  readonly acceptUnconstrainedCA?: boolean;
}

/** What a node CA may do (X509-SVID §4.3; digitalSignature is what some CAs renew by). */
const ALLOWED_USES = KEY_USAGE.keyCertSign | KEY_USAGE.crlSign | KEY_USAGE.digitalSignature;

/** A node CA that ends sooner than this is of no use. */
const SHORTEST_LIFE_MS = 10_000;

/** More certificates than any chain has; it bounds what is parsed. */
const LONGEST_CHAIN = 8;

/**
 * Judges what an upstream has answered: nothing is believed because it was asked for.
 *
 * @throws SignetError `profile_violation` naming all that is wrong.
 */
export function judgeAnswer(answer: IntermediateAnswer, asked: NodeCaAsked, now: number): JudgedCa {
  const { ca, path } = readAnswer(answer, asked.trustDomain, now);
  const problems = [...findings(ca, asked, path, now)];
  if (problems.length > 0) throw refused(problems.join('; '));
  return nodeCaFrom(ca, path, asked.keys);
}

/**
 * A node CA again from what was kept of it. Its dates are not looked at: what has ended is replaced, not damaged.
 *
 * @throws SignetError when the parts do not belong together.
 */
export function restoreNodeCa(kept: { chain: readonly Buffer[]; root: Buffer; keys: KeyPair }, trustDomain: TrustDomain): JudgedCa {
  const [ca, ...between] = kept.chain.map(readCa);
  const root = readCa(kept.root);
  if (ca === undefined) throw refused('there is no certificate');
  const problems = [...uriFindings(ca, trustDomain), ...keyFindings(ca, kept.keys)];
  if (problems.length > 0) throw refused(problems.join('; '));
  const chain = [ca, ...between];
  const path = [...chain, root];
  for (const [index, child] of path.slice(0, -1).entries()) {
    const parent = path[index + 1];
    if (parent !== undefined && !child.openssl.verify(parent.openssl.publicKey)) throw refused(`"${child.name}" is not signed by "${parent.name}"`);
  }
  const notAfter = Math.min(...path.map((one) => one.notAfter));
  return nodeCaFrom(ca, { chain, root, notAfter }, kept.keys);
}

/**
 * Signs a leaf for nobody and reads it again: faults that only show below a CA show here and not at the workloads.
 *
 * @throws SignetError `profile_violation`
 */
export async function trySigning(issuer: Issuer, trustDomain: TrustDomain, random: Random): Promise<void> {
  const { publicKey } = await newKeyPair('ec-p256');
  const id = parseSpiffeId(`${idOfTrustDomain(trustDomain)}/trial`);
  // Whole seconds inside the issuer's validity; the leaf is thrown away, so that it need not be valid now.
  const asked = { id, publicKey: spkiOf(publicKey), dnsNames: [], notBefore: issuer.notBefore, notAfter: issuer.notAfter };
  await new LeafMint(random).mint(issuer, asked);
}

function readAnswer(answer: IntermediateAnswer, trustDomain: TrustDomain, now: number): { ca: CaCertificate; path: CaPath } {
  if (answer.chain.length > LONGEST_CHAIN) throw refused(`its chain has ${answer.chain.length} certificates, more than ${LONGEST_CHAIN}`);
  const [chain, roots] = [readEach(answer.chain, 'chain'), readEach(answer.roots, 'roots')];
  const [ca, ...others] = chain;
  if (ca === undefined) throw refused('it holds no certificate');
  const own = profileProblem(ca, trustDomain);
  if (own !== undefined) throw refused(own.what);
  const path = findPath({ start: ca, others, anchors: roots, trustDomain, below: 0, now });
  if (isProblem(path)) throw refused(path.what);
  const isAsAnswered = path.chain.length === chain.length && path.chain.every((one, index) => one === chain[index]);
  if (!isAsAnswered) throw refused('its chain is not the way from the node CA up to a root, without the root (WA-28)');
  return { ca, path };
}

function readEach(ders: readonly Buffer[], where: string): CaCertificate[] {
  try {
    return ders.map(readCa);
  } catch (error) {
    throw refused(`its ${where} cannot be read: ${messageOf(error)}`);
  }
}

function* findings(ca: CaCertificate, asked: NodeCaAsked, path: CaPath, now: number): Iterable<string> {
  yield* keyFindings(ca, asked.keys);
  yield* uriFindings(ca, asked.trustDomain);
  yield* useFindings(ca);
  if (asked.acceptUnconstrainedCA !== true) yield* limitFindings(ca, asked);
  if (ca.notAfter > asked.latestEnd) yield `it ends at ${iso(ca.notAfter)}, later than ${iso(asked.latestEnd)}, which was asked for`;
  const above = path.chain[1] ?? path.root;
  const isNamed = ca.parsed.issuer.equals(above.parsed.subject);
  if (!isNamed) yield 'its issuer is not, octet by octet, the subject of the CA above it (RFC 5280 §4.1.2.4)';
  if (path.notAfter - now < SHORTEST_LIFE_MS) yield `it or a CA above it ends at ${iso(path.notAfter)}, in less than ${SHORTEST_LIFE_MS / 1000} s`;
}

function* keyFindings(ca: CaCertificate, keys: KeyPair): Iterable<string> {
  if (!ca.openssl.publicKey.equals(keys.publicKey)) yield 'it holds another public key';
}

function* uriFindings(ca: CaCertificate, trustDomain: TrustDomain): Iterable<string> {
  const id = idOfTrustDomain(trustDomain);
  const uris = urisOf(ca.parsed);
  if (uris.length !== 1 || uris[0] !== id) yield `its URI SANs are ${JSON.stringify(uris)} and not ["${id}"] (X509-SVID §3.2)`;
}

function* useFindings(ca: CaCertificate): Iterable<string> {
  const { basicConstraints: constraints, keyUsage: usage } = ca.parsed;
  if (constraints?.isCritical !== true) yield 'its basic constraints are not critical (RFC 5280 §4.2.1.9)';
  if (usage?.isCritical !== true) yield 'its key usage is not critical (X509-SVID §4.3)';
  if (((usage?.bits ?? 0) & ~ALLOWED_USES) !== 0) yield 'its key usage allows more than signing certificates, CRLs and data';
}

/** What not every upstream can give, and an operator may do without. */
function* limitFindings(ca: CaCertificate, { nameConstraint, trustDomain }: NodeCaAsked): Iterable<string> {
  if (ca.pathLength !== 0) yield `its path length is ${ca.pathLength ?? 'not limited'} and not 0 (RFC 5280 §4.2.1.9; authority.acceptUnconstrainedCA takes it)`;
  if (nameConstraint === 'uri' && !isConstrainedTo(ca, trustDomain)) {
    yield `it lacks the critical name constraint to URIs of ${trustDomain} alone that was asked for (RFC 5280 §4.2.1.10)`;
  }
}

/** Exactly the one host and nothing less: a second one would let this node sign for another trust domain. */
function isConstrainedTo(ca: CaCertificate, trustDomain: TrustDomain): boolean {
  const hosts = ca.constraints === undefined ? undefined : permittedUriHosts(ca.constraints);
  const isCritical = ca.parsed.extension(OID.nameConstraints)?.isCritical === true;
  return isCritical && hosts !== undefined && hosts.every((host) => host === trustDomain);
}

function nodeCaFrom(ca: CaCertificate, path: CaPath, keys: KeyPair): JudgedCa {
  return {
    ...issuerFrom(ca.der, keys),
    notAfter: path.notAfter,
    chain: path.chain.map(({ der }) => der),
    root: path.root.der,
  };
}

function refused(why: string): SignetError {
  return new SignetError('profile_violation', `the node CA that the upstream has answered is refused: ${why}`);
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
