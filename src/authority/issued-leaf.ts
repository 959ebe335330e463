import { X509Certificate as OpenSslCertificate } from 'node:crypto';
import { messageOf } from '../errors.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import type { SignedX509 } from '../spiffe/signing.ts';
import { readCa, type CaCertificate } from './ca-certificate.ts';
import { nameText } from './certificate.ts';
import { NAME_TAG } from './certificate-form.ts';
import { CertificateReader } from './certificate-reader.ts';
import { findPath, isProblem } from './ca-path.ts';
import { leafProblems, type LeafProblem } from './lint.ts';

/** What a CA has answered to a request for a leaf. */
export interface AnsweredLeaf {
  /** DER. */
  readonly leaf: Buffer;
  /** DER of what came with it, in any order, roots included. */
  readonly others: readonly Buffer[];
}

/** What was asked for. */
export interface AskedLeaf {
  readonly trustDomain: TrustDomain;
  readonly id: SpiffeId;
  /** SubjectPublicKeyInfo in DER. */
  readonly publicKey: Buffer;
  readonly dnsNames: readonly string[];
  readonly ttlMs: number;
  /** DER of the roots that are believed; the leaf must end at one of them. */
  readonly roots: readonly Buffer[];
}

/** `problems` is never empty. */
export type LeafJudgement = { readonly signed: SignedX509 } | { readonly problems: readonly LeafProblem[] };

/** A CA may leave it out of a leaf: RFC 5280 §4.2.1.2 only recommends it there. The lint asks it of the agent's own leaves. */
const NO_KEY_ID = 'XS-44: there is no subject key identifier';

/** What a CA may add to the asked life, and how far its clock may be off. */
const TOLERATED_MS = 300_000;

/**
 * Judges a leaf that a CA above has signed: that it has the profile of an X.509-SVID, is what was asked for, is valid at `now`, and
 * that a believed root verifies it (X509-SVID §4, §5; RFC 5280 §6.1). A shorter life than the asked one is none of its faults.
 */
export function judgeIssuedLeaf(answer: AnsweredLeaf, asked: AskedLeaf, now: number): LeafJudgement {
  try {
    return judge(answer, asked, now);
  } catch (error) {
    return { problems: [{ part: 'form', what: `it cannot be read: ${messageOf(error)}` }] };
  }
}

function judge({ leaf: der, others }: AnsweredLeaf, asked: AskedLeaf, now: number): LeafJudgement {
  const openssl = new OpenSslCertificate(der);
  const leaf = new CertificateReader(der);
  const [below, anchors] = [others.map(readCa), asked.roots.map(readCa)];
  const issuer = [...below, ...anchors].find((ca) => isIssuerOf(ca, openssl, leaf));
  if (issuer === undefined) return problem('issuer', `what came with it does not hold its issuer "${nameText(openssl.issuer)}", nor do the roots of the bundle`);
  const [notBefore, notAfter] = [openssl.validFromDate.getTime(), openssl.validToDate.getTime()];
  const expected = { id: asked.id, publicKey: asked.publicKey, dnsNames: orderOf(leaf, asked.dnsNames), notBefore, notAfter };
  const problems = [...leafProblems(der, expected, { ...issuer, certificate: issuer.der }).filter(({ what }) => what !== NO_KEY_ID), ...datesOf(notBefore, notAfter, asked, now)];
  const path = findPath({ start: issuer, others: below, anchors, trustDomain: asked.trustDomain, below: 0, now });
  if (isProblem(path)) problems.push({ part: 'issuer', what: `of its issuer "${issuer.name}": ${path.what}. What to do: ${path.remedy}` });
  if (problems.length > 0 || isProblem(path)) return { problems };
  const chain = [der, ...path.chain.map((ca) => ca.der)];
  // A verifier takes it for no longer than it takes what stands above it.
  return { signed: { chain, serial: openssl.serialNumber.toLowerCase(), notBefore, notAfter: Math.min(notAfter, path.notAfter) } };
}

function isIssuerOf(ca: CaCertificate, openssl: OpenSslCertificate, { authorityKeyId }: CertificateReader): boolean {
  return ca.openssl.subject === openssl.issuer && authorityKeyId?.equals(ca.subjectKeyId) !== false;
}

/** DNS names are a set (RFC 5280 §4.2.1.6), and a CA may write them in any order. */
function orderOf({ names }: CertificateReader, asked: readonly string[]): readonly string[] {
  const found = names.filter(({ tag }) => tag === NAME_TAG.dns).map(({ text }) => text);
  const isSame = found.length === asked.length && found.every((name) => asked.includes(name)) && asked.every((name) => found.includes(name));
  return isSame ? found : asked;
}

function* datesOf(notBefore: number, notAfter: number, { ttlMs }: AskedLeaf, now: number): Iterable<LeafProblem> {
  if (notBefore > now) yield { part: 'dates', what: `it is not valid before ${iso(notBefore)}, and here it is ${iso(now)}: the clock of one of the two is wrong` };
  if (notAfter <= now) yield { part: 'dates', what: `it has ended at ${iso(notAfter)} already` };
  if (notAfter > now + ttlMs + TOLERATED_MS) yield { part: 'dates', what: `it lives until ${iso(notAfter)}, longer than was asked for` };
}

function problem(part: LeafProblem['part'], what: string): LeafJudgement {
  return { problems: [{ part, what }] };
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
