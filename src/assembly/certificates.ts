import { X509Certificate } from 'node:crypto';
import type { Term } from '../telemetry/sources.ts';

/** Parsing costs more than a scrape should; a root is the same for months. */
const known = new WeakMap<Buffer, Term>();

/** The life of a certificate (DER). */
export function certificateEnd(der: Buffer): Term {
  const term = known.get(der) ?? termOf(new X509Certificate(der));
  known.set(der, term);
  return term;
}

function termOf({ validFromDate, validToDate }: X509Certificate): Term {
  return { lifeMs: validToDate.getTime() - validFromDate.getTime(), notAfter: validToDate.getTime() };
}
