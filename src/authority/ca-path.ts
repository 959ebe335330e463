import type { TrustDomain } from '../spiffe/id.ts';
import { nameText } from './certificate.ts';
import { datesProblem, profileProblem, type CaCertificate, type CaProblem } from './ca-certificate.ts';

/** The way from a CA up to a root that is believed. */
export interface CaPath {
  /** Where it began, and what lies between that and the root; empty when it began at a root. */
  readonly chain: readonly CaCertificate[];
  readonly root: CaCertificate;
  /** The first end on the way, which nothing signed below may outlive. Milliseconds since the Unix epoch. */
  readonly notAfter: number;
}

export interface PathRequest {
  readonly start: CaCertificate;
  /** In any order. */
  readonly others: readonly CaCertificate[];
  readonly anchors: readonly CaCertificate[];
  readonly trustDomain: TrustDomain;
  /** How many CAs will stand below `start`. */
  readonly below: number;
  readonly now: number;
}

/** CAs one above the other. Longer than any real path; it bounds the search. */
const LONGEST_PATH = 8;

/** Finds a way to an anchor on which every certificate passes (RFC 5280 §6.1), or says what is wrong with the first one there is. */
export function findPath(request: PathRequest): CaPath | CaProblem {
  let first: CaProblem | undefined;
  for (const path of pathsUp([request.start], request)) {
    const problem = pathProblem(path, request);
    if (problem === undefined) return toPath(path);
    first ??= problem;
  }
  return first ?? noPath(request);
}

export function isProblem(result: object): result is CaProblem {
  return 'what' in result;
}

function* pathsUp(path: readonly CaCertificate[], request: PathRequest): Iterable<readonly CaCertificate[]> {
  const last = path.at(-1);
  if (last === undefined || path.length > LONGEST_PATH) return;
  if (request.anchors.some(({ der }) => der.equals(last.der))) yield path;
  if (last.isSelfSigned) return;
  for (const anchor of request.anchors) if (isIssuedBy(last, anchor)) yield [...path, anchor];
  for (const other of request.others) {
    if (!other.isSelfSigned && !path.includes(other) && isIssuedBy(last, other)) yield* pathsUp([...path, other], request);
  }
}

function isIssuedBy(child: CaCertificate, parent: CaCertificate): boolean {
  return child.openssl.checkIssued(parent.openssl) && child.openssl.verify(parent.openssl.publicKey);
}

function pathProblem(path: readonly CaCertificate[], { trustDomain, below, now }: PathRequest): CaProblem | undefined {
  for (const [above, ca] of path.entries()) {
    const problem = profileProblem(ca, trustDomain) ?? datesProblem(ca, now) ?? lengthProblem(ca, below + above);
    if (problem !== undefined) return above === 0 ? problem : { what: `above it stands "${ca.name}", and of that: ${problem.what}`, remedy: problem.remedy };
  }
  return undefined;
}

/** The root's own limit counts too: OpenSSL and Go hold to it. */
function lengthProblem({ pathLength }: CaCertificate, below: number): CaProblem | undefined {
  if (pathLength === undefined || pathLength >= below) return undefined;
  const room = below === 1 ? 'so no node CA can stand below it' : `and ${below} CAs would stand below it`;
  return { what: `its path length is ${pathLength}, ${room} (RFC 5280 §4.2.1.9)`, remedy: `issue it with a path length of at least ${below}, or without one` };
}

function noPath({ start, trustDomain, now }: PathRequest): CaProblem {
  const own = profileProblem(start, trustDomain) ?? datesProblem(start, now);
  if (own !== undefined) return own;
  if (start.isSelfSigned) return { what: 'it is a root that is not among those that are believed', remedy: 'add it to the roots' };
  const issuer = nameText(start.openssl.issuer);
  return { what: `no root that is given verifies it; its issuer is "${issuer}"`, remedy: 'add the root at the end of that path to the roots, and what lies between to the certificate' };
}

function toPath(path: readonly CaCertificate[]): CaPath | CaProblem {
  const root = path.at(-1);
  if (root === undefined) return { what: 'its path is empty', remedy: 'add its root' };
  return { chain: path.slice(0, -1), root, notAfter: Math.min(...path.map((ca) => ca.notAfter)) };
}
