import 'reflect-metadata';
import type { KeyObject, webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import type { SpiffeId } from '../spiffe/id.ts';

interface KeyPair {
  readonly publicKey: KeyObject;
  readonly privateKey: KeyObject;
}

interface Names {
  readonly id: SpiffeId;
  readonly dnsNames: readonly string[];
}

/**
 * A PKCS #10 request in DER for an X.509-SVID (RFC 2986; X509-SVID §4). It asks for the names and no more: what else stands in the
 * certificate is the profile of the CA.
 */
export async function createLeafRequest(keys: KeyPair, { id, dnsNames }: Names): Promise<Buffer> {
  const { publicKey, privateKey } = keys;
  const algorithm = algorithmOf(privateKey);
  const names: x509.JsonGeneralNames = [{ type: 'url', value: id }];
  for (const value of dnsNames) names.push({ type: 'dns', value });
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: 'O=Signet',
    keys: { publicKey: publicKey.toCryptoKey(algorithm, true, ['verify']), privateKey: privateKey.toCryptoKey(algorithm, false, ['sign']) },
    signingAlgorithm: algorithm,
    extensions: [new x509.SubjectAlternativeNameExtension(names)],
  });
  return Buffer.from(request.rawData);
}

function algorithmOf({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject): Algorithm {
  if (type === 'rsa') return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
  const isP384 = details?.namedCurve === 'secp384r1';
  return { name: 'ECDSA', namedCurve: isP384 ? 'P-384' : 'P-256', hash: isP384 ? 'SHA-384' : 'SHA-256' };
}

type Algorithm = { readonly name: string; readonly hash: string } & Partial<webcrypto.EcKeyImportParams>;
