import 'reflect-metadata';
import * as x509 from '@peculiar/x509';

/** A throw-away CA and what it has signed, in PEM. */
export interface TestPki {
  readonly ca: string;
  /** A serving certificate for 127.0.0.1 and the DNS name `node-1`. */
  readonly cert: string;
  readonly key: string;
  readonly clientCert: string;
  readonly clientKey: string;
}

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const YEAR_MS = 365 * 86_400_000;

export async function makePki(): Promise<TestPki> {
  const caKeys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const validity = { notBefore: new Date(Date.now() - 60_000), notAfter: new Date(Date.now() + YEAR_MS), signingAlgorithm: ALGORITHM };
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    ...validity,
    serialNumber: '01',
    name: 'CN=test-ca',
    keys: caKeys,
    extensions: [new x509.BasicConstraintsExtension(true, undefined, true), await x509.SubjectKeyIdentifierExtension.create(caKeys.publicKey)],
  });
  const leaf = async (serialNumber: string, subject: string, names: x509.JsonGeneralNames): Promise<[string, string]> => {
    const keys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
    const extensions = [new x509.SubjectAlternativeNameExtension(names), await x509.AuthorityKeyIdentifierExtension.create(caKeys.publicKey)];
    const certificate = await x509.X509CertificateGenerator.create({
      ...validity,
      serialNumber,
      subject,
      issuer: ca.subject,
      publicKey: keys.publicKey,
      signingKey: caKeys.privateKey,
      extensions,
    });
    const pkcs8 = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
    return [certificate.toString('pem'), `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n`];
  };
  const [cert, key] = await leaf('02', 'CN=server', [{ type: 'ip', value: '127.0.0.1' }, { type: 'dns', value: 'node-1' }]);
  const [clientCert, clientKey] = await leaf('03', 'CN=client', [{ type: 'dns', value: 'client' }]);
  return { ca: ca.toString('pem'), cert, key, clientCert, clientKey };
}
