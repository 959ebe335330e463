import { X509Certificate } from 'node:crypto';

/**
 * A root of the own bundle. It is there for a while before anything under it signs, so that everybody has it by then (FED-02), and
 * after the upstream has given it up, until everything under it has ended (FED-04).
 */
export interface KnownRoot {
  readonly certificate: Buffer;
  /** Since when it is in the bundle. Milliseconds since the Unix epoch, as are all of these. */
  readonly since: number;
  /** Since when the upstream does not stand for it any more; undefined while it does. */
  readonly leftAt: number | undefined;
  readonly notAfter: number;
}

/** Something that stands under a root. */
interface Under {
  readonly root: Buffer;
  readonly notAfter: number;
}

export function knownRoot(certificate: Buffer, since: number, leftAt?: number): KnownRoot {
  return { certificate, since, leftAt, notAfter: new X509Certificate(certificate).validToDate.getTime() };
}

/** The roots when the upstream stands for `current`. That it names none means that it knows none at present. */
export function followRoots(known: readonly KnownRoot[], current: readonly Buffer[], now: number): readonly KnownRoot[] {
  if (current.length === 0) return known;
  const followed = known.map((root) => {
    if (!has(current, root.certificate)) return root.leftAt === undefined ? { ...root, leftAt: now } : root;
    return root.leftAt === undefined ? root : { ...root, leftAt: undefined };
  });
  const isSame = followed.every((root, index) => root === known[index]);
  return addRoots(isSame ? known : followed, current, now);
}

/** The roots with those of `more` that are not among them. */
export function addRoots(known: readonly KnownRoot[], more: readonly Buffer[], now: number): readonly KnownRoot[] {
  const added = more.filter((der) => !known.some(({ certificate }) => certificate.equals(der))).map((der) => knownRoot(der, now));
  return added.length === 0 ? known : [...known, ...added];
}

/** Until when a root stays in the bundle; `holdMs` is how long anything signed under it on any node can live. */
export function endOf(root: KnownRoot, under: readonly Under[], holdMs: number): number {
  if (root.leftAt === undefined) return root.notAfter;
  const ends = under.filter((one) => one.root.equals(root.certificate)).map(({ notAfter }) => notAfter);
  return Math.min(root.notAfter, Math.max(root.leftAt + holdMs, ...ends));
}

/** From when on something under `root` may sign. */
export function usableFrom(known: readonly KnownRoot[], root: Buffer, overlapMs: number): number {
  const found = known.find(({ certificate }) => certificate.equals(root));
  return found === undefined ? Infinity : found.since + overlapMs;
}

function has(ders: readonly Buffer[], der: Buffer): boolean {
  return ders.some((other) => other.equals(der));
}
