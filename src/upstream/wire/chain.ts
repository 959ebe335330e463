import { X509Certificate } from 'node:crypto';

/** CAs one above the other. Longer than any real path; it bounds the search. */
const LONGEST_PATH = 8;

/**
 * The certificates from `start` up to a root, without the root, or undefined when `pool` and `roots` have no such way. What a
 * CA calls a chain may begin with the certificate itself or above it, and may hold more than one way after a cross-signing.
 */
export function chainUp(start: Buffer, pool: readonly Buffer[], roots: readonly Buffer[]): readonly Buffer[] | undefined {
  const [between, anchors] = [pool.map(read), roots.map(read)];
  const search = (path: readonly X509Certificate[]): readonly X509Certificate[] | undefined => {
    const last = path.at(-1);
    if (last === undefined || path.length > LONGEST_PATH) return undefined;
    if (anchors.some((root) => isIssuedBy(last, root))) return path;
    for (const next of between) {
      const found = path.includes(next) || !isIssuedBy(last, next) ? undefined : search([...path, next]);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  return search([read(start)])?.map(({ raw }) => raw);
}

/** True when the certificate is signed by itself. */
export function isRoot(der: Buffer): boolean {
  const certificate = new X509Certificate(der);
  return certificate.checkIssued(certificate) && certificate.verify(certificate.publicKey);
}

/** The same certificates, each once. */
export function once(ders: readonly Buffer[]): Buffer[] {
  return ders.filter((der, index) => ders.findIndex((other) => other.equals(der)) === index);
}

function read(der: Buffer): X509Certificate {
  return new X509Certificate(der);
}

function isIssuedBy(child: X509Certificate, parent: X509Certificate): boolean {
  return child.checkIssued(parent) && child.verify(parent.publicKey);
}
