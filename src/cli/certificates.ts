import { X509Certificate, type KeyObject } from 'node:crypto';
import { toPem } from '../spiffe/pem.ts';

/** A certificate as JSON shows it. */
export interface CertificateView {
  readonly subject: string;
  readonly issuer: string;
  readonly serial: string;
  readonly key_type: string;
  readonly not_before: string;
  readonly not_after: string;
  readonly sha256: string;
  readonly pem: string;
}

const CURVES: Readonly<Record<string, string>> = { prime256v1: 'P-256', secp384r1: 'P-384', secp521r1: 'P-521' };

export function viewCertificate(der: Buffer): CertificateView {
  const certificate = new X509Certificate(der);
  return {
    subject: oneLine(certificate.subject),
    issuer: oneLine(certificate.issuer),
    serial: certificate.serialNumber.toLowerCase(),
    key_type: keyType(certificate.publicKey),
    not_before: isoTime(certificate.validFromDate.getTime()),
    not_after: isoTime(certificate.validToDate.getTime()),
    sha256: certificate.fingerprint256.replaceAll(':', '').toLowerCase(),
    pem: toPem('CERTIFICATE', der),
  };
}

/** `EC P-256`, `RSA 2048`, or the name that OpenSSL has for it. */
export function keyType(key: KeyObject): string {
  const { namedCurve = '', modulusLength } = key.asymmetricKeyDetails ?? {};
  if (key.asymmetricKeyType === 'ec') return `EC ${CURVES[namedCurve] ?? namedCurve}`;
  if (key.asymmetricKeyType === 'rsa') return `RSA ${modulusLength}`;
  return key.asymmetricKeyType ?? 'unknown';
}

/** RFC 3339 in UTC, to the second. */
export function isoTime(ms: number): string {
  return new Date(ms).toISOString().replace(/\.[0-9]+Z$/, 'Z');
}

/** Node gives a name as lines. */
function oneLine(name: string | undefined): string {
  return name === undefined || name === '' ? '(empty)' : name.split('\n').join(', ');
}
