import { createPrivateKey } from 'node:crypto';
import { nameElement, OID, requestInfo, subjectAltName } from '../authority/certificate-form.ts';
import { signed } from '../authority/signature.ts';
import type { SpiffeId } from '../spiffe/id.ts';
import type { EncodedKeyPair } from '../spiffe/key-type.ts';

interface Names {
  readonly id: SpiffeId;
  readonly dnsNames: readonly string[];
}

/**
 * A PKCS #10 request in DER for an X.509-SVID (RFC 2986; X509-SVID §4). It asks for the names and no more: what else stands in the
 * certificate is the profile of the CA.
 */
export function createLeafRequest({ publicKey, privateKey }: EncodedKeyPair, { id, dnsNames }: Names): Promise<Buffer> {
  const info = requestInfo(nameElement([OID.organization, 'Signet']), publicKey, [subjectAltName(id, dnsNames)]);
  return signed(info, createPrivateKey({ key: privateKey, format: 'der', type: 'pkcs8' }));
}
