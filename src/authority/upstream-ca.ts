import type { KeyObject } from 'node:crypto';
import { messageOf } from '../errors.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { datesProblem, extendedUseWarning, GOOD_KEYS, keyProblem, profileProblem, readCa, type CaCertificate } from './ca-certificate.ts';
import { findPath, isProblem } from './ca-path.ts';
import type { SigningCa } from './certificate.ts';

/** A CA whose key is held here, as its operator gave it. Certificates are DER. */
export interface CaMaterial {
  readonly certificate: Buffer;
  /** What came with it: certificates between it and its root, perhaps the root itself. */
  readonly others: readonly Buffer[];
  readonly privateKey: KeyObject;
  /** Roots that are believed besides. */
  readonly roots: readonly Buffer[];
}

/** A CA that may sign node CAs. */
export interface UpstreamCa extends SigningCa {
  readonly certificate: Buffer;
  /** DER: itself and what lies between it and the root; empty when it is the root. */
  readonly chain: readonly Buffer[];
  readonly root: Buffer;
  /** All roots that are believed, its own first; DER, each once. */
  readonly roots: readonly Buffer[];
  /** Milliseconds since the Unix epoch. */
  readonly notBefore: number;
  /** The first end on the way to the root. */
  readonly notAfter: number;
  readonly warnings: readonly string[];
}

/** Why a CA is not used, and by which part of what was given. */
export interface RefusedCa {
  readonly part: 'certificate' | 'key' | 'roots';
  /** The end of a sentence about that part. */
  readonly what: string;
  /** An imperative for the operator. */
  readonly remedy: string;
}

/**
 * Judges a CA before anything is signed with it: that its key belongs to it, that it may sign node CAs of `trustDomain` at `now`,
 * and that a believed root verifies it (RFC 5280 §6.1; X509-SVID §3.2, §4, §5.1).
 */
export function judgeCa(material: CaMaterial, trustDomain: TrustDomain, now: number): UpstreamCa | RefusedCa {
  const weak = keyProblem(material.privateKey);
  if (weak !== undefined) return { part: 'key', what: weak, remedy: GOOD_KEYS };
  const own = readAll([material.certificate, ...material.others]);
  if (isProblem(own)) return { part: 'certificate', ...own };
  const given = readAll(material.roots);
  if (isProblem(given)) return { part: 'roots', ...given };
  const [start, ...others] = own;
  if (start === undefined) return { part: 'certificate', what: 'there is none', remedy: 'give the certificate of the CA' };
  if (!start.openssl.checkPrivateKey(material.privateKey)) {
    return { part: 'key', what: `it does not belong to the certificate of "${start.name}"`, remedy: 'replace both together; a half-written pair is looked at again' };
  }
  const bad = rootsProblem(given, trustDomain);
  if (bad !== undefined) return bad;
  const anchors = [...own.filter((ca) => ca.isSelfSigned), ...given];
  const path = findPath({ start, others, anchors, trustDomain, below: 1, now });
  if (isProblem(path)) return { part: 'certificate', ...path };
  const valid = given.filter((root) => datesProblem(root, now) === undefined);
  return {
    privateKey: material.privateKey,
    subjectName: start.parsed.subject,
    subjectKeyId: start.subjectKeyId,
    certificate: start.der,
    chain: path.chain.map(({ der }) => der),
    root: path.root.der,
    roots: once([path.root.der, ...valid.map(({ der }) => der)]),
    notBefore: start.notBefore,
    notAfter: path.notAfter,
    warnings: [...warningsOf([...path.chain, path.root], given, now)],
  };
}

/** What is believed must be a root of this trust domain, whether anything stands under it or not. Expired ones only stay unused. */
function rootsProblem(roots: readonly CaCertificate[], trustDomain: TrustDomain): RefusedCa | undefined {
  for (const root of roots) {
    const problem = profileProblem(root, trustDomain);
    if (problem !== undefined) return { part: 'roots', what: `of "${root.name}": ${problem.what}`, remedy: problem.remedy };
    if (!root.isSelfSigned) {
      return { part: 'roots', what: `"${root.name}" is not self-signed: many TLS stacks take no other for a root`, remedy: 'put intermediates behind the certificate of the CA, and only roots here' };
    }
  }
  return undefined;
}

function* warningsOf(path: readonly CaCertificate[], roots: readonly CaCertificate[], now: number): Iterable<string> {
  for (const ca of path) {
    const warning = extendedUseWarning(ca);
    if (warning !== undefined) yield warning;
  }
  for (const root of roots) {
    const problem = datesProblem(root, now);
    if (problem !== undefined) yield `the root "${root.name}" is left out: ${problem.what}`;
  }
}

function readAll(ders: readonly Buffer[]): CaCertificate[] | { what: string; remedy: string } {
  try {
    return ders.map(readCa);
  } catch (error) {
    return { what: `it holds something that is no certificate: ${messageOf(error)}`, remedy: 'write it anew, as PEM' };
  }
}

function once(ders: readonly Buffer[]): Buffer[] {
  return ders.filter((der, index) => ders.findIndex((other) => other.equals(der)) === index);
}
