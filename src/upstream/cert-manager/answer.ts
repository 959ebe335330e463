import { X509Certificate } from 'node:crypto';
import { readPem } from '../../spiffe/pem.ts';
import { CertManagerError } from './cert-manager-error.ts';

/**
 * The certificates in what cert-manager has answered, DER.
 *
 * @throws CertManagerError `malformed`
 */
export function certificatesIn(pem: string): Buffer[] {
  try {
    const ders = readPem(pem).filter(({ label }) => label === 'CERTIFICATE').map(({ der }) => der);
    for (const der of ders) new X509Certificate(der);
    return ders;
  } catch (error) {
    throw new CertManagerError('malformed', 'what cert-manager has answered holds a certificate that cannot be read', { cause: error });
  }
}

/** What was signed leads to no root that is believed: `ders` is what was answered, the signed certificate first. */
export function unknownRoot(ders: readonly Buffer[], issuer: string): CertManagerError {
  const last = ders.map((der) => new X509Certificate(der)).at(-1);
  const above = last === undefined ? 'nothing' : `"${oneLine(last.issuer)}"`;
  const text = `what ${issuer} has signed stands under ${above}, and no root of authority.certManager verifies it. What to do: add its root there, and wait until all nodes have it before the issuer changes`;
  return new CertManagerError('unknown_root', text);
}

function oneLine(name: string): string {
  return name.replaceAll('\n', ', ');
}
